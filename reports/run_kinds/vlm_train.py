"""Runs of `microg vlm train`: a plot of each fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence

from microg.reports.html import Section, picture, section
from microg.reports.plots.tuning import tuning_curves
from microg.reports.run_folders import RunFolder
from microg.reports.run_kinds.kind import Headline, ReportSection, RunKind, SectionInputs
from microg.reports.run_kinds.trainings import cost_from, failed_clips, remarks


def _headlines(run: RunFolder) -> list[Headline]:
    best = run.metrics.get("best") or {}
    value = best.get("value")
    score = [] if value is None else [Headline(f"best val {best['select']}", f"{value:.3f}", f"epoch {best['epoch']}")]
    return [*score, Headline("method", str(run.metrics.get("method", "")))]


def _curves(runs: Sequence[RunFolder], _: SectionInputs) -> Section | None:
    figures = []
    for run in runs:
        plot = tuning_curves(run.table("vlm_train").to_pandas(), run.name)
        figures += [(run.name, *picture(plot))] if plot is not None else []
    return section("tuning", "Tuning of language models", "curves", figures=figures, tables=[]) if figures else None


KIND = RunKind(
    command="vlm train",
    tables=("vlm_train",),
    headlines=_headlines,
    remarks=remarks,
    failed_rows=failed_clips,
    cost=cost_from("vlm_train"),
    sections=(ReportSection(name="tuning", make=_curves, tables=("vlm_train",), unfinished=True),),
)
