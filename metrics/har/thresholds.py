"""F1 of a class against the threshold on its scores, the threshold at which it is highest, and F1 at given thresholds.

A threshold says yes to scores that equal it, so that only distinct scores have to be tried. Thresholds are chosen on
one set (val) and applied to another (test): on the set they were chosen on, F1 is too good by construction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from microg.actions.rows import ScoreKind
from microg.metrics.bootstrap import Distribution, Interval, interval
from microg.metrics.har.multilabel import Cells, average, confusion, f1
from microg.metrics.har.resampling import bootstrap
from microg.metrics.har.scores import ProtocolScores


@dataclass(frozen=True, kw_only=True)
class F1Curve:
    """F1 (t,) of one class at each distinct score (t,) as the threshold, by falling score.

    `positive` (t,) marks the scores of true cells: where F1 is highest is always one of them.
    """

    threshold: np.ndarray
    f1: np.ndarray
    positive: np.ndarray


def f1_curve(scores: np.ndarray, truth: np.ndarray) -> F1Curve:
    """Return the curve of one class's cells, scores (n,) and truth (n,) bool; a score of -inf is none.

    >>> curve = f1_curve(np.array([3.0, 2.0, 2.0, 1.0]), np.array([True, True, False, True]))
    >>> curve.threshold.tolist(), curve.f1.round(3).tolist()
    ([3.0, 2.0, 1.0], [0.5, 0.667, 0.857])
    """
    order = np.argsort(-scores, kind="stable")
    order = order[np.isfinite(scores[order])]
    ordered, marks = scores[order], truth[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)) if len(ordered) else np.zeros(0, np.int64)
    hits = np.cumsum(marks)[ends]
    new = np.diff(hits, prepend=0) > 0
    return F1Curve(
        threshold=ordered[ends], f1=f1(hits, ends + 1 - hits, int(truth.sum()) - hits), positive=new[: len(ends)]
    )


@dataclass(frozen=True, kw_only=True)
class ClassThresholds:
    """Of each class (classes,): the best threshold, F1 there and at the protocol's.

    A class that nothing can be chosen for (no true cell has a score) keeps the protocol's threshold.
    """

    best: np.ndarray
    f1_best: np.ndarray
    f1: np.ndarray


def best_thresholds(cells: Cells, default: float) -> ClassThresholds:
    """Choose each class's threshold; of equally good ones the highest."""
    count = len(cells.scores)
    before = f1(*confusion(cells.scores, cells.truth, default))
    best, highest = np.full(count, float(default)), before.copy()
    for c in range(count):
        curve = f1_curve(cells.scores[c], cells.truth[c])
        if curve.positive.any():
            place = int(np.argmax(curve.f1))
            best[c], highest[c] = curve.threshold[place], curve.f1[place]
    return ClassThresholds(best=best, f1_best=highest, f1=before)


@dataclass(frozen=True, kw_only=True)
class Applied:
    """F1 at thresholds that were chosen elsewhere.

    Attributes:
        thresholds: (classes,); the protocol's own where none was chosen.
        f1: (classes,).
        macro: Over the classes that the protocol judges.
        micro: Of all cells as one class.
        gain: The interval of `macro` less that at the protocol's threshold, over clips, where it was asked for.
    """

    thresholds: np.ndarray
    f1: np.ndarray
    macro: float
    micro: float
    gain: Interval | None


def apply_thresholds(
    result: ProtocolScores, chosen: Mapping[int, float], kind: ScoreKind, before: Distribution | None = None
) -> Applied:
    """Score the cells of a result at `chosen` thresholds by action id.

    `before` are the result's own resamples over clips; the same ones are scored again for the interval of the gain.
    """
    evaluation = result.evaluation
    default = result.protocol.threshold(kind)
    thresholds = np.array([chosen.get(action_id, default) for action_id in evaluation.arrays.space.ids])
    counts = confusion(evaluation.cells.scores, evaluation.cells.truth, thresholds[:, None])
    values = f1(*counts)
    macro, micro = macro_f1(result, values), float(f1(*(part.sum() for part in counts)))
    gain = None
    if before is not None:
        count = len(before.values["f1"])
        after = bootstrap(evaluation, thresholds[:, None], unit=before.unit, resamples=count, seed=before.seed)
        gain = interval(after.values["f1"] - before.values["f1"], macro - result.overall.values["f1"]["macro"])
    return Applied(thresholds=thresholds, f1=values, macro=macro, micro=micro, gain=gain)


def macro_f1(result: ProtocolScores, values: np.ndarray) -> float:
    """Return the mean of F1 (classes,) over the classes that the protocol judges."""
    judged = np.ones(len(values), dtype=bool) if result.protocol.all_classes else result.classes.cells > 0
    return average(values, judged)
