"""Coefficients of agreement, each as its value and as a function of sums over clips, by which clips are resampled.

Values come from well-known packages: Krippendorff's alpha of nominal values from `krippendorff`, Cohen's and Fleiss'
kappa from `statsmodels`. Resamples go through the same formulas on sums over clips, thousands at once; tests hold both
equal. Alpha of sets of labels goes that way too: the package keeps a matrix of all pairs of sets for each unit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from microg.metrics.agreement.ratings import MISSING, Ratings

# Sums (r, k) to values (r,), nan where they are undefined.
OfSums = Callable[[np.ndarray], np.ndarray]
ONE_VALUE = "all annotators always said the same: there is no chance agreement to compare with"
NO_UNITS = "no unit was judged by two annotators"


@dataclass(frozen=True)
class Measure:
    """A number of units that annotators judged.

    Attributes:
        value: The number, None where it is undefined.
        reason: Why it is undefined, or empty.
        parts: What it is made of, summed for each clip that has such units (clips, k).
        clips: Which clips those are (clips,).
        of: The number as a function of sums.
        units: How many units it is of.
        raters: How many annotators judged them.
    """

    value: float | None
    reason: str
    parts: np.ndarray
    clips: np.ndarray
    of: OfSums
    units: int
    raters: int


def nominal(ratings: Ratings, clips: np.ndarray) -> dict[str, Measure]:
    """Return observed agreement, Fleiss' kappa and Krippendorff's alpha of values that are the same or not.

    Args:
        ratings: What annotators said.
        clips: The clip of each unit (units,), counted from 0.
    """
    counts = ratings.counts()
    raters = counts.sum(axis=1)
    usable = raters > 1
    counts, raters, clips = counts[usable], raters[usable], clips[usable]
    about = len(counts), int((ratings.codes[:, usable] != MISSING).any(axis=1).sum())
    same = (counts * (counts - 1)).sum(axis=1) / np.maximum(raters * (raters - 1), 1)
    observed = np.stack([same, np.ones(len(same))], axis=1)
    return {
        "observed": _measure(_mean_of(observed), observed, clips, _ratio, about),
        "fleiss_kappa": _fleiss(counts, raters, same, clips, about),
        "alpha": _nominal_alpha(counts, raters, clips, about),
    }


def positive(ratings: Ratings, clips: np.ndarray) -> Measure:
    """Return how often another annotator agrees with one who says yes (specific agreement), of values False and True.

    Rare labels agree mostly by being absent; this counts only where somebody saw them.
    """
    yes = ratings.counts()[:, ratings.values.index(True)] if True in ratings.values else np.zeros(len(ratings.units))
    raters = (ratings.codes != MISSING).sum(axis=0)
    usable = raters > 1
    yes, raters = yes[usable], raters[usable]
    parts = np.stack([yes * (yes - 1) / np.maximum(raters - 1, 1), yes], axis=1).astype(np.float64)
    about = len(yes), int((ratings.codes[:, usable] != MISSING).any(axis=1).sum())
    value, reason = _mean_of(parts)
    return _measure((value, reason and "nobody said it"), parts, clips[usable], _ratio, about)


def cohen(ratings: Ratings, clips: np.ndarray) -> Measure:
    """Return Cohen's kappa of two annotators."""
    from statsmodels.stats.inter_rater import cohens_kappa

    first, second = ratings.codes
    both = (first != MISSING) & (second != MISSING)
    size = max(len(ratings.values), 1)
    cells = np.zeros((int(both.sum()), size * size))
    cells[np.arange(len(cells)), first[both] * size + second[both]] = 1
    table = cells.sum(axis=0).reshape(size, size)
    value, reason = None, NO_UNITS
    if len(cells):
        rows, columns = table.sum(axis=1), table.sum(axis=0)
        reason = ONE_VALUE if (rows * columns).sum() == len(cells) ** 2 else ""
        kappa: Any = None if reason else cohens_kappa(table, return_results=False)
        value = None if kappa is None else float(kappa)
    return _measure((value, reason), cells, clips[both], _kappa_of(size), (len(cells), 2))


