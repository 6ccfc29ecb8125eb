"""Batches of samples for one rank over many epochs, decoded by Ray Data tasks on any node, in a fixed order.

What a rank sees depends on the seed and the batch size alone, never on the number of decoders. One stream runs over all
epochs: starting Ray Data anew each epoch would drain the pipeline.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from microg.key_frames import check_labels
from microg.label_space import LabelSpace, label_space
from pipelines import ledger as ledgers
from pipelines.decoded import Sample, from_table, to_table
from pipelines.samples import ClipSpec, Mode, SampleBatch, View, collate, decode_rows
from pipelines.schedule import Schedule

if TYPE_CHECKING:
    from ray.data import Dataset

# Samples a decoding task makes: enough to be worth a task, few enough to keep all decoders busy.
_TASK_ROWS, _TASK_BYTES = 16, 48 * 2**20
# Tasks that one execution of Ray Data is given: one takes 0.1 s to start, and a few ms for each task it is given.
_WINDOW_TASKS = 256
# How far decoding runs ahead of a rank's consumer.
_AHEAD_BYTES = 512 * 2**20


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
