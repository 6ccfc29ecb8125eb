"""One of several real processes that train together: `python -m tests.support.ddp_worker DATASET RUN RANK WORLD`."""

from __future__ import annotations

import sys

import torch
import torch.distributed

from microg.pipelines.har.train.checks import check_and_plan
from microg.pipelines.har.train.single_process import SingleProcess, run_local
from tests.support.training import tiny_config


def main(dataset: str, root: str, rank: str, world: str) -> None:
    """Train as process `rank` of `world`, which meet in a file beside the run folder."""
    torch.set_num_threads(1)
    if int(world) > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{root}.store", rank=int(rank), world_size=int(world)
        )
    config = tiny_config(batch=6, micro_batch=1, resources={"threads": 1, "workers": int(world)})
    setup = check_and_plan(config, dataset, root)
    finished, _ = run_local(setup, SingleProcess(rank=int(rank), world=int(world)))
    assert finished


if __name__ == "__main__":
    main(*sys.argv[1:])
