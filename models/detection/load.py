"""Making the detector that settings ask for."""

from __future__ import annotations

from microg.models.detection.base import Detector, DetectorSettings
from microg.system.weights import require_weights


def load_detector(settings: DetectorSettings, *, threads: int = 1) -> Detector:
    """Return a ready detector. Raises `WeightsError` when weights or backend are missing, saying how to get them."""
    from microg.models.detection.rotations import RotatingDetector
    from microg.models.detection.yolo import YoloDetector

    detector: Detector = YoloDetector(settings, require_weights(settings.weights), threads=threads)
    return RotatingDetector(detector) if settings.rotations == 4 else detector
