"""The key frames of a whole run: units of the plan, decoded by Ray Data tasks on any node, dealt out to the workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from microg.data.label_space import LabelSpace
from microg.pipelines.core.attempts import Attempts
from microg.pipelines.core.stage import Pipeline, Stage
from microg.pipelines.core.training.lots import LOT_NUMBERS, Lots, stream_of, units_in_order
from microg.pipelines.core.training.plan import PADDING, Plan, Position
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

if TYPE_CHECKING:
    from ray.data import Dataset


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

    lots = Lots.of(plan, start, max(views.train.clip_bytes, views.val.clip_bytes))
    decode = DECODE.bound(plan=plan, lots=lots, rows=(ray.put(rows[0]), ray.put(rows[1])), views=views)
    return stream_of(PIPELINE.with_stages(replace(decode, cpus=cpus)), lots)


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


DECODE = Stage(
    name="decode", work=decode_lots, reads=LOT_NUMBERS, writes=SCHEMA.append(pa.field("unit", pa.int64())), rows=1
)
PIPELINE = Pipeline(name="train samples", source=LOT_NUMBERS, stages=(DECODE,))


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
    for table in units_in_order(blocks, plan, worker, start):
        yield [sample for sample in from_table(table.select(SCHEMA.names)) if sample.key]


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