def sets(ratings: Ratings, clips: np.ndarray) -> dict[str, Measure]:
    """Return how far sets of labels agree: the share of equal ones, mean overlap (Jaccard), alpha by MASI distance."""
    overlap, distance = set_distances(ratings.values)
    return {
        "observed": paired(ratings, clips, np.eye(len(ratings.values))),
        "jaccard": paired(ratings, clips, overlap),
        "alpha_masi": alpha_by(ratings, clips, distance),
    }


def set_distances(values: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the overlap (Jaccard) and the MASI distance of each two sets (values, values).

    MASI (Passonneau 2006) is 1 - J x M: J is the overlap, M is 1 for equal sets, 2/3 where one holds the other, 1/3
    where they share something, 0 where they share nothing. Two empty sets are equal.

    >>> overlap, distance = set_distances((frozenset(), frozenset({1}), frozenset({1, 2})))
    >>> overlap[1].tolist(), distance[1].round(3).tolist()
    ([0.0, 1.0, 0.5], [1.0, 0.0, 0.667])
    """
    labels = sorted({label for value in values for label in value})
    has = np.array([[label in value for label in labels] for value in values], dtype=np.float64)
    has = has.reshape(len(values), len(labels))
    size = has.sum(axis=1)
    common = has @ has.T
    union = size[:, None] + size[None, :] - common
    overlap = np.divide(common, union, out=np.ones_like(common), where=union > 0)
    inside = (common == size[:, None]) | (common == size[None, :])
    likeness = np.where(common == union, 1.0, np.where(inside & (common > 0), 2 / 3, np.where(common > 0, 1 / 3, 0.0)))
    return overlap, 1 - overlap * likeness


def paired(ratings: Ratings, clips: np.ndarray, likeness: np.ndarray) -> Measure:
    """Return the mean likeness (values, values) of what each two annotators said of a unit, mean over units."""
    total, pairs = _pair_sums(ratings, likeness)
    usable = pairs > 0
    parts = np.stack([total[usable] / pairs[usable], np.ones(int(usable.sum()))], axis=1)
    about = len(parts), int((ratings.codes[:, usable] != MISSING).any(axis=1).sum())
    return _measure(_mean_of(parts), parts, clips[usable], _ratio, about)


def with_others(ratings: Ratings, clips: np.ndarray, annotator: str, likeness: np.ndarray) -> Measure:
    """Return the mean likeness (values, values) of what an annotator and each other one said, mean over units."""
    own = ratings.codes[ratings.annotators.index(annotator)]
    others = np.array([name != annotator for name in ratings.annotators])
    both = (ratings.codes != MISSING) & (own != MISSING) & others[:, None]
    pairs = both.sum(axis=0)
    alike = np.where(both, likeness[np.maximum(ratings.codes, 0), np.maximum(own, 0)[None, :]], 0).sum(axis=0)
    usable = pairs > 0
    parts = np.stack([alike[usable] / pairs[usable], np.ones(int(usable.sum()))], axis=1)
    about = len(parts), 1 + int(both.any(axis=1).sum())
    return _measure(_mean_of(parts), parts, clips[usable], _ratio, about)


def alpha_by(ratings: Ratings, clips: np.ndarray, distance: np.ndarray) -> Measure:
    """Return Krippendorff's alpha by a distance (values, values) of what was said."""
    raters = (ratings.codes != MISSING).sum(axis=0)
    usable = raters > 1
    far, _ = _pair_sums(ratings, distance)
    counts = ratings.counts()[usable]
    parts = np.concatenate([counts, (2 * far[usable] / (raters[usable] - 1))[:, None]], axis=1).astype(np.float64)
    of = _alpha_of(distance)
    about = len(parts), int((ratings.codes[:, usable] != MISSING).any(axis=1).sum())
    if not len(parts):
        return _measure((None, NO_UNITS), parts, clips[usable], of, about)
    value = float(of(parts.sum(axis=0, keepdims=True))[0])
    return _measure((None, ONE_VALUE) if np.isnan(value) else (value, ""), parts, clips[usable], of, about)


def share(
    right: np.ndarray,
    clips: np.ndarray,
    weight: np.ndarray | None = None,
    raters: int = 2,
    nothing: str = NO_UNITS,
) -> Measure:
    """Return a mean (units,), such as the share of units that were judged right.

    Args:
        right: What is averaged (units,).
        clips: The clip of each unit (units,).
        weight: How much each counts (units,); None for all alike.
        raters: How many annotators there are.
        nothing: Why there is no value where nothing counts.
    """
    weight = np.ones(len(right)) if weight is None else weight
    parts = np.stack([right * weight, weight], axis=1).astype(np.float64)
    value, reason = _mean_of(parts)
    return _measure((value, reason and nothing), parts, clips, _ratio, (int((weight > 0).sum()), raters))


def _measure(
    value: tuple[float | None, str], parts: np.ndarray, clips: np.ndarray, of: OfSums, about: tuple
) -> Measure:
    names, place = np.unique(clips, return_inverse=True)
    sums = np.zeros((len(names), parts.shape[1]))
    np.add.at(sums, place.reshape(-1), parts)
    return Measure(*value, sums, names, of, *about)


def _mean_of(parts: np.ndarray) -> tuple[float | None, str]:
    total, weight = parts.sum(axis=0)
    return (float(total / weight), "") if weight > 0 else (None, NO_UNITS)


def _ratio(sums: np.ndarray) -> np.ndarray:
    return np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=sums[:, 1] > 0)


