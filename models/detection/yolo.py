"""A YOLO detector over any backend: letterbox, network, non-maximum suppression, boxes back to frame pixels.

Matches ultralytics' `predict` (rectangular letterbox, class-aware NMS, at most 300 boxes) within float rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.detection import backends, ultralytics_model
from models.detection.base import CONFIDENCE_FLOOR, Detections, DetectorSettings

_STRIDE = 32
_MAX_DETECTIONS = 300


class YoloDetector:
    """Runs one set of weights; not thread-safe (one per actor)."""

    def __init__(self, settings: DetectorSettings, weights: Path, *, threads: int = 1) -> None:
        self._settings = settings
        self._engine = _make_engine(settings, weights, threads)

    def detect(self, frames: Sequence[np.ndarray]) -> list[Detections]:
        """Return the detections of each frame; all frames must have one size."""
        result: list[Detections] = []
        for start in range(0, len(frames), self._settings.batch_size):
            batch = frames[start : start + self._settings.batch_size]
            images = np.stack([letterbox(frame, self._settings.image_size) for frame in batch])
            result += self._postprocess(self._engine(images), images.shape[2:], batch[0].shape[:2])
        return result

    def _postprocess(
        self, output: np.ndarray, input_shape: tuple[int, ...], frame_shape: tuple[int, ...]
    ) -> list[Detections]:
        from ultralytics.utils import nms, ops

        found: Any = nms.non_max_suppression(
            torch.from_numpy(output),
            CONFIDENCE_FLOOR,
            self._settings.iou_threshold,
            max_det=_MAX_DETECTIONS,
        )
        result = []
        for rows in found:
            rows[:, :4] = ops.scale_boxes(input_shape, rows[:, :4], frame_shape)  # type: ignore[arg-type]
            result.append(Detections.from_array(rows.numpy()))
        return result


def _make_engine(settings: DetectorSettings, weights: Path, threads: int) -> backends.Engine:
    device = backends.resolve_device(settings.device)
    backend = backends.choose(settings.backend, settings.device)
    if settings.precision == "int8":
        from models.detection import quantize

        return backends.OnnxRuntimeEngine(quantize.quantized_model(settings, weights), threads)
    if backend == "torch":
        return backends.TorchEngine(weights, device)
    model = ultralytics_model.export_onnx(weights)
    engine = backends.OpenVinoEngine if backend == "openvino" else backends.OnnxRuntimeEngine
    return engine(model, threads)


def letterbox(frame: np.ndarray, image_size: int) -> np.ndarray:
    """Scale a BGR frame into `image_size`, pad grey to multiples of the stride, return (3, H, W) float32 RGB 0..1."""
    import cv2

    height, width = frame.shape[:2]
    ratio = min(image_size / height, image_size / width)
    new_width, new_height = max(round(width * ratio), 1), max(round(height * ratio), 1)
    if (width, height) != (new_width, new_height):
        frame = cv2.resize(frame, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    pad_x, pad_y = (image_size - new_width) % _STRIDE / 2, (image_size - new_height) % _STRIDE / 2
    top, bottom = round(pad_y - 0.1), round(pad_y + 0.1)
    left, right = round(pad_x - 0.1), round(pad_x + 0.1)
    frame = cv2.copyMakeBorder(frame, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(114, 114, 114))
    image = np.ascontiguousarray(frame[:, :, ::-1].transpose(2, 0, 1)).astype(np.float32)
    image /= 255.0
    return image
