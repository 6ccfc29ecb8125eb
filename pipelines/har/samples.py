"""Key frames to training and evaluation samples, and samples to batches.

Rows carry paths; pixels exist only between the decoding task and the step that uses them. How a sample is augmented
depends on (seed, epoch, key) alone, never on who decodes it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from microg.data.key_frames import label_matrix
from microg.data.label_space import LabelSpace
from microg.errors import DatasetError, VideoError
from microg.pipelines.core.attempts import Attempts, Failure, run_batch_then_singles
from microg.pipelines.har.sample_tables import Sample

if TYPE_CHECKING:
    import torch

    from microg.models.video.clip_frames import FrameCache

Mode = Literal["train", "val", "test"]

# What a decoding process may keep of a small dataset, so that only its first epochs are decoded.
_CACHE_BYTES = 512 * 2**20
_CRASHED = "WorkerCrashed: decoding this sample kills its worker"


class ClipSpec(Protocol):
    """What decoding needs to know of a model (`microg.models.har.backbones.spec.BackboneSpec` has it)."""

    @property
    def frames(self) -> int: ...
    @property
    def sampling_rate(self) -> int: ...
    @property
    def train_crop(self) -> int: ...
    @property
    def train_jitter(self) -> tuple[int, int]: ...
    @property
    def test_short_side(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class View:
    """How samples are cut out of their videos: plain values of a `ClipSpec`, small enough to send to any node."""

    mode: Mode
    frames: int
    sampling_rate: int
    train_crop: int
    train_jitter: tuple[int, int]
    test_short_side: int
    seed: int = 0
    # Clips that come again and again, 0 for those that are shown once: a small number of them is kept decoded.
    repeated_clips: int = 0

    @classmethod
    def of(cls, spec: ClipSpec, mode: Mode, seed: int = 0, repeated_clips: int = 0) -> View:
        """Take from a model's specification what decoding needs."""
        names = ("frames", "sampling_rate", "train_crop", "train_jitter", "test_short_side")
        same: dict[str, Any] = {name: getattr(spec, name) for name in names}
        return cls(mode=mode, **same, seed=seed, repeated_clips=repeated_clips)

    @property
    def clip_bytes(self) -> int:
        """Roughly the size of one decoded clip."""
        side = self.train_crop if self.mode == "train" else self.test_short_side
        return self.frames * side * side * 3 * (2 if self.mode == "test" else 1)


@dataclass(frozen=True, kw_only=True)
class SampleBatch:
    """Samples of one size, ready for a model.

    clips (N, 3, T, H, W) uint8 RGB, in channels-last memory order (see `microg.models.har.normalise` for the model's
    input); boxes (M, 5) float32: place in the batch, x1, y1, x2, y2 in pixels; labels (M, classes) float32; keys: N
    names of key frames; sample_ids: M names of boxes; people: M (clip id, frame, person id); normalised (M, 4) float64
    boxes; errors: what could not be decoded, as (key, reason): such samples are in none of the arrays. N and M may be
    0.
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

    uri = rows[0]["uri"]
    if uri is None:
        raise VideoError(f"clip {rows[0]['clip_id']} has no video", "its uri in table 'clips' is empty")
    length = rows[0]["num_frames"] or clip_frames.count_clip_frames(uri)
    wanted = [clip_geometry.frame_indices(row["frame"], view.frames, view.sampling_rate, length) for row in rows]
    numbers = {int(number) for numbers in wanted for number in numbers}
    if view.repeated_clips:
        found = _frame_cache().read(uri, numbers, clips=view.repeated_clips)
    else:
        found = clip_frames.read_clip_frames(uri, numbers)
    samples = []
    for row, numbers in zip(rows, wanted, strict=True):
        distinct, places = np.unique(numbers, return_inverse=True)  # a clamped clip repeats its first or last frame
        frames = [found[int(number)] for number in distinct]
        normalised = np.asarray(row["boxes"], np.float64).reshape(-1, 4)
        if view.mode == "train":
            random = clip_geometry.augmentation(view.seed, epoch, row["key"])
            clip, boxes = clip_geometry.train_geometry(
                frames, normalised, crop=view.train_crop, jitter=view.train_jitter, random=random
            )
        elif view.mode == "val":
            clip, boxes = clip_geometry.val_geometry(frames, normalised, short_side=view.test_short_side)
        else:
            clip, boxes = clip_geometry.test_geometry(frames, normalised, short_side=view.test_short_side)
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
    side = view.train_crop if view.mode == "train" else view.test_short_side
    clips = np.empty((len(good), *(shapes[0] if shapes else (view.frames, side, side, 3))), np.uint8)
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
