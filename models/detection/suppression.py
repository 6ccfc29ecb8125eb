"""Non-maximum suppression, with the very numbers of torchvision's but without importing it.

That import takes more CPU (5 s: it pulls in torch's compiler) than the suppression of a hundred clips, in each actor.
"""

from __future__ import annotations

import numpy as np


def non_maximum_suppression(boxes: np.ndarray, scores: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Return the indices of the boxes that stay, by descending score: of two that overlap by more than the threshold
    the better one.

    `boxes` is (N, 4) float32 (x1, y1, x2, y2), `scores` (N,) float32. Matches `torchvision.ops.nms` on a CPU bit for
    bit: IoU in float32, compared in float64, ties in score kept in order.

    >>> boxes = np.array([[0, 0, 10, 10], [1, 0, 10, 10], [20, 0, 30, 10]], np.float32)
    >>> non_maximum_suppression(boxes, np.array([0.5, 0.9, 0.7], np.float32), 0.7).tolist()
    [1, 2]
    """
    left = np.argsort(-scores, kind="stable")
    x1, y1, x2, y2 = boxes.T
    areas = (x2 - x1) * (y2 - y1)
    kept = []
    zero = np.float32(0)
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        width = np.maximum(zero, np.minimum(x2[best], x2[left]) - np.maximum(x1[best], x1[left]))
        height = np.maximum(zero, np.minimum(y2[best], y2[left]) - np.maximum(y1[best], y1[left]))
        overlap = width * height
        with np.errstate(invalid="ignore"):  # two empty boxes: not a number, which is no overlap
            iou = overlap / (areas[best] + areas[left] - overlap)
        left = left[~(iou.astype(np.float64) > iou_threshold)]
    return np.array(kept, dtype=np.int64)
