"""INT8 weights for the `fast` profile of a curation: calibrated once on its own footage, and compared with float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from microg import storage
from microg.errors import MicrogError, WeightsError
from models.detection.base import DetectorSettings
from pipelines.footage import Footage

_SOURCES = 16
_SECONDS = (0.3, 1.0, 1.7, 2.4, 4.0, 5.5, 7.0, 8.5)
_FILE = "detector-int8.onnx"


def calibrate(footage: list[Footage], root: str, settings: DetectorSettings, weights: Path) -> dict[str, Any]:
    """Make the INT8 weights under `root` unless they are there; return their path and agreement with float32.

    Frames come from the first files, alternately for calibration and for comparison, so no frame serves both.
    Raises `WeightsError` when no footage can be decoded.
    """
    from models.detection.backends import choose
    from models.detection.load import load_detector
    from models.detection.quantize import agreement, build_quantized

    target, report = storage.join(root, _FILE), storage.join(root, "detector-int8.json")
    if storage.exists(target) and storage.exists(report):
        return storage.read_json(report) | {"calibration": target}  # the folder may have been moved
    frames = [frame for item in _spread(footage, _SOURCES) for frame in _some_frames(item.uri)]
    if len(frames) < 2:
        raise WeightsError("cannot calibrate INT8 weights: no footage can be decoded", "use --profile exact")
    backend = choose(settings.backend, settings.device)
    build_quantized(weights, frames[0::2], settings.image_size, target, backend=backend)
    plain = settings.replaced(weights=str(weights), rotations=1)
    exact = load_detector(plain.replaced(precision="float32"))
    fast = load_detector(plain.replaced(precision="int8", calibration=target))
    result = {"calibration": target, "calibration_frames": len(frames[0::2]), **agreement(exact, fast, frames[1::2])}
    storage.write_json(report, result)
    return result


def _spread(footage: list[Footage], count: int) -> list[Footage]:
    picked = np.linspace(0, len(footage) - 1, min(count, len(footage))).round().astype(int)
    return [footage[index] for index in picked]


def _some_frames(uri: str) -> list[np.ndarray]:
    """Return frames from the first nine seconds; fewer when the video is shorter or damaged."""
    from models.video import probe, read_frames

    try:
        fps = probe(uri).fps
        wanted = {round(seconds * fps) for seconds in _SECONDS}
        frames = []
        for index, frame in enumerate(read_frames(uri)):
            if index in wanted:
                frames.append(frame)
            if index >= max(wanted):
                break
    except MicrogError:
        return []  # unreadable footage becomes an error row of the curation itself
    return frames
