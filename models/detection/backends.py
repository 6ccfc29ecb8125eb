"""Engines that run a detector's network: torch, ONNX Runtime and OpenVINO, behind one call.

Each takes (B, 3, H, W) float32 RGB in 0..1 and returns (B, 4 + classes, anchors) float32.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from microg.errors import WeightsError
from models.detection import ultralytics_model


class Engine(Protocol):
    """Runs the network on one batch."""

    def __call__(self, images: np.ndarray) -> np.ndarray: ...


class TorchEngine:
    """The checkpoint itself, on a GPU or the CPU."""

    def __init__(self, weights: Path, device: str) -> None:
        self.device = torch.device(device)
        self._model = ultralytics_model.load_model(weights).to(self.device)

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        output = self._model(torch.from_numpy(images).to(self.device))
        return (output[0] if isinstance(output, (tuple, list)) else output).float().cpu().numpy()


class OnnxRuntimeEngine:
    """An ONNX file on ONNX Runtime's CPU provider."""

    def __init__(self, model: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self._session.run(None, {self._input: images})[0])


class OpenVinoEngine:
    """An ONNX file on OpenVINO, in float32: its default on new CPUs is bfloat16, slower here and inexact."""

    def __init__(self, model: Path, threads: int) -> None:
        import openvino

        self._core = openvino.Core()
        self._model = model
        self._options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
        }
        # Compiled per input shape: a fixed shape runs measurably faster than a dynamic one.
        self._requests: dict[tuple[int, ...], Any] = {}

    def __call__(self, images: np.ndarray) -> np.ndarray:
        # One frame at a time: batching costs about 15% more per frame on this engine.
        return np.concatenate([self._run(images[index : index + 1]) for index in range(len(images))])

    def _run(self, image: np.ndarray) -> np.ndarray:
        request = self._requests.get(image.shape)
        if request is None:
            model = self._core.read_model(str(self._model))
            model.reshape(list(image.shape))
            request = self._core.compile_model(model, "CPU", self._options).create_infer_request()
            self._requests[image.shape] = request
        return np.array(request.infer({0: image}, share_inputs=True)[0])


def choose(backend: str, device: str) -> str:
    """Return the backend that `auto` means here.

    With a GPU: torch. On a CPU the fastest measured (milliseconds a frame of YOLO11n at 384 x 640, one thread):
    OpenVINO 35.5, ONNX Runtime 38.7, torch 50.
    """
    if backend != "auto":
        if backend in ("onnxruntime", "openvino") and importlib.util.find_spec(backend) is None:
            raise WeightsError(f"detector backend {backend!r} is not installed", f"uv pip install {backend}")
        return backend
    if resolve_device(device) != "cpu":
        return "torch"
    return next((name for name in ("openvino", "onnxruntime") if importlib.util.find_spec(name)), "torch")


def resolve_device(device: str) -> str:
    """Return the torch device that `auto` means here."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"
