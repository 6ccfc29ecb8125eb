"""Ultralytics checkpoints: loading without executing code from the file, and export to ONNX.

ultralytics is AGPL-3.0; nothing outside this package and `models.tracking` imports it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from microg.weights import cache_folder

# Before the first import: no update checks, no downloads, no pip installs behind the user's back, no telemetry.
os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_VERBOSE", "false")
os.environ.setdefault("YOLO_CONFIG_DIR", str(cache_folder() / "ultralytics"))

import torch

from microg import storage
from microg.errors import WeightsError

# Raise when the export below changes, so that cached files are made anew.
_EXPORT_VERSION = 2
_OPSET = 19
# Height and width of the network's input are multiples of it.
STRIDE = 32


def load_model(path: Path) -> torch.nn.Module:
    """Load a detection checkpoint as a fused float32 module in eval mode.

    Only known ultralytics and torch classes are unpickled; no file is downloaded. Raises `WeightsError` when the file
    holds anything else, or is no plain detection model whose class 0 is a person.
    """
    from ultralytics.nn.tasks import DetectionModel

    model: Any = _unpickled(path)
    fix = "give the .pt of a detection model of people, e.g. yolo11n.pt"
    # Segmentation, pose and other models derive from the detection model, but their output means something else.
    if type(model) is not DetectionModel:
        raise WeightsError(f"{path.name} holds a {type(model).__name__}, not a DetectionModel", fix)
    model = model.float().eval()
    names = {int(number): str(name).lower() for number, name in dict(model.names).items()}
    if len(names) > 1 and names[0] not in ("person", "0"):  # "0": its classes have no names
        raise WeightsError(f"class 0 of {path.name} is {names[0]!r}, not a person", fix)
    stride = int(model.stride.max())
    if stride > STRIDE:
        raise WeightsError(f"{path.name} has a stride of {stride}, at most {STRIDE} is supported", fix)
    head: Any = model.model[-1]
    head.end2end = False  # the branch that leaves duplicates to non-maximum suppression, as all other models have
    if head.end2end:
        raise WeightsError(f"{path.name} was exported for end-to-end detection only", fix)
    return model.fuse(verbose=False)


def _unpickled(path: Path) -> torch.nn.Module:
    from ultralytics.nn.tasks import torch_safe_load

    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        # ultralytics would load it unsafely without a word.
        raise WeightsError(f"torch {torch.__version__} cannot load checkpoints safely", "install torch 2.6 or newer")
    with tempfile.TemporaryDirectory(prefix="microg-weights-") as folder:
        # By another name: ultralytics takes some (yolov5n.pt) for outdated and downloads what it holds for better.
        link = Path(folder) / "checkpoint.pt"
        link.symlink_to(path.resolve())
        try:
            checkpoint, _ = torch_safe_load(str(link), safe_only=True)
            model = checkpoint.get("ema") or checkpoint["model"]
        except Exception as error:
            reason = str(error).replace(str(link), path.name).replace("ERROR ❌️ ", "")
            raise WeightsError(
                f"{path.name} is not a usable ultralytics checkpoint: {reason or type(error).__name__}",
                "give the .pt of a detection model, e.g. yolo11n.pt",
            ) from error
    return model


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
    import logging
    import warnings

    import onnx
    import onnxslim

    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".tmp-{os.getpid()}-{target.name}")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
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
        slimmed: Any = onnxslim.slim(str(temporary))
        onnx.save(slimmed, str(temporary))
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target
