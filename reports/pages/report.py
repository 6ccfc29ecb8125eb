"""The report of runs: one self-contained page, with the paper's tables as files beside it.

`build` does everything; sections that have nothing to show are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from microg import storage
from microg.data.dataset import Dataset
from microg.errors import ConfigError
from microg.reports.clips.pictures import PictureStyle
from microg.reports.pages import report_sections as parts
from microg.reports.pages.dataset_page import render_page
from microg.reports.pages.sections import Section
from microg.reports.run_folders.runs import RunFolder, find_runs
from microg.reports.run_folders.sources import datasets_of
from microg.reports.tables.paper_tables import paper_tables
from microg.reports.tables.table_formats import write_tables

Progress = Callable[[str], None]
# In reading order.
SECTIONS = (
    "overview",
    "tables",
    "classes",
    "actions",
    "captions",
    "answers",
    "text scores",
    "training",
    "sweeps",
    "costs",
    "warnings",
    "defects",
    "provenance",
)


@dataclass(frozen=True)
class ReportOptions:
    """How much a page shows: clips with pictures a section, and how pictures are made."""

    title: str | None = None
    max_clips: int = 12
    picture: PictureStyle = field(default_factory=lambda: PictureStyle(width=480, quality=70, form="webp"))


def build(
    runs: Sequence[str],
    out: str = "report.html",
    *,
    datasets: Sequence[str] = (),
    options: ReportOptions | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the report of run folders, or of folders that hold them; returns what was written and read.

    `out` is the page (`.html`), with the tables in a folder beside it, or a folder for `report.html` and `tables/`.
    `datasets` stand in for those that runs name but that are not there any more; `progress` is told each of `SECTIONS`
    when it is done. The result has `page`, `files`, `runs` and `notes` (what could not be shown, and why). Raises
    `DatasetError` for what is no run folder.
    """
    options = options or ReportOptions()
    tell = progress or (lambda _: None)
    found = find_runs(runs)
    given = [Dataset.open(path) for path in datasets]
    page, folder = places(out)
    known = datasets_of(found, given)
    tables = paper_tables(found, known)
    files = write_tables(tables, folder)
    notes: list[str] = []
    makers: dict[str, Callable[[], Section | None]] = {
        "overview": lambda: parts.overview(found),
        "tables": lambda: parts.tables(tables, PurePosixPath(folder).name),
        "classes": lambda: parts.classes(found),
        "actions": lambda: parts.actions(found, given, options, notes),
        "captions": lambda: parts.texts(found, "caption", given, options),
        "answers": lambda: parts.texts(found, "vqa", given, options),
        "text scores": lambda: parts.text_plots(found),
        "training": lambda: parts.training(found),
        "sweeps": lambda: parts.sweeps(found),
        "costs": lambda: parts.costs_section(found),
        "warnings": lambda: parts.remarks_section(found, notes),
        "defects": lambda: parts.defects_section(found, known),
        "provenance": lambda: parts.provenance_section(found),
    }
    sections = []
    for name in SECTIONS:
        sections.append(makers[name]())
        tell(name)
    title = options.title or _title(found)
    text = render_page(title, _subtitle(found), sections)
    storage.write_bytes(page, text.encode("utf-8", "replace"))
    return {
        "page": page,
        "bytes": len(text.encode("utf-8", "replace")),
        "files": [page, *files],
        "notes": notes,
        "runs": [{"run": run.root, "command": run.command, "finished": run.finished} for run in found],
    }


def places(out: str) -> tuple[str, str]:
    """Return where the page and the folder of tables go.

    >>> places("a/report.html"), places("a/b/")
    (('a/report.html', 'a/report_tables'), ('a/b/report.html', 'a/b/tables'))

    Raises `ConfigError` when `out` is a run folder's own record.
    """
    if out.endswith((".html", ".htm")):
        return out, out.rpartition(".")[0] + "_tables"
    if PurePosixPath(out).name in ("run.json", "metrics.json"):
        raise ConfigError(f"--out {out} would overwrite a run's record", "give a page (.html) or a folder")
    return storage.join(out, "report.html"), storage.join(out, "tables")


def _title(runs: Sequence[RunFolder]) -> str:
    return f"Report of {runs[0].name}" if len(runs) == 1 else "MicroG-Bench report"


def _subtitle(runs: Sequence[RunFolder]) -> str:
    kinds: dict[str, int] = {}
    for run in runs:
        kinds[run.command] = kinds.get(run.command, 0) + 1
    counted = ", ".join(f"{number} {name}" for name, number in kinds.items())
    return f"{len(runs)} run{'s' if len(runs) != 1 else ''}: {counted}"
