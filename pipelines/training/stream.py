"""The stream of a whole run: units of the plan, decoded by Ray Data tasks on any node, dealt out to the workers.

One execution serves all epochs with their validations: starting Ray Data anew for each would cost seconds, and decoding
goes on while a worker validates or saves.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa

from microg.errors import WorkerError
from microg.label_space import LabelSpace
from pipelines import ledger as ledgers
from pipelines.decoded import SCHEMA, Sample, from_table, to_table
from pipelines.samples import SampleBatch, View, by_size, collate, decode_rows
from pipelines.training.plan import PADDING, Plan, Position

if TYPE_CHECKING:
    from ray.data import Dataset

T = TypeVar("T")
# A step of a large model on a laptop takes minutes, and while the workers' buffers are full nothing moves.
_NO_PROGRESS_TIMEOUT_S = 24 * 3600
_RANGE_BLOCK = 1024


@dataclass(frozen=True)
class Views:
    """How key frames of the train and the val split are cut out of their videos."""

    train: View
    val: View


def run_dataset(plan: Plan, start: Position, rows: tuple[pa.Table, pa.Table], views: Views, *, cpus: float) -> Dataset:
    """Return the decoded units from `start` to the end of the run, one block each, in order.

    `rows` are the key frames of train and val; decoding tasks declare `cpus` CPUs.
    """
    import ray

    from pipelines import session

    session.configure_data()
    ray.data.DataContext.get_current().execution_no_progress_timeout_s = _NO_PROGRESS_TIMEOUT_S
    first = plan.first_unit(start)
    count = plan.units - first
    work = partial(
        _decode_units, plan=plan, first=first, rows=(ray.put(rows[0]), ray.put(rows[1])), views=views,
        ledger=ledgers.process_ledger(),
    )  # fmt: skip
    # one row a block: a task decodes one unit, and a block is what is dealt out
    numbers = ray.data.range(count, override_num_blocks=-(-count // _RANGE_BLOCK))
    return numbers.repartition(target_num_rows_per_block=1).map_batches(
        work, batch_size=1, batch_format="pyarrow", num_cpus=cpus
    )


def _decode_units(
    block: pa.Table, *, plan: Plan, first: int, rows: tuple[Any, Any], views: Views, ledger: Any
) -> pa.Table:
    import ray

    tables = []
    for place in block["id"].to_pylist():
        unit = plan.unit(first + place)
        table: pa.Table = ray.get(rows[1 if unit.validation else 0])
        view = views.val if unit.validation else views.train
        samples = decode_unit(unit.keys, table, view, unit.epoch, ledger)
        tables.append(samples.append_column("unit", pa.array([unit.number] * samples.num_rows, pa.int64())))
    return pa.concat_tables(tables)


def decode_unit(keys: Iterable[int], rows: pa.Table, view: View, epoch: int, ledger: Any = None) -> pa.Table:
    """Decode the key frames at `keys` of `rows`; padding becomes a row without a key, so that all units are alike."""
    keys = tuple(keys)
    wanted = [key for key in keys if key != PADDING]
    samples = decode_rows(rows.take(pa.array(wanted, pa.int64())).to_pylist(), view, epoch, ledger=ledger)
    nothing = Sample(epoch, "", "", 0, (), np.empty((0, 4)), ())
    return to_table([*samples, *[nothing] * (len(keys) - len(wanted))])


@dataclass(frozen=True)
class Piece:
    """What a worker computes at once: a micro-batch, or a part of validation (several batches where sizes differ)."""

    validation: bool
    batches: tuple[SampleBatch, ...]
    errors: tuple[tuple[str, str], ...]


def pieces(
    blocks: Iterator[pa.Table], plan: Plan, worker: int, start: Position, views: Views, space: LabelSpace
) -> Iterator[Piece]:
    """Yield what `worker` computes from `start` on, in order, from its blocks of the stream.

    Raises `WorkerError` when a block is not the one due: no sample is lost or taken twice unnoticed.
    """
    due = plan.units_of(worker, start)
    for epoch in range(start.epoch, plan.epochs):
        first = start.iteration if epoch == start.epoch else 0
        for _ in range((plan.iterations - first) * plan.micro_batches):
            samples = [sample for _ in range(plan.blocks) for sample in _take(blocks, next(due))]
            yield _piece(samples, views.train, space, validation=False)
        left = plan.val_rounds if plan.validates(epoch) else 0
        while left:
            count = min(plan.blocks, left)
            left -= count
            samples = [sample for _ in range(count) for sample in _take(blocks, next(due))]
            yield _piece(samples, views.val, space, validation=True)


def _take(blocks: Iterator[pa.Table], due: int) -> list[Sample]:
    table = next(blocks, None)
    if table is None:
        raise WorkerError(f"the stream of samples ended before unit {due}", "run the same command again to resume")
    number = table["unit"][0].as_py()
    if number != due:
        raise WorkerError(f"unit {due} of the samples was due, {number} came", "run the same command again to resume")
    return [sample for sample in from_table(table.select(SCHEMA.names)) if sample.key]


def _piece(samples: list[Sample], view: View, space: LabelSpace, *, validation: bool) -> Piece:
    batches = by_size([sample for sample in samples if not sample.error])
    errors = tuple((sample.key, sample.error) for sample in samples if sample.error)
    return Piece(validation, tuple(collate(batch, view, space) for batch in batches), errors)


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
