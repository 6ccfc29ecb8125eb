"""Weights of HAR models: read from every format users bring, loaded with a report, saved and exported.

`load_weights` refuses to leave anything but the classification head as initialised, unless told which tensors may be.
"""

from microg.models.har.checkpoints.load import (
    LoadReport,
    Mismatch,
    export_pyslowfast,
    load_weights,
    open_model,
    save_weights,
)

__all__ = ["LoadReport", "Mismatch", "export_pyslowfast", "load_weights", "open_model", "save_weights"]
