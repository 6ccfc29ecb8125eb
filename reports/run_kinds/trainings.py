"""What reports say of every training: what failed, and what it took."""

from __future__ import annotations

from collections.abc import Callable

from microg.reports.run_folders import RunFolder
from microg.reports.run_kinds.kind import Cost, Remark


def failed_clips(run: RunFolder) -> int:
    """Return how many clips could not be used."""
    return len(run.metrics.get("failures") or [])


def remarks(run: RunFolder) -> list[Remark]:
    """Return a remark on the clips that could not be used, if any."""
    if not (count := failed_clips(run)):
        return []
    examples = tuple(map(str, run.metrics["failures"][:3]))
    return [Remark(run.name, "failed-rows", f"{count} clips could not be used", examples)]


def cost_from(table: str) -> Callable[[RunFolder, Cost | None], Cost]:
    """Return what computes the cost of a training from its history, or its table of epochs where it is unfinished."""

    def cost(run: RunFolder, last: Cost | None) -> Cost:
        history = run.metrics.get("history") or run.table(table).to_pylist()
        clips = sum(epoch.get("clips") or 0 for epoch in history)
        trained = sum(epoch.get("train_s") or 0.0 for epoch in history)
        return Cost(
            items=clips,
            unit="clips",
            seconds=trained + sum(epoch.get("val_s") or 0.0 for epoch in history),
            rate=clips / trained if trained else None,
            bottleneck=None if last is None else last.bottleneck,
        )

    return cost
