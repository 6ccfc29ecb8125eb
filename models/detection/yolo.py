"""A YOLO detector over any backend: letterbox, network, non-maximum suppression, boxes back to frame pixels.

Matches ultralytics' `predict` (rectangular letterbox, class-aware NMS, at most 300 boxes) within float rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from microg.models.detection import network_backends
from microg.models.detection.base import CONFIDENCE_FLOOR, Detections, DetectorSettings
from microg.models.detection.network_backends import letterbox, to_frame

_MAX_DETECTIONS = 300
# Far more than any frame is wide: boxes of different classes moved apart by it never overlap.
_CLASS_OFFSET = 7680


class YoloDetector:
    """Detects with a network; as safe to share between threads as that is."""

    def __init__(self, settings: DetectorSettings, engine: network_backends.Engine) -> None:
        self._settings = settings
        self._engine = engine

    def detect(self, frames: Sequence[np.ndarray]) -> list[Detections]:
        """Return the detections of each frame; all frames must have one size."""
        result: list[Detections] = []
        for start in range(0, len(frames), self._settings.batch_size):
            batch = frames[start : start + self._settings.batch_size]
            images = self.images(batch)
            for output in self._engine(images):
                rows = select(output, CONFIDENCE_FLOOR, self._settings.iou_threshold)
                rows[:, :4] = self.to_frame(rows[:, :4], images.shape[1:3], batch[0].shape[:2])
                result.append(Detections.from_array(rows))
        return result

    def images(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        """Return frames of one size as the network takes them."""
        return np.stack([letterbox(frame, self._settings.image_size) for frame in frames])

    def to_frame(self, boxes: np.ndarray, input_shape: tuple[int, ...], frame_shape: tuple[int, ...]) -> np.ndarray:
        """Map (N, 4) boxes from pixels of the network's input to the frame; shapes are (height, width)."""
        return to_frame(boxes, input_shape, frame_shape)


def select(output: np.ndarray, confidence: float, iou_threshold: float) -> np.ndarray:
    """Return (N, 6) float32 rows (x1, y1, x2, y2, confidence, class) of one frame, in input pixels.

    `output` is (4 + classes, anchors): centre x, centre y, width, height, class probabilities. Anchors whose best
    class is above `confidence` go through non-maximum suppression within their class; at most 300 stay, by descending
    confidence. Matches ultralytics' `non_max_suppression`.
    """
    best = output[4:].max(axis=0)
    candidates = output[:, best > confidence]
    class_id = candidates[4:].argmax(axis=0)
    centre, half = candidates[:2].T, candidates[2:4].T / 2
    rows = np.column_stack([centre - half, centre + half, best[best > confidence], class_id]).astype(np.float32)
    keep = non_maximum_suppression(rows[:, :4] + rows[:, 5:] * _CLASS_OFFSET, rows[:, 4], iou_threshold)
    return rows[keep[:_MAX_DETECTIONS]]


def non_maximum_suppression(boxes: np.ndarray, scores: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Return the indices of the boxes that stay, by descending score: of two that overlap by more than the threshold
    the better one. (Importing torchvision for it would take 5 s of CPU in each actor: it pulls in torch's compiler.)

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
