"""A run in this process, without Ray: what tests and benchmarks compare the distributed one with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from microg.pipelines.core.training.ahead import ahead
from microg.pipelines.core.training.checkpoints import RunFiles
from microg.pipelines.core.training.plan import Position
from microg.pipelines.core.training.worker_group import Collectives
from microg.pipelines.har.train.checks import TrainingSetup
from microg.pipelines.har.train.loop import TrainLoop
from microg.pipelines.har.train.stream import Piece, decode_unit, pieces
from microg.pipelines.har.train.worker import build_model_and_stepper


class SingleProcess(Collectives):
    """A worker that no driver looks at, alone or one of several processes; reports are kept in `reports`."""

    def __init__(self, stop_after_updates: int | None = None, *, rank: int = 0, world: int = 1) -> None:
        super().__init__(rank, world, "cpu")
        self.reports: list[dict[str, Any]] = []
        self.updates = 0
        self._stop_after = stop_after_updates

    def update(self, progress: dict[str, Any]) -> bool:
        """Count the update."""
        self.updates += 1
        return self._stop_after is not None and self.updates >= self._stop_after

    def report(self, metrics: dict[str, Any]) -> None:
        """Keep the report."""
        self.reports.append(metrics)


def local_blocks(setup: TrainingSetup, start: Position, rank: int = 0) -> Iterator[pa.Table]:
    """Yield what the stream gives the worker of a rank from `start` on, decoded one after another."""
    context = setup.context
    for number in context.plan.units_of(rank, start):
        unit = context.plan.unit(number)
        rows = context.val_rows if unit.validation else setup.train_rows
        view = context.views.val if unit.validation else context.views.train
        table = decode_unit(unit.keys, rows, view, unit.epoch)
        yield table.append_column("unit", pa.array([number] * table.num_rows, pa.int64()))


def local_work(setup: TrainingSetup, start: Position, rank: int = 0) -> Iterator[Piece]:
    """Yield what the worker of a rank computes from `start` on."""
    space = setup.config.space
    return pieces(local_blocks(setup, start, rank), setup.context.plan, rank, start, setup.context.views, space)


def run_local(setup: TrainingSetup, group: SingleProcess | None = None) -> tuple[bool, TrainLoop]:
    """Train on the CPU from wherever the run folder is; return whether it came to its end, and the loop.

    A `group` of several processes has its torch process group already.
    """
    import torch

    device, group = torch.device("cpu"), group or SingleProcess()
    files = RunFiles(setup.context.root)
    progress = files.progress()
    model, stepper = build_model_and_stepper(setup.context, device, files.load(progress), distributed=group.world > 1)
    loop = TrainLoop(setup.context, group, model, stepper, progress)
    return loop.run(ahead(local_work(setup, progress.position, group.rank), setup.config.resources.prefetch)), loop
