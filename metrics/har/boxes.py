"""Overlap of boxes, and which predicted box is which true box."""

from __future__ import annotations

import numpy as np


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the intersection over union (n,) of aligned boxes (n, 4), x1, y1, x2, y2 in any one unit.

    >>> iou(np.array([[0.0, 0.0, 2.0, 1.0]]), np.array([[1.0, 0.0, 3.0, 1.0]])).round(3).tolist()
    [0.333]
    """
    sides = np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2])
    overlap = np.prod(np.maximum(sides, 0), axis=1)
    area = np.prod(first[:, 2:] - first[:, :2], axis=1)
    other = np.prod(second[:, 2:] - second[:, :2], axis=1)
    return overlap / (area + other - overlap)


def same_key_pairs(first_key: np.ndarray, second_key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all index pairs (i, j) with equal keys; grouped by i in rising order, j rising within.

    >>> [part.tolist() for part in same_key_pairs(np.array([5, 7, 5]), np.array([5, 5, 9]))]
    [[0, 0, 2, 2], [0, 1, 0, 1]]
    """
    order = np.argsort(second_key, kind="stable")
    ordered = second_key[order]
    low, high = np.searchsorted(ordered, first_key, "left"), np.searchsorted(ordered, first_key, "right")
    counts = high - low
    first = np.repeat(np.arange(len(first_key)), counts)
    offset = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
    return first, order[np.repeat(low, counts) + offset]


def assign_boxes(
    pred_key: np.ndarray, pred_xyxy: np.ndarray, true_key: np.ndarray, true_xyxy: np.ndarray, min_iou: float = 0.5
) -> np.ndarray:
    """Assign predicted boxes to true boxes of the same key frame, one to one; returns the true box (n,), -1 for none.

    Greedy by falling IoU, the first predicted and then the first true box on ties. Keys are int64, boxes (n, 4).

    >>> boxes = np.array([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.9]])
    >>> assign_boxes(np.array([3, 3]), boxes, np.array([3]), boxes[:1]).tolist()
    [0, -1]
    """
    assigned = np.full(len(pred_key), -1, dtype=np.int64)
    pred, true = same_key_pairs(pred_key, true_key)
    overlap = iou(pred_xyxy[pred], true_xyxy[true])
    near = overlap >= min_iou
    pred, true, overlap = pred[near], true[near], overlap[near]
    order = np.lexsort((true, pred, -overlap))
    pred, true = pred[order], true[order]
    # A pair that comes first for both its boxes is final; each round removes what these pairs have taken.
    while len(pred):
        places = np.arange(len(pred))
        first_of_pred = np.full(len(pred_key), len(pred), np.int64)
        first_of_true = np.full(len(true_key), len(pred), np.int64)
        np.minimum.at(first_of_pred, pred, places)
        np.minimum.at(first_of_true, true, places)
        final = (first_of_pred[pred] == places) & (first_of_true[true] == places)
        assigned[pred[final]] = true[final]
        taken = np.zeros(len(true_key), dtype=bool)
        taken[true[final]] = True
        left = (assigned[pred] < 0) & ~taken[true]
        pred, true = pred[left], true[left]
    return assigned
