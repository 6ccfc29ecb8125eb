"""Mean average precision of detections: VOC all-point interpolation over IoU-matched boxes.

Matching follows the reference evaluator (its copy of the AVA / TensorFlow object detection API): no suppression, and no
sort by score before matching. In file order each detection looks at the true box of its class with the largest IoU;
the first to claim it (IoU >= 0.5) is a true positive, later ones are false positives.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from microg.metrics.har.arrays import Boxes, TruthBoxes
from microg.metrics.har.boxes import iou, same_key_pairs
from microg.metrics.har.ranking import Ranked, Ranking, Ties

MatchOrder = Literal["file", "score"]


def match(
    boxes: Boxes, truth: TruthBoxes, labels: np.ndarray, *, min_iou: float = 0.5, order: MatchOrder = "file"
) -> np.ndarray:
    """Return which cells (classes, boxes) of `boxes.scores` are true positives, for the truth labels at `labels` (l,).

    `order` says who claims a true box first: the first in the file, as the reference has it, or the highest score.
    """
    hits = np.zeros(boxes.scores.shape, dtype=bool)
    # Of detections x truth only those pairs matter that share key frame and class.
    label, true_box = truth.label[labels], truth.label_box[labels]
    true, box = same_key_pairs(truth.key[true_box], boxes.key)
    present = boxes.rows[label[true], box] >= 0
    true, box = true[present], box[present]
    if not len(true):
        return hits
    overlap = iou(boxes.xyxy[box], truth.xyxy[true_box[true]])
    # Each detection looks at its largest IoU, the first truth in file order on ties.
    cell = label[true] * boxes.scores.shape[1] + box
    ranked = np.lexsort((true, -overlap, cell))
    first = np.append(True, np.diff(cell[ranked]) != 0)
    best = ranked[first]
    best = best[overlap[best] >= min_iou]
    cells, claimed = cell[best], true[best]
    rows = boxes.rows.reshape(-1)[cells]
    priority = (rows,) if order == "file" else (rows, -boxes.scores.reshape(-1)[cells])
    claims = np.lexsort((*priority, claimed))
    winner = np.append(True, np.diff(claimed[claims]) != 0)[: len(claims)]
    hits.reshape(-1)[cells[claims[winner]]] = True
    return hits


def ranking_ap(ranking: Ranking, ties: Ties) -> float:
    """Return the AP of one class's detections; nan without truth."""
    if not ranking.truth:
        return float("nan")
    ranked = ranking.ranked
    if not len(ranked.scores):
        return 0.0
    nth_hit = np.arange(1, len(ranked.scores) + 1)
    place_in_group = nth_hit - ranked.hits_above
    if ties == "grouped":
        hits, place = ranked.hits_through, ranked.through
    elif ties == "best":
        hits, place = nth_hit, ranked.above + place_in_group
    elif ties == "worst":
        group = ranked.hits_through - ranked.hits_above
        hits, place = nth_hit, ranked.through - (group - place_in_group)
    else:
        rows = np.arange(len(ranking.scores)) if ranking.rows is None else ranking.rows
        hits, place = nth_hit, _places(ranked, ranking.scores, rows, against=ties == "reversed")
    return float(_interpolated(hits / place).sum() / ranking.truth)


def average_precision(
    scores: np.ndarray, hits: np.ndarray, num_truth: int, *, ties: Ties = "stable", rows: np.ndarray | None = None
) -> float:
    """Return the all-point interpolated average precision of one class; nan when there is no truth.

    `scores` (n,) float, `hits` (n,) bool: which detections are true positives; `rows` (n,) int: places in the file,
    default the given order.

    >>> average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]), 2)
    0.8333333333333333
    >>> tied = np.array([0.5, 0.5])
    >>> [average_precision(tied, np.array([False, True]), 1, ties=rule) for rule in ("stable", "best", "worst")]
    [0.5, 1.0, 0.5]
    """
    return ranking_ap(Ranking.of(scores, hits, num_truth, rows), ties)


def precision_recall(scores: np.ndarray, hits: np.ndarray, num_truth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (threshold, recall, precision), each (t,), at the distinct scores of true positives, falling.

    >>> [part.tolist() for part in precision_recall(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]), 2)]
    [[0.9, 0.7], [0.5, 1.0], [1.0, 0.6666666666666666]]
    """
    ranked = Ranking.of(scores, hits, num_truth).ranked
    last = np.append(np.diff(ranked.scores) != 0, True)[: len(ranked.scores)]
    through = ranked.hits_through[last]
    return ranked.scores[last], through / max(num_truth, 1), through / ranked.through[last]


def _interpolated(precision: np.ndarray) -> np.ndarray:
    """Replace each precision by the largest at its recall or beyond."""
    return np.maximum.accumulate(precision[::-1])[::-1]


def _places(ranked: Ranked, scores: np.ndarray, rows: np.ndarray, *, against: bool) -> np.ndarray:
    """Return the rising places (p,), from 1, of the true positives by falling score and rising row.

    With `against`, equal scores stand in falling order of their rows.
    """
    place = ranked.above + 1
    group = ranked.through - ranked.above
    tied = group > 1
    if not tied.any():
        return place
    levels = np.unique(ranked.scores[tied])
    near = np.minimum(np.searchsorted(levels, scores), len(levels) - 1)
    members = np.flatnonzero(levels[near] == scores)
    order = members[np.lexsort((rows[members], -scores[members]))]
    starts = np.append(True, np.diff(scores[order]) != 0)
    within = np.empty(len(scores), np.int64)
    within[order] = np.arange(len(order)) - np.flatnonzero(starts)[np.cumsum(starts) - 1]
    earlier = within[ranked.index[tied]]
    place[tied] += group[tied] - 1 - earlier if against else earlier
    return np.sort(place)
