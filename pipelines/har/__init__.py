"""Key frames to predictions, training and sweeps of action recognition."""
