"""A run in this process, without Ray: what tests and benchmarks compare the distributed one with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from microg.data.label_space import label_space
from microg.pipelines.har.train.checkpoints import RunFiles
from microg.pipelines.har.train.loop import TrainLoop
from microg.pipelines.har.train.plan import Position
from microg.pipelines.har.train.stream import Piece, ahead, decode_unit, pieces
from microg.pipelines.har.train.worker import prepare
from microg.pipelines.har.train.worker_group import Alone

if TYPE_CHECKING:
    from microg.pipelines.har.train.checks import Prepared


def local_blocks(prepared: Prepared, start: Position) -> Iterator[pa.Table]:
    """Yield what the stream gives a lone worker from `start` on, decoded one after another."""
    job = prepared.job
    for number in job.plan.units_of(0, start):
        unit = job.plan.unit(number)
        rows, view = (job.val_rows, job.views.val) if unit.validation else (prepared.train_rows, job.views.train)
        table = decode_unit(unit.keys, rows, view, unit.epoch)
        yield table.append_column("unit", pa.array([number] * table.num_rows, pa.int64()))


def local_work(prepared: Prepared, start: Position) -> Iterator[Piece]:
    """Yield what a lone worker computes from `start` on."""
    space = label_space(prepared.config.label_space)
    return pieces(local_blocks(prepared, start), prepared.job.plan, 0, start, prepared.job.views, space)


def run_local(prepared: Prepared, link: Alone | None = None) -> tuple[bool, TrainLoop]:
    """Train on the CPU from wherever the run folder is; return whether it came to its end, and the loop."""
    import torch

    device = torch.device("cpu")
    files = RunFiles(prepared.job.root)
    progress = files.progress()
    model, stepper = prepare(prepared.job, device, files.load(progress), distributed=False)
    loop = TrainLoop(prepared.job, link or Alone(), model, stepper, progress, device)
    return loop.run(ahead(local_work(prepared, progress.position), prepared.config.resources.prefetch)), loop
