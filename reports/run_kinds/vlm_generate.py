"""Runs of `microg vlm generate`."""

from __future__ import annotations

from dataclasses import replace

from microg.arrow import pc
from microg.reports.run_folders import RunFolder
from microg.reports.run_kinds.kind import Cost, Headline, RunKind, remarks_on_failed_rows


def _headlines(run: RunFolder) -> list[Headline]:
    return [Headline("answers", f"{run.metrics.get('rows', 0):,}", f"{run.metrics.get('clips', 0):,} clips")]


def _cost(run: RunFolder, last: Cost | None) -> Cost | None:
    """Return what all answers of a run took; rate and, after a resume, time are known of its last invocation only."""
    table = run.table("generations")
    if not table.num_rows:
        return last
    total = {name: pc.sum(table[name]).as_py() for name in ("prompt_tokens", "completion_tokens", "cost")}
    return replace(
        last or Cost(),
        items=table.num_rows,
        unit="answers",
        seconds=last.seconds if last is not None and last.items == table.num_rows else None,
        tokens_in=total["prompt_tokens"],
        tokens_out=total["completion_tokens"],
        dollars=total["cost"],
    )


KIND = RunKind(
    command="vlm generate",
    tables=("generations",),
    headlines=_headlines,
    remarks=lambda run: remarks_on_failed_rows(run, "row", "answers failed"),
    cost=_cost,
)
