"""Where predictions lie while they are made, and the table `har_predictions` they become at the end.

Each block of key frames is committed as one small file, atomically; of two rows with one sample id the newest counts.
The table itself is written when every key frame has rows, so that an unfinished run cannot be scored unnoticed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from microg import storage
from microg.actions.predictions import sample_id
from microg.data import schema
from microg.pipelines.core.part_files import WRITTEN, PartFiles

TABLE = "har_predictions"
SCHEMA = schema.schema_of(TABLE).append(pa.field(WRITTEN, pa.int64()))


def rows_of(key_frame: dict[str, Any], scores: np.ndarray | None, error: str, **common: str) -> list[dict[str, Any]]:
    """Return one row a person of a key frame (a row of `KEY_FRAMES`): its scores (people, classes), or the error."""
    boxes = np.asarray(key_frame["boxes"], np.float64).reshape(-1, 4).tolist()
    return [
        {
            "sample_id": sample_id(key_frame["clip_id"], key_frame["frame"], person),
            "clip_id": key_frame["clip_id"],
            "frame": key_frame["frame"],
            "person_id": person,
            **dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)),
            "scores": None if scores is None else scores[place],
            "status": "error" if error else "ok",
            "error": error,
            **common,
        }
        for place, (person, box) in enumerate(zip(key_frame["person_id"], boxes, strict=True))
    ]


def commit(root: str, rows: Sequence[dict[str, Any]]) -> None:
    """Append rows as one new file, atomically."""
    now = time.time_ns()
    files(root).append(pa.Table.from_pylist([{**row, WRITTEN: now} for row in rows], schema=SCHEMA))


def finished_keys(root: str) -> set[str]:
    """Return the names of the key frames whose people all have scores; those with errors are to be tried again."""
    table = files(root).newest(["clip_id", "frame", "status"])
    keys: dict[str, bool] = {}
    for row in table.to_pylist():
        key = f"{row['clip_id']}:{row['frame']}"
        keys[key] = keys.get(key, True) and row["status"] == "ok"
    return {key for key, ok in keys.items() if ok}


def finish(root: str, key_frames: pa.Table) -> pa.Table:
    """Write and return the table of all samples of `key_frames`, in their order.

    Raises `WorkerError` when rows are missing: then workers wrote somewhere else than this process reads.
    """
    result = schema.conform(TABLE, files(root).complete(sample_ids(key_frames)))
    storage.write_parquet(storage.join(root, "tables", f"{TABLE}.parquet"), result)
    return result


def sample_ids(key_frames: pa.Table) -> list[str]:
    """Return the ids of all samples of `key_frames`, in the order of the finished table."""
    return [
        sample_id(row["clip_id"], row["frame"], person)
        for row in key_frames.select(["clip_id", "frame", "person_id"]).to_pylist()
        for person in row["person_id"]
    ]


def files(root: str) -> PartFiles:
    """Return the files in which rows are committed."""
    return PartFiles(storage.join(root, "parts"), SCHEMA, "sample_id")
