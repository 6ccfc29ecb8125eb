"""Bootstrap of the metrics of action recognition: an evaluation's units are weighted, nothing is matched again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from microg.errors import MetricError
from microg.metrics.bootstrap import Distribution, Unit, digest, resample_weights
from microg.metrics.har.protocols import Evaluation
from microg.metrics.har.ranking import Ranking, Ties
from microg.metrics.har.registry import METRICS, resampled
from microg.registry import load_object

_CELLS_AT_ONCE = 2_000_000


def units_of(evaluation: Evaluation, unit: Unit) -> tuple[list[str], np.ndarray]:
    """Return the sorted names of the units that have truth, and the unit (k,) of each key frame.

    A key frame of a unit without truth has the number one past the last: it is in every resample once.
    """
    arrays = evaluation.arrays
    names = list(arrays.clips) if unit == "clip" else arrays.sources()
    named = np.array(names)[arrays.key_clip]
    true_names = sorted(set(named[np.unique(arrays.truth.key)].tolist()))
    place = {name: number for number, name in enumerate(true_names)}
    return true_names, np.array([place.get(name, len(true_names)) for name in named.tolist()], dtype=np.int64)


def bootstrap(
    evaluation: Evaluation, threshold: float | np.ndarray, *, unit: Unit, resamples: int = 1000, seed: int = 0
) -> Distribution:
    """Resample an evaluation; returns each metric's values (resamples,).

    Averages are macro over classes with truth in the resample (for metrics of counts and a protocol with
    `all_classes`: over all); `NAME_micro` pools all cells. The threshold is one, or (classes, 1). Raises `MetricError`
    when there are fewer than two units.
    """
    names, unit_of_key = units_of(evaluation, unit)
    if len(names) < 2:
        raise MetricError(f"there is only {len(names)} {unit} with truth: nothing to resample", "use --resamples 0")
    ranks = _Ranks.of(evaluation, unit_of_key, threshold, len(names) + 1)
    at_once = max(1, _CELLS_AT_ONCE // max(evaluation.cells.scores.shape[1], len(names), 1))
    parts = [ranks.resample(chunk) for chunk in resample_weights(len(names), resamples, seed, at_once)]
    values = {name: np.concatenate([part[name] for part in parts]) for name in resampled()}
    return Distribution(unit, len(names), seed, digest(unit, seed, resamples, names), values)


@dataclass(frozen=True, kw_only=True)
class ClassRanks:
    """One class, detections or cells by rising score.

    Attributes:
        unit: Unit of each (n,).
        mark: Places of the positives (p,).
        first, last: First and last place of the scores equal to each positive's (p,).
        scores: (n,), rising.
    """

    unit: np.ndarray
    mark: np.ndarray
    first: np.ndarray
    last: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, marks: np.ndarray, unit: np.ndarray) -> ClassRanks:
        """Order one class's scores."""
        order = np.argsort(scores, kind="stable")
        ordered = scores[order]
        return cls(
            unit=unit[order],
            mark=np.flatnonzero(marks[order]),
            first=np.searchsorted(ordered, ordered[marks[order]], "left"),
            last=np.searchsorted(ordered, ordered[marks[order]], "right") - 1,
            scores=ordered,
        )


