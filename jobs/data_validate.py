"""`microg data validate`: check a dataset's tables and video files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from microg.errors import ConfigError
from microg.jobs.common import EXIT_FAILED_ROWS, JsonOption, command, main, print_json

if TYPE_CHECKING:
    from microg.validation import ValidationReport

EPILOG = """
**Examples**

`microg data validate data/mine`

`microg data validate data/mine --no-videos --json > findings.json`

`microg data validate s3://bucket/mine --findings findings.parquet`

Exit code: 0 no errors (warnings are allowed), 1 errors were found, 2 not a dataset.
"""


@command("data validate", epilog=EPILOG)
def validate(
    dataset: Annotated[str, typer.Argument(help="Dataset folder, or a URI such as s3://bucket/name.")],
    videos: Annotated[
        bool, typer.Option("--videos/--no-videos", help="Open each video: is it readable, unchanged, not a duplicate?")
    ] = True,
    findings: Annotated[
        str | None, typer.Option("--findings", help="Write all findings to this .parquet or .json file.")
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Decoding threads; default: cores.")] = None,
    examples: Annotated[int, typer.Option("--examples", min=0, help="Examples shown of each check.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Check a dataset: boxes, people, labels, ids, repeated rows, text, splits, videos, near-duplicate clips.

    Findings are grouped by check: an error contradicts the schema or cannot be used, a warning is suspicious.
    """
    from microg.console import ProgressDisplay
    from microg.data.dataset import Dataset
    from microg.validation import validate as validate_dataset

    if findings is not None and not findings.endswith((".parquet", ".json")):
        raise ConfigError(f"--findings {findings}: the name must end in .parquet or .json")
    opened = Dataset.open(dataset)
    with ExitStack() as stack:

        def begin(total: int) -> Callable[[], None]:
            return stack.enter_context(ProgressDisplay("videos", total)).advance

        report = validate_dataset(opened, videos=videos, workers=workers, progress=begin)
    if findings is not None:
        _write(report, findings)
    if as_json:
        print_json({"dataset": dataset, **report.to_dict()})
    else:
        _print(report, dataset, examples)
    if report.errors:
        raise typer.Exit(EXIT_FAILED_ROWS)


def _write(report: ValidationReport, path: str) -> None:
    from microg import storage

    if path.endswith(".json"):
        storage.write_json(path, report.to_dict())
    else:
        storage.write_parquet(path, report.to_table())


def _print(report: ValidationReport, name: str, examples: int) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    # Without a terminal the table must not be cut at 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 160)
    if report.findings:
        table = Table(title=f"Findings in {escape(name)}", title_justify="left", show_lines=True)
        for header in ("", "check", "table"):
            table.add_column(header, no_wrap=True)
        table.add_column("rows", justify="right", no_wrap=True)
        table.add_column("clips", justify="right")
        table.add_column("examples", overflow="fold")
        for summary in report.summaries(examples):
            colour = "red" if summary.severity == "error" else "yellow"
            shown = []
            for finding in summary.first:
                where = f"[bold]{escape(finding.clip_id)}[/]: " if finding.clip_id else ""
                detail = f" [dim]({escape('; '.join(finding.examples))})[/]" if finding.examples else ""
                shown.append(f"{where}{escape(finding.message)}{detail}")
            table.add_row(
                f"[{colour}]{summary.severity}[/]",
                summary.check,
                summary.table,
                str(summary.count),
                str(summary.clips) if summary.clips else "-",
                "\n".join(shown),
            )
        console.print(table)
    rows = ", ".join(f"{count:,} {table}" for table, count in report.rows.items() if count)
    console.print(f"checked: {rows or 'no rows'}", highlight=False)
    for reason in report.skipped:
        console.print(f"[dim]{escape(reason)}[/]", highlight=False)
    colour = "red" if report.errors else "green"
    console.print(f"[{colour}]{report.errors} errors[/], {report.warnings} warnings", highlight=False)


if __name__ == "__main__":
    main("Check a dataset.")
