"""Runs of `microg vlm train`: a plot of each fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence

from microg.reports.html import Section, picture, section
from microg.reports.plots.tuning import tuning_curves
from microg.reports.run_folders import RunFolder
from microg.reports.run_kinds.kind import Cost, Headline, Remark, ReportSection, RunKind, SectionInputs


def _headlines(run: RunFolder) -> list[Headline]:
    best = run.metrics.get("best") or {}
    value = best.get("value")
    score = [] if value is None else [Headline(f"best val {best['select']}", f"{value:.3f}", f"epoch {best['epoch']}")]
    return [*score, Headline("method", str(run.metrics.get("method", "")))]


def _remarks(run: RunFolder) -> list[Remark]:
    failures = run.metrics.get("failures") or []
    if not failures:
        return []
    return [Remark(run.name, "failed-rows", f"{len(failures)} clips could not be used", tuple(map(str, failures[:3])))]


def _cost(run: RunFolder, last: Cost | None) -> Cost:
    history = run.metrics.get("history") or run.table("vlm_train").to_pylist()
    clips = sum(epoch.get("clips") or 0 for epoch in history)
    trained = sum(epoch.get("train_s") or 0.0 for epoch in history)
    seconds = trained + sum(epoch.get("val_s") or 0.0 for epoch in history)
    rate = clips / trained if trained else None
    bottleneck = None if last is None else last.bottleneck
    return Cost(items=clips, unit="clips", seconds=seconds, rate=rate, bottleneck=bottleneck)


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
    remarks=_remarks,
    failed_rows=lambda run: len(run.metrics.get("failures") or []),
    cost=_cost,
    sections=(ReportSection(name="tuning", make=_curves, tables=("vlm_train",), unfinished=True),),
)
