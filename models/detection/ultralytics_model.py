"""Ultralytics checkpoints: loading without executing code from the file.

ultralytics is AGPL-3.0; nothing outside this package and `microg.models.curation.tracking` imports it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from microg.errors import WeightsError
from microg.models.detection.base import STRIDE
from microg.reading import reads


@reads(WeightsError)
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
