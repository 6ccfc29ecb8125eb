"""Person detectors: one interface, several backends; see `models.detection.base`."""
