"""Key frames to training and evaluation samples, and samples to batches.

Rows carry paths; pixels exist only between the decoding task and the step that uses them. How a sample is augmented
depends on (seed, epoch, key) alone, never on who decodes it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from microg.arrow import parse_schema
from microg.data.key_frames import label_matrix
from microg.data.label_space import LabelSpace
from microg.errors import DatasetError, VideoError
from microg.models.har.backbones.spec import BackboneSpec
from microg.pipelines.core.attempts import Attempts, Failure, run_batch_then_singles

if TYPE_CHECKING:
    import torch

    from microg.models.video.clip_frames import FrameCache


SCHEMA = parse_schema(
    "epoch: int32, key clip_id: string, frame: int32, person_id: [int32], normalised: [float64], labels: [[int32]], "
    "clip: large_binary, shape: [int32], boxes: [float32], error: string, seconds: float32"
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


Mode = Literal["train", "val", "test"]

# What a decoding process may keep of a small dataset, so that only its first epochs are decoded.
_CACHE_BYTES = 512 * 2**20
_CRASHED = "WorkerCrashed: decoding this sample kills its worker"


@dataclass(frozen=True, kw_only=True)
class View:
    """How samples are cut out of their videos for the model `spec`; small enough to send to any node.

    `repeated_clips` counts clips that come again and again, 0 for those shown once: a small number is kept decoded.
    `decoder` reads the videos.
    """

    spec: BackboneSpec
    mode: Mode
    seed: int = 0
    repeated_clips: int = 0
    decoder: str = "auto"

    @property
    def side(self) -> int:
        """Short side of a clip in pixels."""
        return self.spec.train_crop if self.mode == "train" else self.spec.test_short_side

    @property
    def clip_bytes(self) -> int:
        """Roughly the size of one decoded clip."""
        return self.spec.frames * self.side**2 * 3 * (2 if self.mode == "test" else 1)


@dataclass(frozen=True, kw_only=True)
class SampleBatch:
    """Samples of one size, ready for a model.

    clips (N, 3, T, H, W) uint8 RGB, in channels-last memory order (`roi_head.normalise` makes the model's input);
    boxes (M, 5) float32: place in the batch, x1, y1, x2, y2 in pixels; labels (M, classes) float32; keys: N names of
    key frames; sample_ids: M names of boxes; people: M (clip id, frame, person id); normalised (M, 4) float64 boxes;
    errors: what could not be decoded, as (key, reason): such samples are in none of the arrays. N and M may be 0.
    """

    clips: torch.Tensor
    boxes: torch.Tensor
    labels: torch.Tensor
    keys: tuple[str, ...]
    sample_ids: tuple[str, ...]
    people: tuple[tuple[str, int, int], ...]
    normalised: np.ndarray
    errors: tuple[tuple[str, str], ...]


def decode_rows(
    rows: Sequence[dict[str, Any]], view: View, epoch: int = 0, *, attempts: Attempts | None = None
) -> list[Sample]:
    """Decode key frames; neighbours of one video are decoded together. A failure becomes a sample with an error.

    With `attempts` counted, a sample that killed its worker twice is an error as well.
    """
    import cv2

    cv2.setNumThreads(1)

    def decode(group: Sequence[dict[str, Any]]) -> list[Sample]:
        started = time.monotonic()
        samples = _cut(group, view, epoch)
        seconds = (time.monotonic() - started) / len(samples)
        return [replace(sample, seconds=seconds) for sample in samples]

    attempts = None if attempts is None else attempts.within(str(epoch))
    samples: list[Sample] = []
    for _, neighbours in groupby(rows, key=lambda row: (row["uri"], row["num_frames"])):
        group = list(neighbours)
        found = run_batch_then_singles(decode, group, name=lambda row: row["key"], crashed=_CRASHED, attempts=attempts)
        samples += [
            _sample(row, epoch, error=one.error) if isinstance(one, Failure) else one
            for row, one in zip(group, found, strict=True)
        ]
    return samples


@lru_cache(maxsize=1)
def _frame_cache() -> FrameCache:
    from microg.models.video.clip_frames import FrameCache

    return FrameCache(_CACHE_BYTES)


def _cut(rows: Sequence[dict[str, Any]], view: View, epoch: int) -> list[Sample]:
    from microg.models.har import clip_geometry
    from microg.models.video import clip_frames

    uri, spec = rows[0]["uri"], view.spec
    if uri is None:
        raise VideoError(f"clip {rows[0]['clip_id']} has no video", "its uri in table 'clips' is empty")
    length = rows[0]["num_frames"] or clip_frames.count_clip_frames(uri)
    wanted = [clip_geometry.frame_indices(row["frame"], spec.frames, spec.sampling_rate, length) for row in rows]
    numbers = {int(number) for numbers in wanted for number in numbers}
    if view.repeated_clips:
        found = _frame_cache().read(uri, numbers, clips=view.repeated_clips, decoder=view.decoder)
    else:
        found = clip_frames.read_clip_frames(uri, numbers, view.decoder)
    samples = []
    for row, numbers in zip(rows, wanted, strict=True):
        distinct, places = np.unique(numbers, return_inverse=True)  # a clamped clip repeats its first or last frame
        frames = [found[int(number)] for number in distinct]
        normalised = np.asarray(row["boxes"], np.float64).reshape(-1, 4)
        if view.mode == "train":
            random = clip_geometry.augmentation(view.seed, epoch, row["key"])
            clip, boxes = clip_geometry.train_geometry(
                frames, normalised, crop=view.side, jitter=view.spec.train_jitter, random=random
            )
        else:
            cut = clip_geometry.val_geometry if view.mode == "val" else clip_geometry.test_geometry
            clip, boxes = cut(frames, normalised, short_side=view.side)
        clip = clip if len(distinct) == len(numbers) else clip[places]
        samples.append(_sample(row, epoch, clip=clip, boxes=boxes))
    return samples


def _sample(row: dict[str, Any], epoch: int, **more: Any) -> Sample:
    return Sample(
        epoch=epoch,
        key=row["key"],
        clip_id=row["clip_id"],
        frame=row["frame"],
        person_id=tuple(row["person_id"]),
        normalised=np.asarray(row["boxes"], np.float64).reshape(-1, 4),
        labels=tuple(tuple(ids) for ids in row["labels"]),
        **more,
    )


def by_size(samples: Sequence[Sample], batch_size: int | None = None) -> list[list[Sample]]:
    """Return batches of samples whose clips have the same size, of at most `batch_size`; a size's order is kept."""
    groups: dict[tuple[int, ...], list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.clip.shape, []).append(sample)
    step = batch_size or max(len(samples), 1)
    return [group[start : start + step] for group in groups.values() for start in range(0, len(group), step)]


def collate(samples: Sequence[Sample], view: View, space: LabelSpace) -> SampleBatch:
    """Put samples of one size together; those that failed are told in `errors` only.

    Raises `DatasetError` when sizes differ: uncropped test clips are batched by size (see `by_size`).
    """
    import torch

    good = [sample for sample in samples if not sample.error]
    shapes = sorted({sample.clip.shape for sample in good})
    if len(shapes) > 1:
        raise DatasetError(f"clips of different sizes cannot be one batch: {shapes}", "batch them by size")
    shape = shapes[0] if shapes else (view.spec.frames, view.side, view.side, 3)
    clips = np.empty((len(good), *shape), np.uint8)
    for target, sample in zip(clips, good, strict=True):
        target[:] = sample.clip
    people = [(s.clip_id, s.frame, person) for s in good for person in s.person_id]
    place = np.repeat(np.arange(len(good), dtype=np.float32), [len(sample.person_id) for sample in good])
    boxes = np.concatenate([np.empty((0, 4), np.float32), *(sample.boxes for sample in good)])
    return SampleBatch(
        # the memory stays (N, T, H, W, 3): this is channels-last, and the copy to a device keeps it
        clips=torch.from_numpy(clips).permute(0, 4, 1, 2, 3),
        boxes=torch.from_numpy(np.concatenate([place[:, None], boxes], axis=1)),
        labels=torch.from_numpy(label_matrix([ids for sample in good for ids in sample.labels], space)),
        keys=tuple(sample.key for sample in good),
        sample_ids=tuple(f"{clip_id}:{frame}:{person}" for clip_id, frame, person in people),
        people=tuple(people),
        normalised=np.concatenate([np.empty((0, 4)), *(sample.normalised for sample in good)]),
        errors=tuple((sample.key, sample.error) for sample in samples if sample.error),
    )
