"""Makes the detector that settings describe, also one that looks at each frame at four orientations.

Detectors are trained on upright people; in weightlessness people are not upright. Recall on rotated synthetic bodies
is measured in `benchmarks/synthetic_recall.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from microg.models.detection.base import CONFIDENCE_FLOOR, Detections, Detector, DetectorSettings
from microg.system.zoo import require_weights

if TYPE_CHECKING:
    from microg.models.detection.network_backends import Engine


YOLOX_SUFFIX = ".onnx"


class RotatingDetector:
    """Wraps a detector: detects at 0, 90, 180 and 270 degrees, maps boxes back, and merges per class."""

    def __init__(self, detector: Detector, *, iou_threshold: float = 0.5) -> None:
        self._detector = detector
        self._iou_threshold = iou_threshold

    def detect(self, frames: Sequence[np.ndarray]) -> list[Detections]:
        """Return the merged detections of each frame, in the frame's own coordinates."""
        views = [
            self._detector.detect([np.ascontiguousarray(np.rot90(frame, n)) for frame in frames]) for n in range(4)
        ]
        merged = []
        for frame, of_frame in zip(frames, zip(*views, strict=True), strict=True):
            height, width = frame.shape[:2]
            upright = [unrotate(view, turns, width=width, height=height) for turns, view in enumerate(of_frame)]
            merged.append(merge(upright, self._iou_threshold))
        return merged


def unrotate(detections: Detections, turns: int, *, width: int, height: int) -> Detections:
    """Map boxes found on `np.rot90(frame, turns)` (anticlockwise) back to a frame of the given width and height."""
    x1, y1, x2, y2 = detections.boxes.T if len(detections) else np.empty((4, 0), dtype=np.float32)
    mapped = {
        0: (x1, y1, x2, y2),
        1: (width - y2, x1, width - y1, x2),
        2: (width - x2, height - y2, width - x1, height - y1),
        3: (y1, height - x2, y2, height - x1),
    }[turns % 4]
    boxes = np.stack(mapped, axis=1).astype(np.float32).reshape(-1, 4)
    return replace(detections, boxes=boxes)


def merge(views: Sequence[Detections], iou_threshold: float) -> Detections:
    """Join the detections of several views; of boxes of one class that overlap more than the threshold, the most
    confident stays."""
    import torch
    from torchvision.ops import batched_nms

    rows = np.concatenate([view.to_array() for view in views])
    if not len(rows):
        return Detections.from_array(rows)
    tensor = torch.from_numpy(rows)
    keep = batched_nms(tensor[:, :4], tensor[:, 4], tensor[:, 5].to(torch.int64), iou_threshold)
    return Detections.from_array(rows[keep.numpy()])


def fitted(settings: DetectorSettings, weights: Path) -> DetectorSettings:
    """Return settings as the weights need them. Raises `ConfigError` or `WeightsError` where both cannot be had."""
    if weights.suffix.lower() != YOLOX_SUFFIX:
        return settings
    from microg.models.detection import yolox

    return yolox.fitted(settings, weights)


def load_detector(settings: DetectorSettings, *, threads: int = 1) -> Detector:
    """Return a ready detector. Raises `WeightsError` when weights or backend are missing, saying how to get them."""
    weights = require_weights(settings.weights)
    settings = fitted(settings, weights)
    return detector_on(make_engine(settings, weights, threads=threads), settings)


def make_engine(settings: DetectorSettings, weights: Path, *, threads: int = 1) -> Engine:
    """Return the network that (fitted) settings describe; raises `WeightsError` when the weights cannot be used."""
    from microg.models.detection import export, network_backends

    if weights.suffix.lower() == YOLOX_SUFFIX:
        from microg.models.detection.yolox import YoloxEngine

        return YoloxEngine(settings, weights, threads=threads)
    device = network_backends.resolve_device(settings.device)
    backend = network_backends.choose(settings.backend, settings.device)
    network = network_backends.OpenVinoNetwork if backend == "openvino" else network_backends.OnnxRuntimeNetwork
    if settings.precision == "int8":
        inexact = {"exact": False} if backend == "openvino" else {}
        return network_backends.WholeNetwork(network(export.quantized_model(settings, weights), threads, **inexact))
    if backend == "torch":
        return network_backends.TorchEngine(weights, device)
    split = export.export_split(weights)
    if split is None:
        return network_backends.WholeNetwork(network(export.export_onnx(weights), threads))
    branches = [network(branch, threads, of_frames=False) for branch in split.branches]
    return network_backends.LazyBoxes(network(split.trunk, threads), branches, CONFIDENCE_FLOOR)


def detector_on(engine: Engine, settings: DetectorSettings) -> Detector:
    """Return the detector that uses a network which is there already."""
    if settings.weights.lower().endswith(YOLOX_SUFFIX):
        from microg.models.detection.yolox import YoloxDetector as kind
    else:
        from microg.models.detection.yolo import YoloDetector as kind

    detector: Detector = kind(settings, engine)
    return RotatingDetector(detector) if settings.rotations == 4 else detector
