"""Runs of `microg har transfer`, of which Table 3 is made."""

from __future__ import annotations

from microg.reports.run_folders import RunFolder
from microg.reports.run_kinds.kind import Headline, Remark, RunKind, remarks_on_failed_rows
from microg.reports.tables.result_table import percent
from microg.reports.tables.transfer_table import transfer_table


def _headlines(run: RunFolder) -> list[Headline]:
    drop = ((run.metrics.get("drop") or {}).get("matched") or {}).get("corrected", {}).get("map", {})
    value, low, high = (percent(drop.get(name)) for name in ("value", "low", "high"))
    if value is None:
        return []
    detail = f"{low:.2f} to {high:.2f}" if low is not None and high is not None else ""
    return [Headline("mAP points lost to weightlessness, matched classes", f"{value:.2f}", detail)]


def _remarks(run: RunFolder) -> list[Remark]:
    return remarks_on_failed_rows(run, "sample_id", "samples could not be predicted: they count as misses")


KIND = RunKind(
    command="har transfer",
    tables=("har_transfer",),
    headlines=_headlines,
    remarks=_remarks,
    paper_tables=lambda runs: [transfer_table(runs)],
)
