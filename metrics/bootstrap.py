"""Bootstrap over clips or source videos: confidence intervals, and how likely one model is worse than another.

Units are drawn with replacement and stand in as weights of their rows: nothing is matched again, and a weight of two is
exactly what a clip copied under a new name would give (ties are grouped). Rare classes drop out of resamples, which
lifts the mean over classes; intervals are therefore shifted by the resamples' mean less the estimate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from microg.errors import MetricError
from microg.metrics.har.multilabel import precision_recall_f1
from microg.metrics.har.protocols import Evaluation

Unit = Literal["clip", "source"]
METRICS = ("map", "f1", "precision", "recall", "auroc", "f1_micro")
_CELLS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Distribution:
    """Resampled values of each metric (resamples,) float64, and what they were drawn from.

    `drawn_from` is a hash of the units, their number, the seed and the number of resamples: distributions are paired
    when it is the same.
    """

    unit: Unit
    units: int
    seed: int
    drawn_from: str
    values: dict[str, np.ndarray]


@dataclass(frozen=True)
class Interval:
    """A 95% percentile interval shifted for bootstrap bias, the plain one, and the resamples' mean and deviation."""

    low: float
    high: float
    plain_low: float
    plain_high: float
    mean: float
    deviation: float


@dataclass(frozen=True)
class Comparison:
    """A against B on the same resamples: the difference A - B, its shifted 95% interval, and P(A worse than B).

    p_worse is the share of resamples in which A is below B (ties half); p_worse_shifted that after the interval's
    shift, which differs where rare classes drop out of resamples to the advantage of one of the two.
    """

    difference: float
    low: float
    high: float
    p_worse: float
    p_worse_shifted: float


def units_of(evaluation: Evaluation, unit: Unit) -> tuple[list[str], np.ndarray]:
    """Return the sorted names of the units that have truth, and the unit (k,) of each key frame.

    A key frame of a unit without truth has the number one past the last: it is in every resample once.
    """
    problem = evaluation.problem
    names = list(problem.clips) if unit == "clip" else problem.sources()
    named = np.array(names)[problem.key_clip]
    true_names = sorted(set(named[np.unique(problem.truth.key)].tolist()))
    place = {name: number for number, name in enumerate(true_names)}
    return true_names, np.array([place.get(name, len(true_names)) for name in named.tolist()], dtype=np.int64)


def resample_weights(units: int, resamples: int, seed: int, at_once: int) -> Iterator[np.ndarray]:
    """Yield chunks (at most `at_once`, units + 1) of draw counts as float64; the last column, of strays, is 1.

    Resample i depends on `seed` and i alone, so that chunks of any size give the same draws.
    """
    for start in range(0, resamples, at_once):
        stop = min(start + at_once, resamples)
        chunk = np.ones((stop - start, units + 1))
        for row, number in enumerate(range(start, stop)):
            draws = np.random.default_rng((seed, number)).integers(0, units, units)
            chunk[row, :units] = np.bincount(draws, minlength=units)
        yield chunk


def bootstrap(
    evaluation: Evaluation, threshold: float, *, unit: Unit, resamples: int = 1000, seed: int = 0
) -> Distribution:
    """Resample an evaluation; returns each metric's values (resamples,).

    Averages are macro over classes with truth in the resample (for a protocol with `all_classes`: over all), `f1_micro`
    pools all cells. Raises `MetricError` when there are fewer than two units.
    """
    names, unit_of_key = units_of(evaluation, unit)
    if len(names) < 2:
        raise MetricError(f"there is only {len(names)} {unit} with truth: nothing to resample", "use --resamples 0")
    ranks = _Ranks.of(evaluation, unit_of_key, threshold, len(names) + 1)
    at_once = max(1, _CELLS_AT_ONCE // max(evaluation.cells.scores.shape[1], len(names), 1))
    parts = [ranks.weighted(chunk) for chunk in resample_weights(len(names), resamples, seed, at_once)]
    values = {name: np.concatenate([part[name] for part in parts]) for name in METRICS}
    text = "\n".join([unit, str(seed), str(resamples), *names])
    return Distribution(unit, len(names), seed, hashlib.sha256(text.encode()).hexdigest()[:16], values)


def interval(values: np.ndarray, estimate: float) -> Interval:
    """Return the 95% interval of resampled `values` (resamples,) around `estimate`.

    >>> found = interval(np.array([1.0, 2.0, 3.0]), 1.5)
    >>> found.plain_low, found.low, found.mean
    (1.05, 0.55, 2.0)
    """
    low, high = (float(value) for value in np.quantile(values, (0.025, 0.975)))
    mean = float(values.mean())
    bias = mean - estimate
    deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return Interval(low - bias, high - bias, low, high, mean, deviation)


def compare(first: Distribution, second: Distribution, estimates: tuple[float, float], metric: str) -> Comparison:
    """Compare two models on the same resamples; `estimates` are their scores on the test set itself.

    Raises `MetricError` when the resamples are not the same ones.
    """
    if first.drawn_from != second.drawn_from:
        raise MetricError(
            f"the {first.unit} resamples are of different test sets, seeds or numbers: they cannot be paired",
            "score both on the same truth with the same --seed and --resamples",
        )
    a, b = first.values[metric], second.values[metric]
    estimate = estimates[0] - estimates[1]
    found = interval(a - b, estimate)
    shifted = (a - b) - (found.mean - estimate)
    return Comparison(estimate, found.low, found.high, _share_below_zero(a - b), _share_below_zero(shifted))


def _share_below_zero(values: np.ndarray) -> float:
    return float((values < 0).mean() + 0.5 * (values == 0).mean())


@dataclass(frozen=True)
class _ClassRanks:
    """One class, detections by rising score: unit (n,), whether a hit (n,), first and last place of equal scores."""

    unit: np.ndarray
    mark: np.ndarray
    first: np.ndarray
    last: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, marks: np.ndarray, unit: np.ndarray) -> _ClassRanks:
        order = np.argsort(scores, kind="stable")
        ordered = scores[order]
        return cls(
            unit[order],
            np.flatnonzero(marks[order]),
            np.searchsorted(ordered, ordered[marks[order]], "left"),
            np.searchsorted(ordered, ordered[marks[order]], "right") - 1,
        )


