"""Person detectors: one interface, several backends; see `microg.models.detection.base`."""
