"""The report of runs: one self-contained page, with the paper's tables as files beside it.

`build` does everything; sections that have nothing to show are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import TypedDict

from microg import storage
from microg.data.dataset import Dataset
from microg.errors import ConfigError
from microg.reports.html import Section, render_page
from microg.reports.options import ReportOptions
from microg.reports.pages import report_sections as parts
from microg.reports.run_folders.runs import RunFolder, find_runs
from microg.reports.run_folders.sources import datasets_of
from microg.reports.run_kinds.kind import SectionInputs
from microg.reports.run_kinds.registry import of_kind, run_kinds
from microg.reports.tables.data_table import data_table
from microg.reports.tables.result_table import ResultTable
from microg.reports.tables.table_formats import write_tables

Progress = Callable[[str], None]


class ListedRun(TypedDict):
    """A run that a page was made of."""

    run: str
    command: str
    finished: bool


class WrittenPage(TypedDict):
    """What was written and read: the page and its size, all files, what could not be shown and why, the runs."""

    page: str
    bytes: int
    files: list[str]
    notes: list[str]
    runs: list[ListedRun]


def section_names() -> list[str]:
    """Return the names of all sections of a report, in reading order."""
    of_kinds = (part.name for kind in run_kinds() for part in kind.sections)
    return ["overview", "tables", *of_kinds, "costs", "warnings", "defects", "provenance"]


def build(
    runs: Sequence[str],
    out: str = "report.html",
    *,
    datasets: Sequence[str] = (),
    options: ReportOptions | None = None,
    progress: Progress = lambda name: None,
) -> WrittenPage:
    """Write the report of run folders, or of folders that hold them.

    Args:
        runs: The folders.
        out: The page (`.html`), with the tables in a folder beside it, or a folder for `report.html` and `tables/`.
        datasets: Datasets that stand in for those that runs name but that are no longer where they were.
        options: How much is shown.
        progress: Called with each of `section_names` when it is done.

    Returns:
        What was written and read.

    Raises:
        DatasetError: A folder is no run folder and holds none.
    """
    found = find_runs(runs)
    given = [Dataset.open(path) for path in datasets]
    page, folder = page_and_tables(out)
    known = datasets_of(found, given)
    tables = paper_tables(found, known)
    files = write_tables(tables, folder)
    inputs = SectionInputs(datasets=given, options=options or ReportOptions(), notes=[])
    sections: list[Section | None] = []

    def add(name: str, section: Section | None) -> None:
        sections.append(section)
        progress(name)

    add("overview", parts.overview(found))
    add("tables", parts.tables(tables, PurePosixPath(folder).name))
    for kind in run_kinds():
        for part in kind.sections:
            usable = part.runs(of_kind(found, kind))
            add(part.name, part.make(usable, inputs) if usable else None)
    add("costs", parts.costs(found))
    add("warnings", parts.warnings(found, inputs.notes))
    add("defects", parts.known_defects(found, known))
    add("provenance", parts.provenance(found))
    title = inputs.options.title or (f"Report of {found[0].name}" if len(found) == 1 else "MicroG-Bench report")
    text = render_page(title, _subtitle(found), sections)
    storage.write_bytes(page, text.encode("utf-8", "replace"))
    return written_page(page, text, [page, *files], inputs.notes, found)


def written_page(
    page: str, text: str, files: Sequence[str], notes: Sequence[str], runs: Sequence[RunFolder]
) -> WrittenPage:
    """Return the record of a page."""
    return {
        "page": page,
        "bytes": len(text.encode("utf-8", "replace")),
        "files": list(files),
        "notes": list(notes),
        "runs": [{"run": run.root, "command": run.command, "finished": run.finished} for run in runs],
    }


def paper_tables(runs: Sequence[RunFolder], datasets: Sequence[Dataset] = ()) -> list[ResultTable]:
    """Return Tables 1 to 5 in the paper's shape; those that no run adds to hold the published rows only."""
    return [data_table(datasets), *(table for kind in run_kinds() for table in kind.paper_tables(of_kind(runs, kind)))]


def page_and_tables(out: str) -> tuple[str, str]:
    """Return where the page and the folder of tables go.

    >>> page_and_tables("a/report.html"), page_and_tables("a/b/")
    (('a/report.html', 'a/report_tables'), ('a/b/report.html', 'a/b/tables'))

    Raises `ConfigError` when `out` is a run folder's own record.
    """
    if out.endswith((".html", ".htm")):
        return out, out.rpartition(".")[0] + "_tables"
    if PurePosixPath(out).name in ("run.json", "metrics.json"):
        raise ConfigError(f"--out {out} would overwrite a run's record", "give a page (.html) or a folder")
    return storage.join(out, "report.html"), storage.join(out, "tables")


def _subtitle(runs: Sequence[RunFolder]) -> str:
    kinds: dict[str, int] = {}
    for run in runs:
        kinds[run.command] = kinds.get(run.command, 0) + 1
    counted = ", ".join(f"{number} {name}" for name, number in kinds.items())
    return f"{len(runs)} run{'s' if len(runs) != 1 else ''}: {counted}"
