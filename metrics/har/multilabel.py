"""Multi-label classification of boxes: precision, recall, F1 and AUROC per class and averaged.

Scores and truth are (classes, boxes) matrices; a box that nobody predicted has score -inf: a miss, never a hit.
Averages: `macro` is the mean over chosen classes, `micro` pools all cells, `weighted` weighs classes by support.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from microg.data.label_space import LabelSpace
from microg.metrics.har.arrays import Boxes, Problem, TruthBoxes
from microg.metrics.har.boxes import assign_boxes, same_key_pairs
from microg.metrics.har.state import RowState

Lookup = Literal["key", "box"]


@dataclass(frozen=True)
class Cells:
    """One column a box: scores (classes, m) float64, -inf where nobody scored, truth (classes, m) bool, key (m,)."""

    scores: np.ndarray
    truth: np.ndarray
    key: np.ndarray


@dataclass(frozen=True)
class Auroc:
    """Area under the ROC curve with ties counted half, and its bounds when ties fall against or for the positives."""

    value: float
    low: float
    high: float


def truth_by_key(boxes: Boxes, truth: TruthBoxes, labels: np.ndarray) -> Cells:
    """Give each box every label of its key frame, as the reference does, which looks truth up by (clip, frame).

    `labels` (l,) selects truth labels. True boxes of key frames without any prediction are added as misses.
    """
    missed = np.flatnonzero(~np.isin(truth.key, boxes.key))
    scores, key = _with_missed(boxes, truth, missed)
    marks = np.zeros(scores.shape, dtype=bool)
    label, box = same_key_pairs(truth.key[truth.label_box[labels]], key)
    marks[truth.label[labels][label], box] = True
    return Cells(scores, marks, key)


def truth_by_box(boxes: Boxes, truth: TruthBoxes, labels: np.ndarray) -> Cells:
    """Give each box the labels of the true box that it is assigned to, one to one by IoU >= 0.5.

    A predicted box without a true one has no labels; a true box without a predicted one is added as a miss.
    """
    assigned = assign_boxes(boxes.key, boxes.xyxy, truth.key, truth.xyxy)
    missed = np.ones(len(truth.key), dtype=bool)
    missed[assigned[assigned >= 0]] = False
    missed_boxes = np.flatnonzero(missed)
    scores, key = _with_missed(boxes, truth, missed_boxes)
    column = np.empty(len(truth.key), np.int64)
    column[assigned[assigned >= 0]] = np.flatnonzero(assigned >= 0)
    column[missed_boxes] = len(assigned) + np.arange(len(missed_boxes))
    marks = np.zeros(scores.shape, dtype=bool)
    marks[truth.label[labels], column[truth.label_box[labels]]] = True
    return Cells(scores, marks, key)


def _with_missed(boxes: Boxes, truth: TruthBoxes, missed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not len(missed):
        return boxes.scores, boxes.key
    nothing = np.full((len(boxes.scores), len(missed)), -np.inf)
    return np.concatenate([boxes.scores, nothing], axis=1), np.concatenate([boxes.key, truth.key[missed]])


def confusion(scores: np.ndarray, truth: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return true positives, false positives and false negatives (classes,) int64 of `score >= threshold`.

    >>> [part.tolist() for part in confusion(np.array([[0.2, 0.5]]), np.array([[True, False]]), 0.5)]
    [[0], [1], [1]]
    """
    said = scores >= threshold
    hits = np.count_nonzero(said & truth, axis=1)
    return hits, np.count_nonzero(said, axis=1) - hits, np.count_nonzero(truth, axis=1) - hits


