"""The stream of a whole run: units of the plan, decoded by Ray Data tasks on any node, dealt out to the workers.

One execution serves all epochs with their validations: starting Ray Data anew for each would cost seconds, and decoding
goes on while a worker validates or saves.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from microg.data.label_space import LabelSpace
from microg.errors import WorkerError
from microg.pipelines.core.attempts import Attempts
from microg.pipelines.core.stage import Pipeline, Stage, build_dataset
from microg.pipelines.har.samples import (
    SCHEMA,
    Sample,
    SampleBatch,
    View,
    by_size,
    collate,
    decode_rows,
    from_table,
    to_table,
)
from microg.pipelines.har.train.plan import PADDING, Plan, Position

if TYPE_CHECKING:
    from ray.data import Dataset

T = TypeVar("T")
# A step of a large model on a laptop takes minutes, and while the workers' buffers are full nothing moves.
_NO_PROGRESS_TIMEOUT_S = 24 * 3600
_RANGE_BLOCK = 1024
_LOT_UNITS, _LOT_BYTES = 16, 16 * 2**20


@dataclass(frozen=True)
class Views:
    """How key frames of the train and the val split are cut out of their videos."""

    train: View
    val: View


def run_dataset(plan: Plan, start: Position, rows: tuple[pa.Table, pa.Table], views: Views, *, cpus: float) -> Dataset:
    """Return the decoded units from `start` to the end of the run, one lot a block, in order.

    `rows` are the key frames of train and val; decoding tasks declare `cpus` CPUs.
    """
    import ray

    from microg.pipelines.core import session

    session.configure_data()
    ray.data.DataContext.get_current().execution_no_progress_timeout_s = _NO_PROGRESS_TIMEOUT_S
    lots = Lots.of(plan, start, max(views.train.clip_bytes, views.val.clip_bytes))
    decode = DECODE.bound(plan=plan, lots=lots, rows=(ray.put(rows[0]), ray.put(rows[1])), views=views)
    numbers = ray.data.range(lots.count, override_num_blocks=-(-lots.count // _RANGE_BLOCK))
    return build_dataset(PIPELINE.with_stages(replace(decode, cpus=cpus)), numbers)


@dataclass(frozen=True)
class Lots:
    """Units of one worker that one task decodes: lot `number` goes to worker `number % workers`.

    Ray Data's scheduling takes tens of milliseconds of a core for each block, whatever is in it: with blocks of one
    unit it took as much of a laptop as a small model did.
    """

    first: int
    end: int
    workers: int
    size: int

    @classmethod
    def of(cls, plan: Plan, start: Position, clip_bytes: int) -> Lots:
        """Return the lots from `start` on, of some megabytes each."""
        size = max(1, min(_LOT_UNITS, _LOT_BYTES // max(plan.block * clip_bytes, 1)))
        return cls(plan.first_unit(start), plan.units, plan.workers, size)

    @property
    def count(self) -> int:
        """Number of lots; as many for each worker."""
        return -(-(self.end - self.first) // (self.workers * self.size)) * self.workers

    def units(self, number: int) -> range:
        """Return the numbers of the units of a lot."""
        turn, worker = divmod(number, self.workers)
        begin = self.first + turn * self.size * self.workers
        return range(begin + worker, min(begin + self.size * self.workers, self.end), self.workers)


def decode_lots(
    block: pa.Table, *, plan: Plan, lots: Lots, rows: tuple[Any, Any], views: Views, attempts: Attempts
) -> pa.Table:
    """Decode the lots of which a block has the numbers; `rows` refer to the key frames of train and val."""
    import ray

    train_rows, val_rows = ray.get(list(rows))
    tables = []
    for unit in (plan.unit(number) for lot in block["id"].to_pylist() for number in lots.units(lot)):
        table, view = (val_rows, views.val) if unit.validation else (train_rows, views.train)
        samples = decode_unit(unit.keys, table, view, unit.epoch, attempts)
        tables.append(samples.append_column("unit", pa.array([unit.number] * samples.num_rows, pa.int64())))
    return pa.concat_tables(tables)


def decode_unit(
    keys: Iterable[int], rows: pa.Table, view: View, epoch: int, attempts: Attempts | None = None
) -> pa.Table:
    """Decode the key frames at `keys` of `rows`; padding becomes a row without a key, so that all units are alike."""
    keys = tuple(keys)
    wanted = [key for key in keys if key != PADDING]
    samples = decode_rows(rows.take(pa.array(wanted, pa.int64())).to_pylist(), view, epoch, attempts=attempts)
    return to_table([*samples, *[Sample(epoch=epoch)] * (len(keys) - len(wanted))])


# One lot a call, and so one lot a block: a block is what is dealt out.
_LOT_NUMBERS = pa.schema([("id", pa.int64())])
DECODE = Stage(
    name="decode", work=decode_lots, reads=_LOT_NUMBERS, writes=SCHEMA.append(pa.field("unit", pa.int64())), rows=1
)
PIPELINE = Pipeline(name="train samples", source=_LOT_NUMBERS, stages=(DECODE,))


@dataclass(frozen=True)
class Piece:
    """What a worker computes at once: a micro-batch, or a part of validation (several batches where sizes differ)."""

    validation: bool
    batches: tuple[SampleBatch, ...]
    errors: tuple[tuple[str, str], ...]


def pieces(
    blocks: Iterator[pa.Table], plan: Plan, worker: int, start: Position, views: Views, space: LabelSpace
) -> Iterator[Piece]:
    """Yield what `worker` computes from `start` on, in order, from its blocks (one or more units each) of the stream.

    Raises `WorkerError` when a unit is not the one due: no sample is lost or taken twice unnoticed.
    """
    samples = _samples(blocks, plan, worker, start)
    for epoch in range(start.epoch, plan.epochs):
        first = start.iteration if epoch == start.epoch else 0
        for _ in range((plan.iterations - first) * plan.micro_batches):
            found = [sample for _ in range(plan.blocks) for sample in next(samples)]
            yield _piece(found, views.train, space, validation=False)
        left = plan.val_rounds if plan.validates(epoch) else 0
        while left:
            count = min(plan.blocks, left)
            left -= count
            found = [sample for _ in range(count) for sample in next(samples)]
            yield _piece(found, views.val, space, validation=True)


def _samples(blocks: Iterator[pa.Table], plan: Plan, worker: int, start: Position) -> Iterator[list[Sample]]:
    """Yield the samples of each unit of `worker`, padding left out."""
    due = plan.units_of(worker, start)
    for block in blocks:
        for first in range(0, block.num_rows, plan.block):
            table = block.slice(first, plan.block)
            number, wanted = table["unit"][0].as_py(), next(due)
            if number != wanted:
                raise WorkerError(
                    f"unit {wanted} of the samples was due, {number} came", "run the same command again to resume"
                )
            yield [sample for sample in from_table(table.select(SCHEMA.names)) if sample.key]
    left = next(due, None)
    if left is not None:
        raise WorkerError(f"the stream of samples ended before unit {left}", "run the same command again to resume")


def _piece(samples: list[Sample], view: View, space: LabelSpace, *, validation: bool) -> Piece:
    batches = by_size([sample for sample in samples if not sample.error])
    errors = tuple((sample.key, sample.error) for sample in samples if sample.error)
    return Piece(validation, tuple(collate(batch, view, space) for batch in batches), errors)


def pinned(piece: Piece) -> Piece:
    """Return a piece in page-locked memory, from which a GPU copies while it computes."""
    batches = tuple(
        replace(batch, clips=batch.clips.pin_memory(), boxes=batch.boxes.pin_memory(), labels=batch.labels.pin_memory())
        for batch in piece.batches
    )
    return replace(piece, batches=batches)


def ahead(source: Iterator[T], depth: int) -> Iterator[T]:
    """Yield what `source` yields, made ready by a thread up to `depth` items ahead; its errors come through."""
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=depth)
    closed = threading.Event()

    def put(item: tuple[str, Any]) -> bool:
        while not closed.is_set():
            try:
                ready.put(item, timeout=0.5)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in source:
                if not put(("item", item)):
                    return
            put(("end", None))
        except BaseException as error:
            put(("error", error))

    threading.Thread(target=work, daemon=True, name="samples-ahead").start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        closed.set()
