"""One of several real processes that tune a model together: `python -m tests.support.tuning_worker JOB RANK WORLD`.

JOB is a JSON file: settings, dataset, root, and after how many steps to stop (0: never).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import torch.distributed

from microg.pipelines.core.training.checkpoints import RunFiles
from microg.pipelines.core.training.worker_group import Collectives
from microg.pipelines.vlm.train.run import TuneSetup, check_and_plan
from microg.pipelines.vlm.train.settings import TuneSettings
from microg.pipelines.vlm.train.stream import decode_unit
from microg.pipelines.vlm.train.worker import tune_part


class Group(Collectives):
    """Workers that report to nobody, and are asked to stop after so many looks at them."""

    def __init__(self, rank: int, world: int, stop_after: int) -> None:
        super().__init__(rank, world, torch.device("cpu"))
        self._left = stop_after or -1

    def update(self, progress: dict[str, Any]) -> bool:
        """Count steps; return whether to stop."""
        self._left -= progress["phase"] == "training"
        return self._left == 0

    def report(self, metrics: dict[str, Any]) -> None:
        """Report to nobody."""


def blocks_of(setup: TuneSetup, rank: int) -> Iterator[pa.Table]:
    """Yield a worker's decoded clips from where the run is."""
    context, lessons = setup.context, setup.lessons
    start = RunFiles(context.root).progress().position
    for number in context.plan.units_of(rank, start):
        unit = context.plan.unit(number)
        rows = lessons.val if unit.validation else lessons.train
        yield decode_unit(unit.keys, rows, number, setup.settings.policy(), "auto")


def tune_here(job: dict[str, Any], rank: int = 0, world: int = 1) -> bool:
    """Do one worker's part in this process."""
    settings = TuneSettings.model_validate(job["settings"])
    settings = settings.replaced(precision="float32", resources={"workers": world})
    setup = check_and_plan(settings, job["dataset"], job["root"])
    group = Group(rank, world, job.get("stop_after", 0))
    return tune_part(setup.context, group, torch.device("cpu"), blocks_of(setup, rank))


def main(job: str, rank: str, world: str) -> None:
    """Tune as process `rank` of `world`, which meet in a file beside the job's."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{job}.store", rank=int(rank), world_size=int(world)
    )
    tune_here(json.loads(Path(job).read_text()), int(rank), int(world))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
