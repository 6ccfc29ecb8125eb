"""Key frames to training and evaluation samples: decoded by Ray Data tasks on any node, streamed in a fixed order.

Rows carry paths; pixels exist only between the decoding task and the step that uses them. What a rank sees, in which
order and how augmented, depends on (seed, epoch, key) and the batch size alone, never on the number of decoders.
One stream runs over all epochs: starting Ray Data anew each epoch would cost seconds and drain the pipeline.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import pyarrow as pa

from microg.errors import DatasetError, VideoError
from microg.key_frames import check_labels, label_matrix
from microg.label_space import LabelSpace, label_space
from pipelines import ledger as ledgers
from pipelines.decoded import Sample, from_table, to_table
from pipelines.schedule import Schedule

if TYPE_CHECKING:
    import torch
    from ray.data import Dataset

    from models.clip_source import FrameCache

Mode = Literal["train", "val", "test"]

# Samples a decoding task makes: enough to be worth a task, few enough to keep all decoders busy.
_TASK_ROWS, _TASK_BYTES = 16, 48 * 2**20
# Tasks that one execution of Ray Data is given: one takes 0.1 s to start, and a few ms for each task it is given.
_WINDOW_TASKS = 256
# How far decoding runs ahead of a rank's consumer.
_AHEAD_BYTES = 512 * 2**20
# What a decoding process may keep of a small dataset, so that only its first epochs are decoded.
_CACHE_BYTES = 256 * 2**20
_CRASHED = "WorkerCrashed: decoding this sample kills its worker"


class ClipSpec(Protocol):
    """What decoding needs to know of a model (`models.backbones.registry.BackboneSpec` has it)."""

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


@dataclass(frozen=True)
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
        return cls(
            mode, spec.frames, spec.sampling_rate, spec.train_crop, (spec.train_jitter[0], spec.train_jitter[1]),
            spec.test_short_side, seed, repeated_clips,
        )  # fmt: skip

    @property
    def clip_bytes(self) -> int:
        """Roughly the size of one decoded clip."""
        side = self.train_crop if self.mode == "train" else self.test_short_side
        return self.frames * side * side * 3 * (2 if self.mode == "test" else 1)


@dataclass(frozen=True)
class SampleBatch:
    """Samples of one size, ready for a model.

    clips (N, 3, T, H, W) uint8 RGB, in channels-last memory order (see `models.normalise` for the model's input);
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
    epoch: int
    step: int


@dataclass
class WaitMeter:
    """How long the consumer of a stream waited for data, of the time it took in all."""

    wait_s: float = 0.0
    total_s: float = 0.0
    decode_s: float = 0.0
    samples: int = 0
    failed: int = 0
    _last: float | None = field(default=None, repr=False)

    @property
    def share(self) -> float:
        """Share of the time that was waiting, 0 to 1."""
        return self.wait_s / self.total_s if self.total_s else 0.0

    def reset(self) -> None:
        """Start to count anew, for example at an epoch's start."""
        self.wait_s = self.total_s = self.decode_s = 0.0
        self.samples = self.failed = 0

    def waiting(self) -> float:
        """Say that the consumer asks for data now; time since the last answer was its work."""
        now = time.monotonic()
        if self._last is not None:
            self.total_s += now - self._last
        return now

    def arrived(self, asked: float, samples: Sequence[Sample]) -> None:
        """Say that data came that was asked for at `asked`."""
        self._last = time.monotonic()
        self.wait_s += self._last - asked
        self.total_s += self._last - asked
        self.decode_s += sum(sample.seconds for sample in samples)
        self.samples += len(samples)
        self.failed += sum(bool(sample.error) for sample in samples)


@dataclass(frozen=True)
class SampleStream:
    """Batches of one rank over all epochs of a schedule; iterate it once. `meter` tells the share of waiting."""

    rows: pa.Table
    view: View
    space: LabelSpace
    schedule: Schedule
    decoders: int
    cpus: float
    meter: WaitMeter = field(default_factory=WaitMeter)

    def __iter__(self) -> Iterator[SampleBatch]:
        return self.batches()

    def batches(self) -> Iterator[SampleBatch]:
        """Yield one batch a step: all of the rank's samples in it, whatever failed to decode told in `errors`."""
        source = self._samples()
        for epoch, step, count in self.schedule.batches():
            asked = self.meter.waiting()
            samples = [next(source) for _ in range(count)]
            batch = collate(samples, self.view, self.space, epoch=epoch, step=step)
            self.meter.arrived(asked, samples)
            yield batch

    def dataset(self, first: int = 0, last: int | None = None) -> Dataset:
        """Return decoded samples as a Ray dataset (rows of `pipelines.decoded.SCHEMA`), in the rank's order.

        `first` and `last` bound the places in that order, counted over all epochs. The work is given as blocks in
        memory: a read operator would cost two tasks a block, and most of a minute to plan for many epochs.
        """
        import ray

        last = self.places if last is None else last
        work = partial(
            _decode_block, rows=ray.put(self.rows), view=self.view, schedule=self.schedule,
            ledger=ledgers.process_ledger(), stream=uuid.uuid4().hex,
        )  # fmt: skip
        rows = self._task_rows()
        blocks = [
            pa.table({"place": np.arange(start, min(start + rows, last), dtype=np.int64)})
            for start in range(first, last, rows)
        ]
        dataset = ray.data.from_arrow(blocks).map_batches(
            work, batch_size=None, batch_format="pyarrow", num_cpus=self.cpus,
            compute=ray.data.TaskPoolStrategy(size=self.decoders),
        )  # fmt: skip
        options = dataset.context.execution_options
        options.preserve_order = True
        options.resource_limits = ray.data.ExecutionResources.for_limits(object_store_memory=_AHEAD_BYTES)
        return dataset

    @property
    def places(self) -> int:
        """Samples of the rank over all epochs."""
        return self.schedule.rank_rows * len(self.schedule.epochs)

    def _task_rows(self) -> int:
        share = -(-self.schedule.rank_batch(0) // self.decoders)
        return max(1, min(_TASK_ROWS, _TASK_BYTES // self.view.clip_bytes, max(share, _TASK_ROWS // 4)))

    def _samples(self) -> Iterator[Sample]:
        if self.decoders == 0:
            for epoch in self.schedule.epochs:
                for index in self.schedule.rank_order(epoch):
                    yield from decode_rows(self.rows.slice(index, 1).to_pylist(), self.view, epoch)
            return
        window = _WINDOW_TASKS * self._task_rows()
        for first in range(0, self.places, window):
            dataset = self.dataset(first, min(first + window, self.places))
            for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2):
                yield from from_table(table)


def sample_stream(
    rows: pa.Table,
    spec: ClipSpec,
    mode: Mode,
    *,
    label_space: str | LabelSpace,
    seed: int = 0,
    batch_size: int,
    epochs: range = range(1),
    shuffle: bool | None = None,
    drop_last: bool = False,
    rank: int = 0,
    world_size: int = 1,
    decoders: int = 2,
    cpus: float = 1.0,
) -> SampleStream:
    """Stream the key frames `rows` (`microg.key_frames.KEY_FRAMES`) through `epochs` as batches of one rank.

    `batch_size` is that of all ranks together. `shuffle` defaults to shuffling when training. `decoders` is how many
    tasks of `cpus` CPUs decode for this rank at once on the connected Ray; 0 decodes in this process without Ray.
    Raises `DatasetError` for labels outside the label space and `ConfigError` for sizes that cannot work.
    """
    space = _space(label_space)
    check_labels(rows, space)
    schedule = Schedule(
        rows.num_rows, batch_size, epochs.start, epochs.stop, mode == "train" if shuffle is None else shuffle, seed,
        drop_last, rank, world_size,
    )  # fmt: skip
    view = View.of(spec, mode, seed, rows.num_rows if len(epochs) > 1 else 0)
    return SampleStream(rows, view, space, schedule, decoders, cpus)


def _space(name: str | LabelSpace) -> LabelSpace:
    return label_space(name) if isinstance(name, str) else name


def _decode_block(
    block: pa.Table, *, rows: Any, view: View, schedule: Schedule, ledger: Any, stream: str
) -> pa.Table:  # fmt: skip
    """Decode the samples at the places `block["place"]` of a rank's order over all epochs."""
    import ray

    table: pa.Table = ray.get(rows)
    samples = []
    places = [divmod(place, schedule.rank_rows) for place in block["place"].to_pylist()]
    for number, group in groupby(places, key=lambda place: place[0]):
        epoch = schedule.epochs[number]
        chosen = schedule.rank_order(epoch)[[place for _, place in group]]
        samples += decode_rows(table.take(pa.array(chosen)).to_pylist(), view, epoch, ledger=ledger, scope=stream)
    return to_table(samples)


def decode_rows(
    rows: Sequence[dict[str, Any]], view: View, epoch: int = 0, *, ledger: Any = None, scope: str = ""
) -> list[Sample]:
    """Decode key frames; neighbours of one video are decoded together. A failure becomes a sample with an error.

    With a `ledger`, where `scope` sets apart what shares it, a sample that killed its worker twice is an error as well.
    """
    import cv2

    cv2.setNumThreads(1)

    def decode(group: Sequence[dict[str, Any]]) -> list[Sample]:
        started = time.monotonic()
        samples = _cut(group, view, epoch)
        seconds = (time.monotonic() - started) / len(samples)
        return [replace(sample, seconds=seconds) for sample in samples]

    samples: list[Sample] = []
    for _, group in groupby(rows, key=lambda row: (row["uri"], row["num_frames"])):
        samples += ledgers.together_or_alone(
            decode, list(group), name=lambda row: row["key"], ledger=ledger, scope=f"{scope}/{epoch}",
            failed=lambda row, error: _sample(row, epoch, error=error), crashed=_CRASHED,
        )  # fmt: skip
    return samples


@lru_cache(maxsize=1)
def _frame_cache() -> FrameCache:
    from models.clip_source import FrameCache

    return FrameCache(_CACHE_BYTES)


def _cut(rows: Sequence[dict[str, Any]], view: View, epoch: int) -> list[Sample]:
    from models import clip_geometry, clip_source

    uri = rows[0]["uri"]
    if uri is None:
        raise VideoError(f"clip {rows[0]['clip_id']} has no video", "its uri in table 'clips' is empty")
    length = rows[0]["num_frames"] or clip_source.clip_length(uri)
    wanted = [clip_geometry.frame_indices(row["frame"], view.frames, view.sampling_rate, length) for row in rows]
    numbers = {int(number) for numbers in wanted for number in numbers}
    if view.repeated_clips:
        found = _frame_cache().read_clip(uri, numbers, clips=view.repeated_clips)
    else:
        found = clip_source.read_clip(uri, numbers)
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
        epoch=epoch, key=row["key"], clip_id=row["clip_id"], frame=row["frame"], person_id=tuple(row["person_id"]),
        normalised=np.asarray(row["boxes"], np.float64).reshape(-1, 4),
        labels=tuple(tuple(ids) for ids in row["labels"]), **more,
    )  # fmt: skip


def collate(samples: Sequence[Sample], view: View, space: LabelSpace, *, epoch: int = 0, step: int = 0) -> SampleBatch:
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
        epoch=epoch,
        step=step,
    )
