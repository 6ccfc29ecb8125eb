"""Stored detections instead of a detector: `<folder>/<clip_id>.csv` or `.parquet`.

Columns: frame (from 1), x1, y1, x2, y2 (pixels of the clip's frames), conf or confidence, cls or class_id.
"""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from microg import storage
from microg.data.ids import check_id
from microg.errors import FormatError
from microg.models.detection.base import CONFIDENCE_FLOOR, Detections
from microg.reading import reads

_NAMES = {"conf": "confidence", "cls": "class_id"}
_COLUMNS = ("frame", "x1", "y1", "x2", "y2", "confidence", "class_id")


@reads()
def read_detections(folder: str, clip_id: str, num_frames: int) -> list[Detections]:
    """Return the stored detections of each of a clip's frames.

    Detections below `CONFIDENCE_FLOOR` are left out, the others sorted by descending confidence. Raises `FormatError`
    when the clip has no file, or the file lacks a column, holds what is no number, or names frames beyond the clip.
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
    values = _numbers(table, clip_id)
    frames = values[:, 0]
    if len(frames) and (frames.min() < 1 or frames.max() > num_frames or np.any(frames % 1)):
        raise FormatError(
            f"detections of clip {clip_id} name frames {frames.min():g} to {frames.max():g}, "
            f"the clip has whole numbers 1 to {num_frames}"
        )
    values = values[values[:, 5] >= CONFIDENCE_FLOOR]
    values = values[np.lexsort((-values[:, 5], values[:, 0]))]
    edges = np.searchsorted(values[:, 0], np.arange(1, num_frames + 2))
    return [Detections.from_array(values[edges[i] : edges[i + 1], 1:]) for i in range(num_frames)]


def _numbers(table: pa.Table, clip_id: str) -> np.ndarray:
    """Return the columns `_COLUMNS` as (N, 7) float64."""
    columns = dict(zip(table.column_names, table.columns, strict=True))
    columns = {_NAMES.get(name, name): column for name, column in columns.items()} | columns
    missing = [name for name in _COLUMNS if name not in columns]
    if missing:
        raise FormatError(f"detections of clip {clip_id} lack columns {missing}", f"needed: {', '.join(_COLUMNS)}")
    try:
        values = np.column_stack([columns[name].cast(pa.float64()).to_numpy() for name in _COLUMNS])
    except pa.ArrowInvalid as error:
        raise FormatError(f"detections of clip {clip_id} hold what is no number: {error}") from error
    if not np.isfinite(values).all():
        raise FormatError(f"detections of clip {clip_id} hold an empty or infinite value")
    return values