def _nominal_alpha(counts: np.ndarray, raters: np.ndarray, clips: np.ndarray, about: tuple) -> Measure:
    import krippendorff

    distance = 1 - np.eye(counts.shape[1])
    far = (raters**2 - (counts**2).sum(axis=1)) / np.maximum(raters - 1, 1)
    parts = np.concatenate([counts, far[:, None]], axis=1).astype(np.float64)
    value, reason = None, NO_UNITS
    if len(counts):
        reason = ONE_VALUE if (counts.sum(axis=0) > 0).sum() < 2 else ""
        value = None if reason else float(krippendorff.alpha(value_counts=counts, level_of_measurement="nominal"))
    return _measure((value, reason), parts, clips, _alpha_of(distance), about)


def _fleiss(counts: np.ndarray, raters: np.ndarray, same: np.ndarray, clips: np.ndarray, about: tuple) -> Measure:
    from statsmodels.stats.inter_rater import fleiss_kappa

    parts = np.concatenate([counts, same[:, None], np.ones((len(counts), 1))], axis=1).astype(np.float64)
    value, reason = None, NO_UNITS
    if len(counts):
        if raters.min() != raters.max():
            reason = f"units have {raters.min()} to {raters.max()} annotators, Fleiss' kappa needs the same number"
        elif (counts.sum(axis=0) > 0).sum() < 2:
            reason = ONE_VALUE
        else:
            reason, value = "", float(fleiss_kappa(counts, method="fleiss"))
    return _measure((value, reason), parts, clips, fleiss_of, about)


def fleiss_of(sums: np.ndarray) -> np.ndarray:
    """Return Fleiss' kappa (r,) of sums (r, values + 2): of counts of each value, of units' agreement, and of units."""
    counts, same, units = sums[:, :-2], sums[:, -2], sums[:, -1]
    total = counts.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        chance = ((counts / total[:, None]) ** 2).sum(axis=1)
        return np.where(chance < 1, (same / units - chance) / (1 - chance), np.nan)


def _kappa_of(size: int) -> OfSums:
    def of(sums: np.ndarray) -> np.ndarray:
        tables = sums.reshape(len(sums), size, size)
        total = tables.sum(axis=(1, 2))
        with np.errstate(invalid="ignore", divide="ignore"):
            same = np.trace(tables, axis1=1, axis2=2) / total
            chance = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1) / total**2
            return np.where(chance < 1, (same - chance) / (1 - chance), np.nan)

    return of


def _alpha_of(distance: np.ndarray) -> OfSums:
    def of(sums: np.ndarray) -> np.ndarray:
        counts, far = sums[:, :-1], sums[:, -1]
        total = counts.sum(axis=1)
        expected = ((counts @ distance) * counts).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(expected > 0, 1 - (total - 1) * far / expected, np.nan)

    return of


def _pair_sums(ratings: Ratings, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each unit the sum of a matrix (values, values) over pairs of annotators, and how many pairs it has."""
    total, pairs = np.zeros(len(ratings.units)), np.zeros(len(ratings.units), dtype=np.int64)
    for number, first in enumerate(ratings.codes):
        for second in ratings.codes[number + 1 :]:
            both = (first != MISSING) & (second != MISSING)
            total[both] += matrix[first[both], second[both]]
            pairs += both
    return total, pairs
