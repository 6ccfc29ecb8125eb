"""A run in this process, without Ray: what tests and benchmarks compare the distributed one with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from microg.data.label_space import label_space
from microg.pipelines.har.train.checkpoints import RunFiles
from microg.pipelines.har.train.checks import TrainingSetup
from microg.pipelines.har.train.loop import TrainLoop
from microg.pipelines.har.train.plan import Position
from microg.pipelines.har.train.stream import Piece, ahead, decode_unit, pieces
from microg.pipelines.har.train.worker import build_model_and_stepper


class SingleProcess:
    """A group of one worker, in this process; reports are kept in `reports`."""

    rank, world = 0, 1

    def __init__(self, stop_after_updates: int | None = None) -> None:
        self.reports: list[dict[str, Any]] = []
        self.updates = 0
        self._stop_after = stop_after_updates

    def total(self, values: Sequence[float]) -> list[float]:
        """Return the values."""
        return list(values)

    def gather(self, value: Any) -> list[Any]:
        """Return the value alone."""
        return [value]

    def update(self, progress: dict[str, Any]) -> bool:
        """Count the update."""
        self.updates += 1
        return self._stop_after is not None and self.updates >= self._stop_after

    def report(self, metrics: dict[str, Any]) -> None:
        """Keep the report."""
        self.reports.append(metrics)


def local_blocks(setup: TrainingSetup, start: Position) -> Iterator[pa.Table]:
    """Yield what the stream gives a single worker from `start` on, decoded one after another."""
    context = setup.context
    for number in context.plan.units_of(0, start):
        unit = context.plan.unit(number)
        rows = context.val_rows if unit.validation else setup.train_rows
        view = context.views.val if unit.validation else context.views.train
        table = decode_unit(unit.keys, rows, view, unit.epoch)
        yield table.append_column("unit", pa.array([number] * table.num_rows, pa.int64()))


def local_work(setup: TrainingSetup, start: Position) -> Iterator[Piece]:
    """Yield what a single worker computes from `start` on."""
    space = label_space(setup.config.label_space)
    return pieces(local_blocks(setup, start), setup.context.plan, 0, start, setup.context.views, space)


def run_local(setup: TrainingSetup, group: SingleProcess | None = None) -> tuple[bool, TrainLoop]:
    """Train on the CPU from wherever the run folder is; return whether it came to its end, and the loop."""
    import torch

    device = torch.device("cpu")
    files = RunFiles(setup.context.root)
    progress = files.progress()
    model, stepper = build_model_and_stepper(setup.context, device, files.load(progress), distributed=False)
    loop = TrainLoop(setup.context, group or SingleProcess(), model, stepper, progress)
    return loop.run(ahead(local_work(setup, progress.position), setup.config.resources.prefetch)), loop