def precision_recall_f1(hits: Any, wrong: Any, missed: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return precision, recall and F1 from counts of any one shape; 0 where a denominator is 0.

    >>> [float(part) for part in precision_recall_f1(1, 1, 0)]
    [0.5, 1.0, 0.6666666666666666]
    """
    hits, wrong, missed = (np.asarray(part, dtype=np.float64) for part in (hits, wrong, missed))
    return _ratio(hits, hits + wrong), _ratio(hits, hits + missed), _ratio(2 * hits, 2 * hits + wrong + missed)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def auroc_of(ordered: np.ndarray, positive: np.ndarray) -> Auroc:
    """Return the AUROC from all scores (n,) rising and those of the positives (p,); nan unless both kinds are there.

    Pairs are counted in integers, so that the result does not depend on any order.
    """
    pos, neg = len(positive), len(ordered) - len(positive)
    if not pos or not neg:
        return Auroc(float("nan"), float("nan"), float("nan"))
    positive = np.sort(positive)
    below = int((np.searchsorted(ordered, positive, "left") - np.searchsorted(positive, positive, "left")).sum())
    through = int((np.searchsorted(ordered, positive, "right") - np.searchsorted(positive, positive, "right")).sum())
    pairs = pos * neg
    return Auroc((below + through) / (2 * pairs), below / pairs, through / pairs)


def auroc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the AUROC of one class, scores (n,) and truth (n,) bool; nan unless both kinds are there.

    >>> auroc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, True, False, True]))
    0.875
    """
    return auroc_of(np.sort(scores), scores[truth]).value


def average(values: np.ndarray, classes: np.ndarray) -> float:
    """Return the mean of `values` (classes,) over the chosen ones that are defined; nan when there is none."""
    chosen = classes & ~np.isnan(values)
    return float(values[chosen].mean()) if chosen.any() else float("nan")


def weighted_average(values: np.ndarray, support: np.ndarray) -> float:
    """Return the mean of `values` (classes,) weighted by `support` where defined; nan without support."""
    weight = np.where(np.isnan(values), 0, support).astype(np.float64)
    return float((np.nan_to_num(values) * weight).sum() / weight.sum()) if weight.sum() else float("nan")


def multilabel_scores(cells: Cells, threshold: float, *, all_classes: bool) -> dict[str, Any]:
    """Return precision, recall, F1 and AUROC, each per class and as macro, micro and weighted average.

    Macro is over all classes or over those with truth; AUROC is always over classes with both kinds.
    """
    hits, wrong, missed = confusion(cells.scores, cells.truth, threshold)
    support = hits + missed
    chosen = np.ones(len(support), dtype=bool) if all_classes else support > 0
    per_class: dict[str, np.ndarray] = dict(
        zip(("precision", "recall", "f1"), precision_recall_f1(hits, wrong, missed), strict=True)
    )
    pooled = precision_recall_f1(hits.sum(), wrong.sum(), missed.sum())
    micro: dict[str, float] = dict(zip(("precision", "recall", "f1"), map(float, pooled), strict=True))
    per_class["auroc"] = np.array([auroc(*cell) for cell in zip(cells.scores, cells.truth, strict=True)])
    micro["auroc"] = auroc(cells.scores.reshape(-1), cells.truth.reshape(-1))
    return {
        name: {
            "macro": average(values, chosen),
            "micro": micro[name],
            "weighted": weighted_average(values, support),
            "per_class": values,
        }
        for name, values in per_class.items()
    }


class MultilabelState(RowState):
    """Mergeable state of the multi-label metrics: rows in, averages and per-class values out."""

    def __init__(
        self, space: LabelSpace, lookup: Lookup = "key", threshold: float = 0.5, all_classes: bool = True
    ) -> None:
        super().__init__(space)
        self.lookup, self.threshold, self.all_classes = lookup, threshold, all_classes

    @classmethod
    def empty(
        cls, space: LabelSpace, lookup: Lookup = "key", threshold: float = 0.5, all_classes: bool = True
    ) -> MultilabelState:
        """Return a state without rows; the settings are those of `multilabel_scores`."""
        return cls(space, lookup, threshold, all_classes)

    def compute(self) -> dict[str, Any]:
        """Return `multilabel_scores` of all rows."""
        problem: Problem = self.problem()
        find = truth_by_key if self.lookup == "key" else truth_by_box
        cells = find(problem.boxes, problem.truth, np.arange(len(problem.truth.label)))
        return multilabel_scores(cells, self.threshold, all_classes=self.all_classes)
