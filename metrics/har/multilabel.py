"""Multi-label classification of boxes: precision, recall, F1 and AUROC per class and averaged.

Scores and truth are (classes, boxes) matrices; a box that nobody predicted has score -inf: a miss, never a hit.
Averages: `macro` is the mean over chosen classes, `micro` pools all cells, `weighted` weighs classes by support.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from microg.metrics.har.arrays import Boxes, TruthBoxes
from microg.metrics.har.boxes import assign_boxes, same_key_pairs
from microg.metrics.har.ranking import Ranking, Ties

Lookup = Literal["key", "box"]


@dataclass(frozen=True)
class Cells:
    """One column a box: scores (classes, m) float64, -inf where nobody scored, truth (classes, m) bool, key (m,)."""

    scores: np.ndarray
    truth: np.ndarray
    key: np.ndarray


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


def confusion(
    scores: np.ndarray, truth: np.ndarray, threshold: float | np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return true positives, false positives and false negatives (classes,) int64 of `score >= threshold`.

    The threshold is one number, or (classes, 1).

    >>> [part.tolist() for part in confusion(np.array([[0.2, 0.5]]), np.array([[True, False]]), 0.5)]
    [[0], [1], [1]]
    """
    said = scores >= threshold
    hits = np.count_nonzero(said & truth, axis=1)
    return hits, np.count_nonzero(said, axis=1) - hits, np.count_nonzero(truth, axis=1) - hits


def precision(hits: Any, wrong: Any, missed: Any) -> np.ndarray:
    """Return the precision from counts of any one shape; 0 where nothing was said.

    >>> float(precision(1, 1, 0))
    0.5
    """
    return _ratio(hits, np.add(hits, wrong))


def recall(hits: Any, wrong: Any, missed: Any) -> np.ndarray:
    """Return the recall from counts of any one shape; 0 without truth."""
    return _ratio(hits, np.add(hits, missed))


def f1(hits: Any, wrong: Any, missed: Any) -> np.ndarray:
    """Return F1 from counts of any one shape; 0 without anything said or true.

    >>> round(float(f1(1, 1, 0)), 3)
    0.667
    """
    return _ratio(np.multiply(2, hits), np.multiply(2, hits) + wrong + missed)


def _ratio(part: Any, whole: Any) -> np.ndarray:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def ranking_auroc(ranking: Ranking, ties: Ties) -> float:
    """Return the AUROC of one class's cells, nan unless both kinds are there; ties count half, or at worst or best."""
    area = ranking.auroc
    return {"worst": area.low, "best": area.high}.get(ties, area.value)


def auroc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the AUROC of one class, scores (n,) and truth (n,) bool; nan unless both kinds are there.

    >>> auroc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, True, False, True]))
    0.875
    """
    return Ranking.of(scores, truth, int(truth.sum())).auroc.value


def average(values: np.ndarray, classes: np.ndarray) -> float:
    """Return the mean of `values` (classes,) over the chosen ones that are defined; nan when there is none."""
    chosen = classes & ~np.isnan(values)
    return float(values[chosen].mean()) if chosen.any() else float("nan")


def weighted_average(values: np.ndarray, support: np.ndarray) -> float:
    """Return the mean of `values` (classes,) weighted by `support` where defined; nan without support."""
    weight = np.where(np.isnan(values), 0, support).astype(np.float64)
    return float((np.nan_to_num(values) * weight).sum() / weight.sum()) if weight.sum() else float("nan")
