"""Runs of `microg curate`."""

from __future__ import annotations

from microg.reports.run_folders import RunFolder
from microg.reports.run_kinds.kind import Headline, RunKind


def _headlines(run: RunFolder) -> list[Headline]:
    counts = run.metrics.get("counts") or {}
    return [
        Headline(f"clips {name}", f"{counts[key]:,}")
        for key, name in (("ok", "kept"), ("rejected", "rejected"))
        if isinstance(counts.get(key), int)
    ]


KIND = RunKind(command="curate", headlines=_headlines)
