"""Thresholds of single classes: chosen on what one run scored (val), applied to what another scores (test)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from microg import storage
from microg.data import schema
from microg.errors import MetricError
from microg.jobs.commands.har_score.settings import HarScoreRun
from microg.metrics.har.protocols import CORRECTED
from microg.metrics.har.scoring import Report
from microg.metrics.har.thresholds import Applied, ClassThresholds, apply_thresholds, best_thresholds, macro_f1

_FIX = "score val with the same model and settings, then give its run folder to --thresholds-from"


@dataclass(frozen=True)
class ChosenThresholds:
    """What another run chose: a hash of the values, and the thresholds by protocol and action id.

    Classes with fewer than `least_labels` labels there are left out: what is best for a few labels is chance.
    """

    run: str
    least_labels: int
    digest: str
    truth_digest: str
    by_protocol: Mapping[str, Mapping[int, float]]


def thresholds_of_run(run: str, *, label_space: str, score_kind: str, least_labels: int) -> ChosenThresholds:
    """Return the best thresholds that a run of `har score` found on what it scored.

    Raises `MetricError` when it is none, or scored other classes or another kind of scores.
    """
    manifest_path, table_path = (
        storage.join(run, *parts) for parts in (("run.json",), ("tables", "har_thresholds.parquet"))
    )
    manifest = storage.read_json(manifest_path) if storage.exists(manifest_path) else {}
    config = manifest.get("config") if isinstance(manifest, dict) else None
    if not isinstance(config, dict) or manifest.get("command") != "har score" or not storage.exists(table_path):
        raise MetricError(f"{run} is no run of 'microg har score' with a table har_thresholds", _FIX)
    for key, own in (("label_space", label_space), ("score_kind", score_kind)):
        if config.get(key) != own:
            raise MetricError(f"the thresholds of {run} are for {key} {config.get(key)}, not {own}", _FIX)
    rows = schema.conform("har_thresholds", storage.read_parquet(table_path)).to_pylist()
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        if row["best"] is None or not math.isfinite(row["best"]):
            raise MetricError(f"{table_path}: class {row['action_id']} has threshold {row['best']}", _FIX)
        own = found.setdefault(row["protocol"], {})
        if (row["support"] or 0) >= least_labels:
            own[row["action_id"]] = row["best"]
    digest = hashlib.sha256(repr(sorted((name, sorted(part.items())) for name, part in found.items())).encode())
    return ChosenThresholds(run, least_labels, digest.hexdigest()[:16], str(config.get("truth_digest")), found)


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What was found and applied, by protocol."""

    found: Mapping[str, ClassThresholds]
    applied: Mapping[str, Applied]
    chosen: ChosenThresholds | None

    @classmethod
    def of(cls, report: Report, config: HarScoreRun, chosen: ChosenThresholds | None) -> Thresholds:
        """Choose thresholds on what was scored, and apply those `chosen` elsewhere."""
        kind = "probability" if config.score_kind == "probability" else "logit"
        clips = next((drawn for drawn in report.distributions if drawn.unit == "clip"), None)
        found, applied = {}, {}
        for name, result in report.results.items():
            found[name] = best_thresholds(result.evaluation.cells, result.protocol.threshold(kind))
            if chosen is not None and name in chosen.by_protocol:
                drawn = clips if name == CORRECTED.name else None
                applied[name] = apply_thresholds(result, chosen.by_protocol[name], kind, drawn)
        return cls(found=found, applied=applied, chosen=chosen)

    def document(self, report: Report) -> dict[str, Any]:
        """Return macro F1 by protocol: at its own threshold, at the best of each class (too good), as chosen."""
        protocols: dict[str, Any] = {}
        for name, result in report.results.items():
            own: dict[str, Any] = {"f1": macro_f1(result, self.found[name].f1)}
            own |= {"f1_best": macro_f1(result, self.found[name].f1_best)}
            own |= {"f1_micro": result.overall.values["f1"]["micro"]}
            if name in self.applied:
                applied = self.applied[name]
                ends = (None, None) if applied.gain is None else (applied.gain.low, applied.gain.high)
                own |= {"f1_chosen": applied.macro, "gain_low": ends[0], "gain_high": ends[1]}
                own |= {
                    "f1_chosen_micro": applied.micro,
                    "chosen": len(self.chosen.by_protocol[name]) if self.chosen else 0,
                }
            protocols[name] = {key: None if value is None or math.isnan(value) else value for key, value in own.items()}
        chosen = {} if self.chosen is None else {"least_labels": self.chosen.least_labels}
        return {"chosen_by": None if self.chosen is None else self.chosen.run, **chosen, "protocols": protocols}
