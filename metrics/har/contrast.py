"""How much of what a model of AVA's actions can do is lost from one test set to another (the paper's Table 3).

Each set is scored on the classes of its own map to AVA (`mapped`), on those that all sets have and are labelled in all
(`matched`), and, where its ids are AVA's own, as the paper does: by the ids as they stand (`published`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from microg.actions.rows import Predictions, Truth
from microg.actions.transfer import onto_ava
from microg.data.label_space import AVA_80_SPACE, LabelSpace
from microg.errors import MetricError
from microg.metrics.bootstrap import Distribution, interval
from microg.metrics.har.protocols import CORRECTED, PROTOCOLS
from microg.metrics.har.scoring import Report, score

Selection = Literal["published", "mapped", "matched"]
METRICS = ("map", "auroc")


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """What a model said of a test set, and what is true.

    Attributes:
        said: Predictions of AVA's classes.
        truth: Labels of `space`.
        labels: AVA's id for each of the labels' that has one.
    """

    __test__ = False  # to pytest, which takes it for tests

    said: Predictions
    truth: Truth
    space: LabelSpace
    labels: Mapping[int, int]

    def labelled(self) -> set[int]:
        """Return AVA's ids of the classes that have a label here."""
        found = np.unique(self.truth.rows["action_id"].drop_null().to_numpy()).tolist()
        return {self.labels[action_id] for action_id in found if action_id in self.labels}


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A test set's scores on one selection of classes."""

    report: Report
    left_out: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        corrected = self.report.results[CORRECTED.name]
        return {
            "classes": len(self.report.arrays.space),
            "with_truth": corrected.overall.classes,
            "labels": corrected.overall.labels,
            "labels_left_out": self.left_out,
            "protocols": {
                name: {metric: self._cell(name, metric) for metric in METRICS} for name in self.report.results
            },
        }

    def value(self, protocol: str, metric: str) -> float:
        """Return a macro average."""
        return self.report.results[protocol].overall.values[metric]["macro"]

    def _cell(self, protocol: str, metric: str) -> dict[str, float | None]:
        limits = self.report.intervals.get((metric, "macro"), {}).get("clip") if protocol == CORRECTED.name else None
        return _cell(self.value(protocol, metric), limits)


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Scores by test set and selection.

    Attributes:
        matched: AVA's ids of the classes that all sets have, and that are labelled in all.
        unmatched: The other classes that all sets have, and the sets that have no label of them.
        sets: Scores by test set and selection.
    """

    matched: tuple[int, ...]
    unmatched: Mapping[int, tuple[str, ...]]
    sets: Mapping[str, Mapping[Selection, Scored]]

    def drop(self, first: str, second: str, selection: Selection) -> dict[str, dict[str, dict[str, float | None]]]:
        """Return by protocol and metric how much the first set's score is above the second's, and its interval.

        The sets have no clip in common, so that their resamples are independent; they are paired one apart, because
        those of one number come from the same random numbers.
        """
        one, other = self.sets[first][selection], self.sets[second][selection]
        result: dict[str, dict[str, dict[str, float | None]]] = {}
        for protocol in one.report.results:
            cells = result.setdefault(protocol, {})
            for metric in METRICS:
                difference = one.value(protocol, metric) - other.value(protocol, metric)
                limits = None
                drawn = [_over_clips(part.report) for part in (one, other)]
                if protocol == CORRECTED.name and drawn[0] is not None and drawn[1] is not None:
                    values = drawn[0].values[metric] - np.roll(drawn[1].values[metric], 1)
                    known = values[~np.isnan(values)]
                    limits = interval(known, difference) if len(known) else None
                cells[metric] = _cell(difference, limits)
        return result


def contrast(sets: Mapping[str, TestSet], *, resamples: int = 0, seed: int = 0) -> Contrast:
    """Score each set on each selection of classes, under both protocols, with intervals where `resamples` > 0.

    Raises `MetricError` when the sets have no labelled class in common.
    """
    shared = set.intersection(*(set(part.labels.values()) for part in sets.values()))
    labelled = {name: part.labelled() for name, part in sets.items()}
    without = {c: tuple(name for name, found in labelled.items() if c not in found) for c in sorted(shared)}
    matched = tuple(c for c, names in without.items() if not names)
    if not matched:
        raise MetricError("no class is labelled in all test sets: there is nothing to compare")

    def scored(said: Predictions, truth: Truth, left_out: int) -> Scored:
        protocols = tuple(PROTOCOLS.values())
        return Scored(report=score(said, truth, protocols, resamples=resamples, seed=seed), left_out=left_out)

    found: dict[str, dict[Selection, Scored]] = {}
    for name, part in sets.items():
        choices: dict[Selection, Sequence[int]] = {"mapped": sorted(set(part.labels.values())), "matched": matched}
        found[name] = {"published": scored(part.said, part.truth, 0)} if part.space.shares_ids(AVA_80_SPACE) else {}
        for selection, ids in choices.items():
            found[name][selection] = scored(*onto_ava(part.said, part.truth, part.labels, ids))
    return Contrast(matched=matched, unmatched={c: names for c, names in without.items() if names}, sets=found)


def _over_clips(report: Report) -> Distribution | None:
    return next((drawn for drawn in report.distributions if drawn.unit == "clip"), None)


def _cell(value: float, limits: Any) -> dict[str, float | None]:
    ends = (None, None) if limits is None else (limits.low, limits.high)
    return {"value": None if np.isnan(value) else float(value), "low": ends[0], "high": ends[1]}
