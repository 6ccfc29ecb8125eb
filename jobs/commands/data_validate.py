"""What `microg data validate` writes and prints."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from microg import storage
from microg.validation import ValidationReport


def write_findings(report: ValidationReport, path: str) -> None:
    """Write all findings to a .json or .parquet file."""
    if path.endswith(".json"):
        storage.write_json(path, report.to_dict())
    else:
        storage.write_parquet(path, report.to_table())


def show(report: ValidationReport, name: str, examples: int) -> None:
    """Print the findings by check, with so many examples of each, and what was checked."""
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
