"""`microg data stats`: the dataset tables and plots of the paper, for any dataset."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from microg.jobs.common import JsonOption, command, main, print_json

if TYPE_CHECKING:
    import pandas as pd

    from microg.data.statistics import Tables

EPILOG = """
**Examples**

`microg data stats data/mine`

`microg data stats data/mine --out stats/` writes one CSV a table, and each plot as PNG and SVG

`microg data stats data/mine --json > stats.json`
"""

# Long tables are cut in the terminal only; CSV and JSON hold every row.
_TERMINAL_ROWS = 20


@command("data stats", epilog=EPILOG)
def stats(
    dataset: Annotated[str, typer.Argument(help="Dataset folder, or a URI such as s3://bucket/name.")],
    out: Annotated[str | None, typer.Option("--out", help="Folder for CSV files and plots (PNG and SVG).")] = None,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw plots too (with --out).")] = True,
    as_json: JsonOption = False,
) -> None:
    """Describe a dataset: size, actions, people, labels, splits, sources, captions, questions; tables and plots.

    Counts follow the rules of the published statistics. What a dataset lacks (captions, labels ...) is noted.
    """
    from microg.data.dataset import Dataset
    from microg.data.statistics import Tables, all_tables, missing

    opened = Dataset.open(dataset)
    tables = Tables.load(opened)
    results = all_tables(tables)
    notes = missing(tables)
    written = _write(out, tables, results, plots) if out is not None else []
    if as_json:
        print_json(
            {
                "dataset": dataset,
                "notes": notes,
                "tables": {name: _records(frame) for name, frame in results.items()},
                "files": written,
            }
        )
        return
    _print(results, notes, dataset)
    if written:
        print(f"wrote {len(written)} files to {out}")


def _write(out: str, tables: Tables, results: dict[str, pd.DataFrame], plots: bool) -> list[str]:
    from microg import storage

    written = []
    for name, frame in results.items():
        path = storage.join(out, f"{name}.csv")
        storage.write_bytes(path, frame.to_csv(index=False, lineterminator="\n").encode())
        written.append(path)
    if plots:
        from microg.reports.plots.dataset import dataset_plots

        for plot in dataset_plots(tables):
            written += plot.save(out)
    return written


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    # NaN is not JSON.
    return frame.astype("object").where(frame.notna(), None).to_dict("records")


def _print(results: dict[str, pd.DataFrame], notes: list[str], dataset: str) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from microg.data.statistics import cell_text

    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(f"[bold]{escape(dataset)}[/]", highlight=False)
    for name, frame in results.items():
        shown = frame.loc[:, [not str(column).endswith("_percent") for column in frame.columns]]
        if name == "labels_per_action":
            shown = shown[shown["all"] > 0]
        if name == "question_types":
            shown = shown[shown["questions"] > 0]
        if shown.empty or (name == "action_groups" and not shown["all"].sum()):
            continue
        table = Table(title=name.replace("_", " "), title_justify="left", title_style="bold")
        numeric = [not any(isinstance(value, str) for value in shown[column]) for column in shown.columns]
        for column, right in zip(shown.columns, numeric, strict=True):
            table.add_column(str(column).replace("_", " "), justify="right" if right else "left")
        for row in shown.head(_TERMINAL_ROWS).itertuples(index=False):
            table.add_row(*[escape(cell_text(value)) for value in row])
        console.print(table)
        if len(shown) > _TERMINAL_ROWS:
            console.print(f"[dim]... {len(shown) - _TERMINAL_ROWS} more rows (--out or --json)[/]", highlight=False)
    for note in notes:
        console.print(f"[yellow]note:[/] {escape(note)}", highlight=False)


if __name__ == "__main__":
    main("Describe a dataset.")
