"""A YOLO network that works out boxes only where some class is likely: the same numbers for a sixth less work.

A head's branch for boxes is three convolutions over each whole feature map, and then nearly all boxes are thrown away
for the low probability of their classes. Here classes come first, and boxes of a level only in the window that holds
its likely cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

# So far the branch's convolutions reach from a cell (`microg.models.detection.export`).
_REACH = 2
# Windows grow to multiples of this many cells (of a map whose sides may be smaller): engines prepare each new shape.
_STEP = 8


class Network(Protocol):
    """One network: an array in, all its outputs out. They may be overwritten by the next call."""

    def __call__(self, value: np.ndarray) -> Sequence[np.ndarray]: ...


class LazyBoxes:
    """Letterboxed frames (B, H, W, 3) uint8 BGR to (B, 4 + classes, anchors) float32: cx, cy, w, h, probabilities.

    trunk, branches: as `microg.models.detection.export.SplitFiles`, the trunk of such frames. Boxes of anchors without
    a class above `floor` are 0.
    """

    def __init__(self, trunk: Network, branches: Sequence[Network], floor: float) -> None:
        self._trunk, self._branches, self._floor = trunk, branches, floor

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return np.stack([self._one(images[index : index + 1]) for index in range(len(images))])

    def _one(self, image: np.ndarray) -> np.ndarray:
        *levels, scores = self._trunk(image)
        boxes = np.zeros((4, scores.shape[2]), np.float32)
        likely = scores[0].max(axis=0) > self._floor
        first = 0
        for features, branch in zip(levels, self._branches, strict=True):
            height, width = features.shape[2:]
            cells = np.flatnonzero(likely[first : first + height * width])
            if len(cells):
                stride = image.shape[1] / height
                boxes[:, first + cells] = _boxes(features, branch, *np.divmod(cells, width)) * np.float32(stride)
            first += height * width
        return np.concatenate([boxes, scores[0]])


def _boxes(features: np.ndarray, branch: Network, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return (4, n) cx, cy, w, h in cells, of the cells at `rows` and `columns` of a map (1, C, h, w)."""
    top, bottom = window(rows, features.shape[2])
    left, right = window(columns, features.shape[3])
    seen = np.ascontiguousarray(features[:, :, top:bottom, left:right])
    distances = branch(seen)[0].reshape(4, bottom - top, right - left)[:, rows - top, columns - left]
    centres = np.stack([columns, rows]).astype(np.float32) + np.float32(0.5)
    low, high = centres - distances[:2], centres + distances[2:]
    return np.concatenate([(low + high) / 2, high - low])


def window(cells: np.ndarray, size: int) -> tuple[int, int]:
    """Return the first cell of a window around `cells` with all that reaches them, and the one after its last.

    >>> window(np.array([20, 22]), 80), window(np.array([79]), 80), window(np.array([3]), 5)
    ((18, 26), (72, 80), (0, 5))
    """
    start, end = max(int(cells.min()) - _REACH, 0), min(int(cells.max()) + _REACH + 1, size)
    length = min(-(-(end - start) // _STEP) * _STEP, size)
    start = min(start, size - length)
    return start, start + length
