"""Making the detector that settings ask for."""

from __future__ import annotations

from microg.weights import require_weights
from models.detection.base import Detector, DetectorSettings


def load_detector(settings: DetectorSettings, *, threads: int = 1) -> Detector:
    """Return a ready detector. Raises `WeightsError` when weights or backend are missing, saying how to get them."""
    from models.detection.rotations import RotatingDetector
    from models.detection.yolo import YoloDetector

    detector: Detector = YoloDetector(settings, require_weights(settings.weights), threads=threads)
    return RotatingDetector(detector) if settings.rotations == 4 else detector
