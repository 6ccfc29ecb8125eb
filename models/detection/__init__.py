"""Person detectors: one interface, several backends; see `microg.models.detection.base`."""

import os

from microg.system.weights import cache_folder

# Before the first import: no update checks, no downloads, no pip installs behind the user's back, no telemetry.
os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_VERBOSE", "false")
os.environ.setdefault("YOLO_CONFIG_DIR", str(cache_folder() / "ultralytics"))
