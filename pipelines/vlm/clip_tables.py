"""Decoded clips with their questions, and how they travel from the decoding task to the engine: pixels as plain bytes.

A clip is decoded once; all questions about it share the frames.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from microg.arrow import parse_schema
from microg.errors import VideoError, describe
from microg.models.vlm.base import Frames
from microg.models.vlm.sampling import FramePolicy
from microg.pipelines.core.attempts import Attempts, Failure, run_batch_then_singles
from microg.pipelines.core.stage import Stage
from microg.pipelines.har.samples import pixel_column, pixel_views
from microg.pipelines.vlm.questions import CLIPS, QUESTION
from microg.texts.items import ItemKey

_CRASHED = "WorkerCrashed: decoding this clip kills its worker"

SCHEMA = parse_schema(
    "clip_id: string, task: [string], qa_index: [int32], question: [string], pixels: large_binary, shape indices: "
    "[int32], fps: float64, num_frames: int32, frame_hash error: string, seconds: float32"
)


@dataclass(frozen=True)
class Question:
    """One request about a clip; `text` is None for a caption."""

    item: ItemKey
    text: str | None


@dataclass(frozen=True)
class DecodedClip:
    """A clip's frames, or why there are none (`error`), the questions about it, and the seconds that decoding took."""

    clip_id: str
    questions: tuple[Question, ...]
    frames: Frames | None = None
    error: str = ""
    seconds: float = 0.0


def decode_block(
    block: pa.Table, *, policy: FramePolicy, decoder: str = "auto", attempts: Attempts | None = None
) -> pa.Table:
    """Decode a block of `microg.pipelines.vlm.questions.CLIPS` to `SCHEMA`; a clip that cannot be decoded carries its
    error.
    """
    import cv2

    cv2.setNumThreads(1)

    def decode(rows: Sequence[dict[str, Any]]) -> list[DecodedClip]:
        return [_decode(row, policy, decoder) for row in rows]

    rows = block.to_pylist()
    clips = run_batch_then_singles(decode, rows, name=lambda row: row["clip_id"], crashed=_CRASHED, attempts=attempts)
    return to_table(
        [
            DecodedClip(row["clip_id"], _questions_of(row), error=clip.error) if isinstance(clip, Failure) else clip
            for row, clip in zip(rows, clips, strict=True)
        ]
    )


def _decode(row: dict[str, Any], policy: FramePolicy, decoder: str) -> DecodedClip:
    from microg.models.vlm.frames import sample_frames

    started = time.monotonic()
    frames, error = None, ""
    try:
        if row["uri"] is None:
            raise VideoError(f"clip {row['clip_id']} has no video", "its uri in table 'clips' is empty")
        frames = sample_frames(row["uri"], [policy], key_frame=row["key_frame"], decoder=decoder)[0]
        assert frames.sha256  # here, where many processes work, and not in the engine's
    except Exception as problem:
        error = describe(problem)
    return DecodedClip(row["clip_id"], _questions_of(row), frames, error, time.monotonic() - started)


def to_table(clips: Sequence[DecodedClip]) -> pa.Table:
    """Return clips as a table of `SCHEMA`; pixels are copied once."""
    none = np.empty(0, np.uint8)
    rows = [
        {
            "clip_id": clip.clip_id,
            "error": clip.error,
            "seconds": clip.seconds,
            "task": [question.item.task for question in clip.questions],
            "qa_index": [question.item.qa_index for question in clip.questions],
            "question": [question.text for question in clip.questions],
            **({} if clip.frames is None else _frame_columns(clip.frames)),
        }
        for clip in clips
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    pixels = pixel_column([none if clip.frames is None else clip.frames.pixels for clip in clips])
    return table.set_column(SCHEMA.get_field_index("pixels"), SCHEMA.field("pixels"), pixels)


def _frame_columns(frames: Frames) -> dict[str, Any]:
    columns = {name: getattr(frames, name) for name in ("indices", "fps", "num_frames")}
    return {**columns, "shape": frames.pixels.shape, "frame_hash": frames.sha256}


def from_table(table: pa.Table) -> list[DecodedClip]:
    """Return the clips of a table of `SCHEMA`; pixels are read-only views of the table's memory."""
    clips = []
    for batch in table.to_batches():
        views = pixel_views(batch["pixels"])
        for row, pixels in zip(batch.drop_columns(["pixels"]).to_pylist(), views, strict=True):
            frames = None
            if row["shape"] is not None:
                indices = tuple(row["indices"])
                frames = Frames(pixels.reshape(row["shape"]), indices, row["fps"], row["num_frames"])
                vars(frames)["sha256"] = row["frame_hash"]  # as its `cached_property` would
            clips.append(DecodedClip(row["clip_id"], _questions_of(row), frames, row["error"], row["seconds"]))
    return clips


def _questions_of(row: dict[str, Any]) -> tuple[Question, ...]:
    return tuple(
        Question(ItemKey(task, row["clip_id"], index), text)
        for task, index, text in zip(*(row[name] for name in QUESTION), strict=True)
    )


DECODE = Stage(name="decode", work=decode_block, reads=CLIPS, writes=SCHEMA)