# (ranks, weights (r, units + 1), labels drawn (r,)) -> values (r,), nan where undefined
Weighted = Callable[[ClassRanks, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class _Ranks:
    """What stays the same in all resamples."""

    classes: Mapping[str, Sequence[ClassRanks]]  # of detections and of cells
    weighted: Mapping[str, Weighted]  # by metric
    label_counts: np.ndarray  # (units + 1, classes) truth labels
    confusion: np.ndarray  # (3, units + 1, classes) hits, wrong, missed
    all_classes: bool

    @classmethod
    def of(cls, evaluation: Evaluation, unit_of_key: np.ndarray, threshold: float | np.ndarray, units: int) -> _Ranks:
        boxes, cells = evaluation.boxes, evaluation.cells
        box_unit, cell_unit = unit_of_key[boxes.key], unit_of_key[cells.key]
        classes = len(evaluation.arrays.space)
        detections = []
        for c in range(classes):
            present = boxes.rows[c] >= 0
            detections.append(ClassRanks.of(boxes.scores[c][present], evaluation.hits[c][present], box_unit[present]))
        said = cells.scores >= threshold
        parts = (said & cells.truth, said & ~cells.truth, ~said & cells.truth)
        labels = np.zeros((units, classes))
        np.add.at(labels, (unit_of_key[evaluation.label_key], evaluation.label), 1)
        return cls(
            classes={
                "detections": detections,
                "cells": [ClassRanks.of(cells.scores[c], cells.truth[c], cell_unit) for c in range(classes)],
            },
            weighted={
                name: load_object(metric.weighted) if metric.weighted else _one_by_one(metric.load(), evaluation)
                for name, metric in METRICS.items()
                if metric.of != "counts"
            },
            label_counts=labels,
            confusion=np.stack([_per_unit(part, cell_unit, units) for part in parts]),
            all_classes=evaluation.protocol.all_classes,
        )

    def resample(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Return each metric (r,) for weights (r, units + 1). All sums are of integers, hence exact in any order."""
        labels = weights @ self.label_counts
        counts = [weights @ part for part in self.confusion]
        positives = counts[0] + counts[2]
        judged = np.ones_like(positives, dtype=bool) if self.all_classes else positives > 0
        result = {}
        for key, (metric, average) in resampled().items():
            if average == "micro":
                result[key] = metric.load()(*(part.sum(axis=1) for part in counts))
            elif metric.of == "counts":
                result[key] = _mean(metric.load()(*counts), judged)
            else:
                drawn = labels if metric.of == "detections" else positives
                columns = [
                    self.weighted[metric.name](ranks, weights, drawn[:, c])
                    for c, ranks in enumerate(self.classes[metric.of])
                ]
                values = np.stack(columns, axis=1)
                result[key] = _mean(values, (drawn > 0) & ~np.isnan(values))
        return result


def _one_by_one(function: Callable[[Ranking, Ties], float], evaluation: Evaluation) -> Weighted:
    """Return a function that scores copies of what was drawn, one resample after the other."""

    def weighted(ranks: ClassRanks, weights: np.ndarray, truth: np.ndarray) -> np.ndarray:
        marks = np.zeros(len(ranks.unit), dtype=bool)
        marks[ranks.mark] = True
        values = np.full(len(weights), np.nan)
        for number in np.flatnonzero(truth).tolist():
            copies = np.repeat(np.arange(len(marks)), weights[number, ranks.unit].astype(np.int64))
            ranking = Ranking.of(ranks.scores[copies], marks[copies], int(truth[number]))
            values[number] = function(ranking, evaluation.protocol.ties)
        return values

    return weighted


def _per_unit(cells: np.ndarray, unit: np.ndarray, units: int) -> np.ndarray:
    label, column = np.nonzero(cells)
    counts = np.zeros((units, len(cells)))
    np.add.at(counts, (unit[column], label), 1)
    return counts


def _mean(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    count = chosen.sum(axis=1)
    total = np.where(chosen, np.nan_to_num(values), 0).sum(axis=1)
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


def weighted_ap(ranks: ClassRanks, weights: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the tie-grouped AP (r,); 0 without truth (not counted then)."""
    if not len(ranks.mark):
        return np.zeros(len(weights))
    drawn = weights[:, ranks.unit]
    below = _before(drawn, ranks.first)
    through = drawn.sum(axis=1, keepdims=True) - below
    hit = drawn[:, ranks.mark]
    # hits rise in score: the first hit of a tie group is the place of its score among hit scores
    group = np.searchsorted(ranks.first, ranks.first, "left")
    hits_through = hit.sum(axis=1, keepdims=True) - _before(hit, group)
    precision = np.divide(hits_through, through, out=np.zeros_like(through), where=through > 0)
    best = np.maximum.accumulate(precision, axis=1)
    return np.divide((hit * best).sum(axis=1), truth, out=np.zeros(len(truth)), where=truth > 0)


def weighted_auroc(ranks: ClassRanks, weights: np.ndarray, _: np.ndarray) -> np.ndarray:
    """Return the AUROC (r,), ties counted half; nan unless both kinds were drawn."""
    if not len(ranks.mark) or len(ranks.mark) == len(ranks.unit):
        return np.full(len(weights), np.nan)
    drawn = weights[:, ranks.unit]
    positive = drawn[:, ranks.mark]
    drawn[:, ranks.mark] = 0  # what is left are the negatives
    below, through = _before(drawn, ranks.first), _before(drawn, ranks.last + 1)
    pairs = positive.sum(axis=1) * drawn.sum(axis=1)
    wins = (positive * (below + through)).sum(axis=1) / 2
    return np.divide(wins, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def _before(weights: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return the sum of weights (r, p) before each place (p,), 0 to n."""
    total = np.zeros((len(weights), weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=total[:, 1:])
    return total[:, place]
