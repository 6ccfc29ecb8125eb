"""Runs of `microg har train`: a plot of each training."""

from __future__ import annotations

from collections.abc import Sequence

from microg.errors import MicrogError
from microg.metrics.published import har_row
from microg.reports.html import Section, picture, section
from microg.reports.plots.training import training_curves
from microg.reports.run_folders import RunFolder
from microg.reports.run_kinds.kind import Headline, ReportSection, RunKind, SectionInputs
from microg.reports.run_kinds.trainings import cost_from, failed_clips, remarks
from microg.reports.tables.result_table import percent, rounded


def _headlines(run: RunFolder) -> list[Headline]:
    best = run.metrics.get("best") or {}
    value = percent(best.get("map"))
    score = [] if value is None else [Headline("best val mAP %", rounded(value, 2), f"epoch {best.get('epoch')}")]
    return [*score, Headline("epochs", str(run.metrics.get("epochs", "")))]


def _curves(runs: Sequence[RunFolder], _: SectionInputs) -> Section | None:
    figures = []
    for run in runs:
        plot = training_curves(run.table("har_train").to_pandas(), run.name, _published_epochs(run))
        figures += [(run.name, *picture(plot))] if plot is not None else []
    return section("training", "Training", "curves", figures=figures, tables=[]) if figures else None


def _published_epochs(run: RunFolder) -> dict[int, dict[str, float]]:
    """Return the published validation scores of the row that a training run is compared with."""
    if run.row is None:
        return {}
    found = {}
    for epoch in range(1, 201):
        try:
            found[epoch] = dict(har_row(f"{run.row.partition('/')[0]}/val/{epoch}").scores)
        except MicrogError:
            continue
    return found


KIND = RunKind(
    command="har train",
    tables=("har_train",),
    headlines=_headlines,
    remarks=remarks,
    failed_rows=failed_clips,
    cost=cost_from("har_train"),
    sections=(ReportSection(name="training", make=_curves, tables=("har_train",), unfinished=True),),
)
