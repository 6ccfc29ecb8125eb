"""YOLOX detectors (Apache-2.0) from the ONNX files that its authors publish.

Matches their ONNX demo: a frame is scaled into the square input and placed at its top left, BGR from 0 to 255; outputs
are decoded at strides 8, 16 and 32, and a class's probability is its own times the object's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from microg.errors import ConfigError, WeightsError
from microg.models.detection.base import DetectorSettings
from microg.models.detection.network_backends import Network, OnnxRuntimeNetwork, OpenVinoNetwork, choose
from microg.models.detection.yolo import YoloDetector
from microg.reading import reads

_STRIDES = (8, 16, 32)
_GREY = 114


def fitted(settings: DetectorSettings, weights: Path) -> DetectorSettings:
    """Return the settings as a YOLOX file needs them: its input size, on the CPU.

    Raises `WeightsError` for another network, and `ConfigError` for settings that no YOLOX file can meet.
    """
    if settings.precision != "float32" or settings.backend == "torch" or settings.device not in ("auto", "cpu"):
        raise ConfigError(
            f"{weights.name} is an ONNX file: it runs in float32, on the CPU, by onnxruntime or openvino",
            "drop --detector-profile fast, --detector-backend torch and --device cuda, or take YOLO11 weights",
        )
    backend = choose(settings.backend, "cpu")
    if backend == "torch":
        raise WeightsError(f"{weights.name} needs onnxruntime or openvino", "uv pip install onnxruntime")
    return settings.replaced(image_size=input_size(weights), device="cpu", backend=backend)


@reads(WeightsError)
def input_size(weights: Path) -> int:
    """Return the side of a YOLOX file's input in pixels. Raises `WeightsError` for another network."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(weights), providers=["CPUExecutionProvider"], enable_fallback=0)
    inputs, outputs = ([list(each.shape) for each in side] for side in (session.get_inputs(), session.get_outputs()))
    size = inputs[0][-1] if inputs and len(inputs[0]) == 4 else None
    cells = sum((size // stride) ** 2 for stride in _STRIDES) if isinstance(size, int) else None
    known = inputs == [[1, 3, size, size]] and len(outputs) == 1 and outputs[0][:2] == [1, cells]
    if not known or not isinstance(size, int) or size % _STRIDES[-1] or outputs[0][2] < 6:
        raise WeightsError(
            f"{weights.name} is no YOLOX network of one image: it takes {inputs} and gives {outputs}",
            "YOLOX's own ONNX files are meant ('microg data download weights' lists them)",
        )
    return size


class YoloxEngine:
    """A YOLOX file: (B, S, S, 3) uint8 BGR squares to (B, 4 + classes, anchors) float32, as YOLO's engines give.

    Boxes are centre x, centre y, width and height in pixels of the square.
    """

    def __init__(self, settings: DetectorSettings, weights: Path, *, threads: int = 1) -> None:
        kind = OpenVinoNetwork if settings.backend == "openvino" else OnnxRuntimeNetwork
        self._network: Network = kind(weights, threads, of_frames=False)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        pixels = images.transpose(0, 3, 1, 2).astype(np.float32)
        # the published files take one image at a time
        outputs = [np.array(self._network(pixels[index : index + 1])[0])[0] for index in range(len(images))]
        return np.stack([decoded(output, images.shape[1]) for output in outputs])


def decoded(output: np.ndarray, size: int) -> np.ndarray:
    """Return (4 + classes, anchors) of a network's (anchors, 5 + classes), for an input of `size` pixels a side."""
    cells, strides = _grid(size)
    boxes = np.concatenate([output[:, :2] + cells, np.exp(output[:, 2:4])], axis=1) * strides
    return np.concatenate([boxes, output[:, 5:] * output[:, 4:5]], axis=1).T.astype(np.float32)


@cache
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each anchor's cell (x, y) and the pixels of a cell, (anchors, 2) and (anchors, 1)."""
    cells, strides = [], []
    for stride in _STRIDES:
        side = np.arange(size // stride)
        x, y = np.meshgrid(side, side)
        cells.append(np.stack([x.ravel(), y.ravel()], axis=1))
        strides.append(np.full((len(side) ** 2, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)


class YoloxDetector(YoloDetector):
    """A YOLO detector whose frames lie at the top left of a square."""

    def images(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        """Return frames of one size as the network takes them."""
        import cv2

        size = self._settings.image_size
        squares = np.full((len(frames), size, size, 3), _GREY, np.uint8)
        for square, frame in zip(squares, frames, strict=True):
            ratio = self._ratio(frame.shape)
            width, height = (max(int(side * ratio), 1) for side in (frame.shape[1], frame.shape[0]))
            square[:height, :width] = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
        return squares

    def to_frame(self, boxes: np.ndarray, input_shape: tuple[int, ...], frame_shape: tuple[int, ...]) -> np.ndarray:
        """Map (N, 4) boxes from pixels of the square to the frame, clipped to it; shapes are (height, width)."""
        height, width = frame_shape
        return np.clip(boxes / np.float32(self._ratio(frame_shape)), 0, [width, height, width, height])

    def _ratio(self, shape: tuple[int, ...]) -> float:
        return min(self._settings.image_size / shape[0], self._settings.image_size / shape[1])
