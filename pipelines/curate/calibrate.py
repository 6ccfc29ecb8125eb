"""What a curation with a fast profile does first: INT8 weights where it asks for them, and how far it agrees with the
exact profile, both on the footage at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from microg import storage
from microg.errors import MicrogError, WeightsError
from microg.models.detection.base import Detections, Detector, DetectorSettings
from microg.pipelines.curate.find_footage import Footage

_SOURCES = 8
_CALIBRATION_SECONDS = (0.3, 1.7, 4.0, 5.5, 7.0, 8.5)
# The frames that are compared follow each other as in a clip.
_COMPARED_FROM_S, _CLIP_FPS = 1.0, 30
_FILE, _REPORT = "detector-int8.onnx", "detector-agreement.json"


def calibrate(footage: list[Footage], root: str, settings: DetectorSettings, weights: Path) -> dict[str, Any]:
    """Make what `settings` need under `root`, unless it is there, and return their agreement with exact detection.

    With INT8 precision that includes `calibration`, the path of the weights. Frames come from up to eight of the files;
    none is used both for calibration and for comparison. Raises `WeightsError` when INT8 weights are needed and no
    footage can be decoded.
    """
    from microg.models.detection.export import build_quantized
    from microg.models.detection.load import load_detector
    from microg.models.detection.network_backends import choose
    from microg.models.detection.sparse import agreement

    target, report = storage.join(root, _FILE), storage.join(root, _REPORT)
    quantised = settings.precision == "int8"
    place = {"calibration": target} if quantised else {}  # not stored: the folder may be moved
    if storage.exists(report) and (storage.exists(target) or not quantised):
        return storage.read_json(report) | place
    samples = [_sample(item.uri, 4 * settings.frame_step + 1) for item in _spread(footage, _SOURCES)]
    runs = [run for _, run in samples if run]
    frames = [frame for some, _ in samples for frame in some]
    if quantised:
        if not frames:
            raise WeightsError(
                "cannot calibrate INT8 weights: no footage can be decoded", "use --detector-profile balanced"
            )
        backend = choose(settings.backend, settings.device)
        build_quantized(weights, frames, settings.image_size, target, backend=backend)
    plain = settings.replaced(weights=str(weights), rotations=1, **place)
    exact = load_detector(plain.replaced(precision="float32"))
    fast = load_detector(plain)
    result = agreement(_detected(exact, runs, 1), _detected(fast, runs, settings.frame_step))
    storage.write_json(report, result)
    return result | place


def _detected(detector: Detector, runs: list[list[np.ndarray]], step: int) -> list[Detections]:
    from microg.models.detection.sparse import detect_every

    return [found for run in runs for _, found in detect_every(detector.detect, iter(run), step=step, batch_size=8)]


def _spread(footage: list[Footage], count: int) -> list[Footage]:
    picked = np.linspace(0, len(footage) - 1, min(count, len(footage))).round().astype(int)
    return [footage[index] for index in picked]


def _sample(uri: str, count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return frames for calibration, and `count` frames at the rate of clips; fewer where the video is short.

    Both are empty where it cannot be decoded.
    """
    from microg.video import decode_frames, probe

    try:
        fps = probe(uri).fps
        apart = {round(seconds * fps) for seconds in _CALIBRATION_SECONDS}
        following = [round((_COMPARED_FROM_S + k / _CLIP_FPS) * fps) for k in range(count)]
        seen: dict[int, np.ndarray] = {}
        for index, frame in enumerate(decode_frames(uri)):
            if index in apart or index in following:
                seen[index] = frame
            if index >= max(*apart, *following):
                break
    except MicrogError:
        return [], []  # unreadable footage becomes an error row of the curation itself
    run = [seen[index] for index in following if index in seen]
    return [seen[index] for index in sorted(apart.difference(following)) if index in seen], run
