"""The `observations` table of a curation: one row a clip with all that decoding and detection gave.

Decisions, boxes and samples are pure functions of these rows (`microg.pipelines.curate.decide`), so new thresholds and
rules need no second decoding. Boxes are stored flat: `*_frame` (0-based), `*_box` (4 values a box), confidence and
class.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa

from microg import storage
from microg.arrow import parse_schema
from microg.models.curation.registry import MEASURES
from microg.models.curation.tracking import Tracks
from microg.models.detection.base import Boxes, Detections
from microg.pipelines.core.part_files import WRITTEN, PartFiles

if TYPE_CHECKING:
    from microg.models.curation.observe import Observation

AnyBoxes = TypeVar("AnyBoxes", bound=Boxes)

# What observing a clip takes time for.
STEPS = ("trim", "decode", "detect", *(measure.name for measure in MEASURES), "track")
CLOCKS = pa.schema([(f"{step}_s", pa.float32()) for step in STEPS])

# What is known of a clip, or of a stretch of footage, before it is observed. key: the clip id; for a stretch of footage
# without clips, its stretch id. status: ok | error | empty (a stretch without a whole clip) | rejected (a clip that was
# not cut); before: trim | observe; or `UNWRITABLE`.
WORK = parse_schema(
    "key clip_id source_id: string, sequence stretch stretches stretch_clips: int32, uri status error damaged "
    "source_uri source_fingerprint: string, source_size: int64, origin: string, source_fps: float64, "
    "source_width source_height source_streams: int32, source_duration_s: float64, decode_errors: [string], "
    "tail_s fps: float64, num_frames width height: int32, sha256: string, trim_s: float32"
)
_BOXES = "{0}_frame: [int32], {0}_box {0}_confidence: [float32], {0}_class: [int32]"
SCHEMA = pa.schema(
    [
        *(column for column in WORK if column.name != "trim_s"),
        *(column for measure in MEASURES for column in measure.columns),
        *(column for prefix in ("detection", "track") for column in parse_schema(_BOXES.format(prefix))),
        ("track_id", pa.list_(pa.int32())),
        *CLOCKS,
        (WRITTEN, pa.int64()),  # nanoseconds since the epoch: of two rows with one key the newest counts
    ]
)


def to_row(observation: Observation) -> dict[str, Any]:
    """Return the columns that hold an observation."""
    row: dict[str, Any] = {
        "num_frames": observation.num_frames,
        "width": observation.width,
        "height": observation.height,
        **observation.measured,
    }
    for prefix, per_frame in (("detection", observation.detections), ("track", observation.tracks)):
        row |= {
            f"{prefix}_frame": np.repeat(np.arange(len(per_frame)), [len(item) for item in per_frame]),
            f"{prefix}_box": _concatenate([item.boxes.ravel() for item in per_frame]),
            f"{prefix}_confidence": _concatenate([item.confidence for item in per_frame]),
            f"{prefix}_class": _concatenate([item.class_id for item in per_frame]),
        }
    row["track_id"] = _concatenate([item.track_id for item in observation.tracks])
    return row | {f"{step}_s": seconds for step, seconds in observation.seconds.items()}


def detections_of(row: dict[str, Any]) -> list[Detections]:
    """Return the detections of each frame of an observed clip."""
    return _by_frame(row, "detection", Detections(**_columns(row, "detection")))


def tracks_of(row: dict[str, Any]) -> list[Tracks]:
    """Return the tracked boxes of each frame of an observed clip."""
    track_id = np.asarray(row["track_id"], dtype=np.int32)
    return _by_frame(row, "track", Tracks(**_columns(row, "track"), track_id=track_id))


def _columns(row: dict[str, Any], prefix: str) -> dict[str, np.ndarray]:
    return {
        "boxes": np.asarray(row[f"{prefix}_box"], dtype=np.float32).reshape(-1, 4),
        "confidence": np.asarray(row[f"{prefix}_confidence"], dtype=np.float32),
        "class_id": np.asarray(row[f"{prefix}_class"], dtype=np.int32),
    }


def _by_frame(row: dict[str, Any], prefix: str, boxes: AnyBoxes) -> list[AnyBoxes]:
    frame = np.asarray(row[f"{prefix}_frame"], dtype=np.int32)
    edges = np.searchsorted(frame, np.arange(row["num_frames"] + 1))
    return [boxes.select(slice(a, b)) for a, b in pairwise(edges)]


def _concatenate(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype=np.float32)


def store(root: str) -> PartFiles:
    """Return the files of the table of the dataset under `root`."""
    return PartFiles(storage.join(root, "observations"), SCHEMA, "key")


def commit(root: str, rows: list[dict[str, Any]]) -> None:
    """Append rows as one new file, atomically."""
    store(root).append(pa.Table.from_pylist(rows, schema=SCHEMA))


def read(root: str, columns: list[str] | None = None) -> pa.Table:
    """Return the newest row of each key, sorted by key."""
    return store(root).newest(columns)
