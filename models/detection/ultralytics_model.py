"""Ultralytics checkpoints: loading without executing code from the file, and export to ONNX.

ultralytics is AGPL-3.0; nothing outside this package and `models.tracking` imports it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

# Before the first import: no update checks, no downloads, no pip installs behind the user's back, no telemetry.
os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_VERBOSE", "false")
os.environ.setdefault("YOLO_CONFIG_DIR", str(Path(tempfile.gettempdir()) / f"microg-ultralytics-{os.getuid()}"))

import torch

from microg import storage
from microg.errors import WeightsError
from microg.weights import cache_folder

# Raise when the export below changes, so that cached files are made anew.
_EXPORT_VERSION = 1
_OPSET = 19


def load_model(path: Path) -> torch.nn.Module:
    """Load a detection checkpoint as a fused float32 module in eval mode.

    Only known ultralytics and torch classes are unpickled. Raises `WeightsError` when the file holds anything else or
    is no detection model.
    """
    from ultralytics.nn.tasks import DetectionModel, torch_safe_load

    try:
        checkpoint, _ = torch_safe_load(str(path), safe_only=True)
        model = checkpoint.get("ema") or checkpoint["model"]
    except Exception as error:
        raise WeightsError(
            f"{path.name} is not a usable ultralytics checkpoint: {error}", "give the .pt of a detection model"
        ) from error
    if not isinstance(model, DetectionModel):
        raise WeightsError(
            f"{path.name} holds a {type(model).__name__}", "a detection model is needed, e.g. yolo11n.pt"
        )
    model = model.float().eval()
    return model.fuse(verbose=False)


def stride_of(model: torch.nn.Module) -> int:
    """Return the model's largest stride, at least 32 as in ultralytics."""
    return max(int(model.stride.max()), 32)  # type: ignore[union-attr, operator]


def export_onnx(path: Path) -> Path:
    """Return an ONNX file of the checkpoint with free batch, height and width, made once and kept in the cache.

    Input `images` (B, 3, H, W) float32 RGB in 0..1; output `output0` (B, 4 + classes, anchors): cx, cy, w, h in
    input pixels, then class probabilities.
    """
    digest = storage.sha256(path)[:16]
    target = cache_folder() / "onnx" / f"{path.stem}-{digest}-v{_EXPORT_VERSION}.onnx"
    if target.is_file():
        return target
    model = load_model(path)
    head: Any = model.model[-1]  # type: ignore[index]
    head.export, head.format, head.dynamic = True, "onnx", True
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".tmp-{os.getpid()}-{target.name}")
    import logging
    import warnings

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.zeros(1, 3, 384, 640),),
            str(temporary),
            opset_version=_OPSET,
            dynamo=False,
            input_names=["images"],
            output_names=["output0"],
            dynamic_axes={"images": {0: "batch", 2: "height", 3: "width"}, "output0": {0: "batch", 2: "anchors"}},
        )
    import onnx
    import onnxslim

    slimmed: Any = onnxslim.slim(str(temporary))
    onnx.save(slimmed, str(temporary))
    temporary.replace(target)
    return target
