"""Stored detections instead of a detector: `<folder>/<clip_id>.csv` or `.parquet`.

Columns: frame (from 1), x1, y1, x2, y2 (pixels of the clip's frames), conf or confidence, cls or class_id.
"""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from microg import storage
from microg.errors import FormatError
from microg.ids import check_id
from models.detection.base import CONFIDENCE_FLOOR, Detections

_NAMES = {"conf": "confidence", "cls": "class_id"}
_COLUMNS = ("frame", "x1", "y1", "x2", "y2", "confidence", "class_id")


def read_detections(folder: str, clip_id: str, num_frames: int) -> list[Detections]:
    """Return the stored detections of each of a clip's frames.

    Raises `FormatError` when the clip has no file, or the file lacks a column or names frames beyond the clip.
    """
    base = storage.join(folder, check_id(clip_id, "clip id"))
    if storage.exists(f"{base}.parquet"):
        table = storage.read_parquet(f"{base}.parquet")
    elif storage.exists(f"{base}.csv"):
        try:
            table = pa_csv.read_csv(io.BytesIO(storage.read_bytes(f"{base}.csv")))
        except pa.ArrowInvalid as error:
            raise FormatError(f"{clip_id}.csv in {folder} cannot be read: {error}") from error
    else:
        raise FormatError(f"there are no stored detections for clip {clip_id}", f"expected {base}.csv or .parquet")
    table = table.rename_columns([_NAMES.get(name, name) for name in table.column_names])
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise FormatError(f"detections of clip {clip_id} lack columns {missing}", f"needed: {', '.join(_COLUMNS)}")
    values = np.column_stack([np.asarray(table[name], dtype=np.float64) for name in _COLUMNS])
    if len(values) and (values[:, 0].min() < 1 or values[:, 0].max() > num_frames):
        raise FormatError(
            f"detections of clip {clip_id} name frames {values[:, 0].min():.0f} to {values[:, 0].max():.0f}, "
            f"the clip has 1 to {num_frames}"
        )
    values = values[values[:, 5] >= CONFIDENCE_FLOOR]
    values = values[np.lexsort((-values[:, 5], values[:, 0]))]
    edges = np.searchsorted(values[:, 0], np.arange(1, num_frames + 2))
    return [Detections.from_array(values[edges[i] : edges[i + 1], 1:]) for i in range(num_frames)]