@dataclass(frozen=True)
class _Ranks:
    """What stays the same in all resamples."""

    detections: Sequence[_ClassRanks]
    cells: Sequence[_ClassRanks]
    label_counts: np.ndarray  # (units + 1, classes) truth labels
    confusion: np.ndarray  # (3, units + 1, classes) hits, wrong, missed
    all_classes: bool

    @classmethod
    def of(cls, evaluation: Evaluation, unit_of_key: np.ndarray, threshold: float, units: int) -> _Ranks:
        boxes, cells = evaluation.boxes, evaluation.cells
        box_unit, cell_unit = unit_of_key[boxes.key], unit_of_key[cells.key]
        classes = len(evaluation.problem.space)
        detections = []
        for c in range(classes):
            present = boxes.rows[c] >= 0
            detections.append(_ClassRanks.of(boxes.scores[c][present], evaluation.hits[c][present], box_unit[present]))
        said = cells.scores >= threshold
        parts = (said & cells.truth, said & ~cells.truth, ~said & cells.truth)
        labels = np.zeros((units, classes))
        np.add.at(labels, (unit_of_key[evaluation.label_key], evaluation.label), 1)
        return cls(
            detections,
            [_ClassRanks.of(cells.scores[c], cells.truth[c], cell_unit) for c in range(classes)],
            labels,
            np.stack([_per_unit(part, cell_unit, units) for part in parts]),
            evaluation.protocol.all_classes,
        )

    def weighted(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Return each metric (r,) for weights (r, units + 1). All sums are of integers, hence exact in any order."""
        labels = weights @ self.label_counts
        counts = [weights @ part for part in self.confusion]
        precision, recall, f1 = precision_recall_f1(*counts)
        known = labels > 0
        judged = np.ones_like(known) if self.all_classes else (counts[0] + counts[2]) > 0
        ap = np.stack([_weighted_ap(part, weights, labels[:, c]) for c, part in enumerate(self.detections)], axis=1)
        area = np.stack([_weighted_auroc(part, weights) for part in self.cells], axis=1)
        return {
            "map": _mean(ap, known),
            "auroc": _mean(area, ~np.isnan(area)),
            "precision": _mean(precision, judged),
            "recall": _mean(recall, judged),
            "f1": _mean(f1, judged),
            "f1_micro": precision_recall_f1(*(part.sum(axis=1) for part in counts))[2],
        }


def _per_unit(cells: np.ndarray, unit: np.ndarray, units: int) -> np.ndarray:
    label, column = np.nonzero(cells)
    counts = np.zeros((units, len(cells)))
    np.add.at(counts, (unit[column], label), 1)
    return counts


def _mean(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    count = chosen.sum(axis=1)
    total = np.where(chosen, np.nan_to_num(values), 0).sum(axis=1)
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


def _weighted_ap(ranks: _ClassRanks, weights: np.ndarray, truth: np.ndarray) -> np.ndarray:
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


def _weighted_auroc(ranks: _ClassRanks, weights: np.ndarray) -> np.ndarray:
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
