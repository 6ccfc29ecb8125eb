"""A decoded sample, and how samples travel between processes: Arrow tables with the pixels as plain bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

SCHEMA = pa.schema(
    [
        ("epoch", pa.int32()),
        ("key", pa.string()),
        ("clip_id", pa.string()),
        ("frame", pa.int32()),
        ("person_id", pa.list_(pa.int32())),
        ("normalised", pa.list_(pa.float64())),
        ("labels", pa.list_(pa.list_(pa.int32()))),
        ("clip", pa.large_binary()),
        ("shape", pa.list_(pa.int32())),
        ("boxes", pa.list_(pa.float32())),
        ("error", pa.string()),
        ("seconds", pa.float32()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One key frame, ready for a model, or the reason why it is not.

    Attributes:
        epoch: Which pass of a training it is for.
        key: Its name; empty for padding.
        clip_id: The clip.
        frame: Its number, from 1.
        person_id: (B,).
        normalised: (B, 4) float64 boxes, as in the dataset.
        labels: The action ids of each person.
        clip: (T, h, w, 3) uint8 RGB; empty where there is an error.
        boxes: (B, 4) float32 pixels of the clip.
        error: Empty, or `type: message`.
        seconds: What decoding took.
    """

    epoch: int
    key: str = ""
    clip_id: str = ""
    frame: int = 0
    person_id: tuple[int, ...] = ()
    normalised: np.ndarray = field(default_factory=lambda: np.empty((0, 4)))
    labels: tuple[tuple[int, ...], ...] = ()
    clip: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0, 3), np.uint8))
    boxes: np.ndarray = field(default_factory=lambda: np.empty((0, 4), np.float32))
    error: str = ""
    seconds: float = 0.0


def to_table(samples: Sequence[Sample]) -> pa.Table:
    """Return samples as a table of `SCHEMA`; pixels are copied once."""
    same = ("epoch", "key", "clip_id", "frame", "person_id", "labels", "error", "seconds")
    columns: dict[str, Any] = {name: [getattr(sample, name) for sample in samples] for name in same}
    columns |= {name: [getattr(sample, name).reshape(-1) for sample in samples] for name in ("normalised", "boxes")}
    columns |= {"clip": pixel_column([sample.clip for sample in samples])}
    columns |= {"shape": [sample.clip.shape for sample in samples]}
    arrays = [
        columns[column.name] if column.name == "clip" else pa.array(columns[column.name], column.type)
        for column in SCHEMA
    ]
    return pa.table(arrays, schema=SCHEMA)


def from_table(table: pa.Table) -> list[Sample]:
    """Return the samples of a table of `SCHEMA`; their clips are read-only views of the table's memory."""
    samples = []
    for batch in table.to_batches():
        clips = pixel_views(batch["clip"])
        plain = batch.drop_columns(["clip"]).to_pylist()
        for row, pixels in zip(plain, clips, strict=True):
            samples.append(
                Sample(
                    **{name: row[name] for name in ("epoch", "key", "clip_id", "frame", "error", "seconds")},
                    person_id=tuple(row["person_id"]),
                    normalised=np.asarray(row["normalised"], np.float64).reshape(-1, 4),
                    labels=tuple(tuple(ids) for ids in row["labels"]),
                    clip=pixels.reshape(row["shape"]),
                    boxes=np.asarray(row["boxes"], np.float32).reshape(-1, 4),
                )
            )
    return samples


def pixel_column(arrays: Sequence[np.ndarray]) -> pa.LargeBinaryArray:
    """Return arrays of uint8 as a column of bytes; they are copied once."""
    parts = [np.ascontiguousarray(array).reshape(-1) for array in arrays]
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    data = np.concatenate(parts) if parts else np.empty(0, np.uint8)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_binary(), len(parts), buffers)


def pixel_views(column: pa.LargeBinaryArray) -> list[np.ndarray]:
    """Return the arrays of `pixel_column`, flat: read-only views of the column's memory."""
    _, offsets, data = column.buffers()
    edges = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    pixels = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    return [pixels[a:b] for a, b in pairwise(edges)]
