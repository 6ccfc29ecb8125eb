"""What `microg data stats` does: the tables of a dataset, as CSV files, plots, JSON and in the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.table import Table

from microg import storage
from microg.annotations.apply import in_short
from microg.console import say
from microg.data.dataset import Dataset
from microg.data.qa_kinds import read_kinds
from microg.data.statistics import Tables, all_tables, cell_text, missing
from microg.escaping import csv_text
from microg.locks import exclusive
from microg.screen import styled, wide_screen

# Long tables are cut in the terminal only; CSV and JSON hold every row.
_TERMINAL_ROWS = 20


@dataclass(frozen=True, kw_only=True)
class Description:
    """The tables of a dataset by name, how its judgements were accepted, notes on what it lacks, and the files that
    were written to folder `out`.
    """

    dataset: str
    tables: dict[str, pd.DataFrame]
    acceptance: list[str]
    notes: list[str]
    out: str | None
    files: list[str]


def describe(dataset: str, out: str | None, *, plots: bool, kinds: str | None = None) -> Description:
    """Describe a dataset; with a folder `out` also write CSV files there, and plots where they are wanted.

    `kinds` is a run that labelled the questions.
    """
    opened = Dataset.open(dataset)
    loaded = Tables.load(opened)
    tables = all_tables(loaded, None if kinds is None else read_kinds(kinds))
    files = [] if out is None else _write(loaded, tables, out, plots=plots)
    return Description(
        dataset=dataset, tables=tables, acceptance=in_short(opened), notes=missing(loaded), out=out, files=files
    )


def _write(loaded: Tables, tables: dict[str, pd.DataFrame], out: str, *, plots: bool) -> list[str]:
    files = []
    with exclusive(out):
        for name, frame in tables.items():
            files.append(storage.join(out, f"{name}.csv"))
            rows = frame.astype("object").where(frame.notna(), None).itertuples(index=False)
            storage.write_bytes(files[-1], csv_text(frame.columns, rows).encode())
        if plots:
            from microg.reports.plots.dataset import dataset_plots

            files += [path for plot in dataset_plots(loaded) for path in plot.save(out)]
    return files


def document(description: Description) -> dict[str, Any]:
    """Return a description for JSON, which has no NaN."""
    tables = {
        name: frame.astype("object").where(frame.notna(), None).to_dict("records")
        for name, frame in description.tables.items()
    }
    return {
        "dataset": description.dataset,
        "acceptance": description.acceptance,
        "notes": description.notes,
        "tables": tables,
        "files": description.files,
    }


def show(description: Description) -> None:
    """Print the tables that are not empty, the notes, and how many files were written."""
    screen = wide_screen()
    screen.print(styled((description.dataset, "bold")))
    for name, frame in description.tables.items():
        rows = frame.loc[:, [not str(column).endswith("_percent") for column in frame.columns]]
        if name == "labels_per_action":
            rows = rows[rows["all"] > 0]
        if name in ("question_types", "qa_kinds"):
            rows = rows[rows["questions"] > 0]
        if rows.empty or (name == "action_groups" and not rows["all"].sum()):
            continue
        table = Table(title=name.replace("_", " "), title_justify="left", title_style="bold")
        numeric = [not any(isinstance(value, str) for value in rows[column]) for column in rows.columns]
        for column, right in zip(rows.columns, numeric, strict=True):
            table.add_column(str(column).replace("_", " "), justify="right" if right else "left")
        for row in rows.head(_TERMINAL_ROWS).itertuples(index=False):
            table.add_row(*map(cell_text, row))
        screen.print(table)
        if len(rows) > _TERMINAL_ROWS:
            screen.print(styled((f"... {len(rows) - _TERMINAL_ROWS} more rows (--out or --json)", "dim")))
    for line in description.acceptance:
        say(line)
    for note in description.notes:
        screen.print(styled(("note:", "yellow"), f" {note}"))
    if description.files:
        say(f"wrote {len(description.files)} files to {description.out}")
