"""Engines that run a detector's network: torch, ONNX Runtime and OpenVINO, behind one call.

Each takes letterboxed frames, (B, H, W, 3) uint8 BGR, and returns (4 + classes, anchors) float32 of each frame.
Conversion to the network's float32 RGB in 0..1 is part of each engine, because OpenVINO and a GPU do it several times
faster than numpy.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from microg.errors import WeightsError
from microg.models.detection.base import STRIDE
from microg.models.devices import resolve_device


class Engine(Protocol):
    """Runs the network on one batch."""

    def __call__(self, images: np.ndarray) -> Iterable[np.ndarray]: ...


class TorchEngine:
    """The checkpoint itself, on a GPU or the CPU."""

    def __init__(self, weights: Path, device: str) -> None:
        import torch

        from microg.models.detection import ultralytics_model

        self.device = torch.device(device)
        # float32 in full, as on CPUs: with TF32 a GPU's confidences differ in the third digit
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        self._model = ultralytics_model.load_model(weights).to(self.device)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            batch = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).flip(1).float() / 255
            output = self._model(batch.contiguous())
            return (output[0] if isinstance(output, (tuple, list)) else output).float().cpu().numpy()


class WholeNetwork:
    """A network whose one output is what an engine returns."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def __call__(self, images: np.ndarray) -> np.ndarray:
        # One frame at a time: batching costs about 15% more a frame on OpenVINO, and gains nothing on ONNX Runtime.
        return np.concatenate([self._network(images[index : index + 1])[0].copy() for index in range(len(images))])


class OnnxRuntimeNetwork:
    """An ONNX file on ONNX Runtime's CPU provider; `of_frames`: its input is made of letterboxed frames."""

    def __init__(self, model: Path, threads: int, *, of_frames: bool = True) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._of_frames = of_frames

    def __call__(self, value: np.ndarray) -> Sequence[np.ndarray]:
        return self._session.run(None, {self._input: to_network_input(value) if self._of_frames else value})  # pyright: ignore[reportReturnType]


class OpenVinoNetwork:
    """An ONNX file on OpenVINO; `of_frames`: its input is made of letterboxed frames.

    In float32 unless `exact` is False: OpenVINO's default on new CPUs is bfloat16, inexact.
    """

    def __init__(self, model: Path, threads: int, *, exact: bool = True, of_frames: bool = True) -> None:
        import openvino

        self._core = openvino.Core()
        self._model = self._core.read_model(str(model))
        self._options = {
            **({"INFERENCE_PRECISION_HINT": "f32"} if exact else {}),
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
        }
        self._of_frames = of_frames
        self._requests: dict[tuple[int, ...], Any] = {}

    def __call__(self, value: np.ndarray) -> Sequence[np.ndarray]:
        # A network of frames is compiled for each of their few shapes, which runs measurably faster than a free one.
        shape = value.shape if self._of_frames else ()
        request = self._requests.get(shape)
        if request is None:
            model = self._from_bytes_of_bgr(self._model.clone(), shape) if self._of_frames else self._model
            request = self._core.compile_model(model, "CPU", self._options).create_infer_request()
            self._requests[shape] = request
        found = request.infer({0: value}, share_inputs=True, share_outputs=True)
        return [found[index] for index in range(len(found))]

    @staticmethod
    def _from_bytes_of_bgr(model: Any, shape: tuple[int, ...]) -> Any:
        """Fix the input's shape and put the conversion from uint8 BGR into the model itself."""
        from openvino import Layout, Type
        from openvino.preprocess import ColorFormat, PrePostProcessor

        _, height, width, _ = shape
        model.reshape([1, 3, height, width])
        steps = PrePostProcessor(model)
        steps.input().tensor().set_element_type(Type.u8).set_layout(Layout("NHWC")).set_color_format(ColorFormat.BGR)
        steps.input().preprocess().convert_element_type(Type.f32).convert_color(ColorFormat.RGB).scale(255.0)
        steps.input().model().set_layout(Layout("NCHW"))
        return steps.build()


def to_network_input(images: np.ndarray) -> np.ndarray:
    """Return (B, 3, H, W) float32 RGB in 0..1 of (B, H, W, 3) uint8 BGR images."""
    import cv2

    return cv2.dnn.blobFromImages(list(images), scalefactor=1 / 255, swapRB=True)


def choose(backend: str, device: str) -> str:
    """Return the backend that `auto` means here; raises `WeightsError` for one that is not installed.

    With a GPU: torch. On a CPU the fastest measured (milliseconds a frame of YOLO11n at 384 x 640, one thread, each
    with all boxes): OpenVINO 35.5, ONNX Runtime 38.7, torch 50.
    """
    if backend != "auto":
        if backend in ("onnxruntime", "openvino") and importlib.util.find_spec(backend) is None:
            raise WeightsError(f"detector backend {backend!r} is not installed", f"uv pip install {backend}")
        return backend
    if device != "cpu" and (device != "auto" or resolve_device(device) != "cpu"):
        return "torch"
    return next((name for name in ("openvino", "onnxruntime") if importlib.util.find_spec(name)), "torch")


# A head's branch for boxes is three convolutions over each whole feature map, and then nearly all boxes are thrown away
# for the low probability of their classes. `LazyBoxes` works out classes first, and boxes of a level only in the window
# that holds its likely cells: the same numbers for a sixth less work.
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


def letterbox(frame: np.ndarray, image_size: int) -> np.ndarray:
    """Scale an (H, W, 3) uint8 BGR frame into `image_size` and pad it with grey to multiples of the stride."""
    import cv2

    height, width = frame.shape[:2]
    ratio = min(image_size / height, image_size / width)
    new_width, new_height = max(round(width * ratio), 1), max(round(height * ratio), 1)
    if (width, height) != (new_width, new_height):
        frame = cv2.resize(frame, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    pad_x, pad_y = (image_size - new_width) % STRIDE / 2, (image_size - new_height) % STRIDE / 2
    top, bottom = round(pad_y - 0.1), round(pad_y + 0.1)
    left, right = round(pad_x - 0.1), round(pad_x + 0.1)
    return cv2.copyMakeBorder(frame, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(114, 114, 114))


def to_frame(boxes: np.ndarray, input_shape: tuple[int, ...], frame_shape: tuple[int, ...]) -> np.ndarray:
    """Map (N, 4) boxes from letterboxed input pixels to the frame, clipped to it; shapes are (height, width)."""
    from ultralytics.utils import ops

    return ops.scale_boxes(input_shape, boxes.copy(), frame_shape)  # type: ignore[arg-type, return-value]
