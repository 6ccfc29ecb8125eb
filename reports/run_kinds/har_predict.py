"""Runs of `microg har predict`."""

from __future__ import annotations

from microg.reports.run_folders import RunFolder
from microg.reports.run_kinds.kind import Headline, Remark, RunKind, remarks_on_failed_rows


def _headlines(run: RunFolder) -> list[Headline]:
    people = f"{run.metrics.get('samples', 0):,} people"
    return [Headline("key frames", f"{run.metrics.get('key_frames', 0):,}", people)]


def _remarks(run: RunFolder) -> list[Remark]:
    found = []
    loaded = run.metrics.get("weights_loaded") or {}
    for what in ("missing", "mismatched", "filled"):
        names = loaded.get(what) or []
        if names:
            message = f"{len(names)} tensors of the model are {what} in the weights"
            found.append(Remark(run.name, f"weights-{what}", message, tuple(map(str, names[:3]))))
    return found + remarks_on_failed_rows(run, "sample_id", "samples could not be predicted")


KIND = RunKind(command="har predict", tables=("har_predictions",), headlines=_headlines, remarks=_remarks)
