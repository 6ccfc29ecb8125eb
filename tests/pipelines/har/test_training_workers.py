"""A run is the same run whatever the number of processes that train it: real ones, with torch's process group."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from microg import storage
from microg.models.har.training.batch_norm import RunningStatistics
from microg.pipelines.core.training.checkpoints import RunFiles
from tests.support.processes import ROOT
from tests.support.training import last_weights, make_training_dataset


def train_with(workers: int, dataset: Path, root: Path) -> dict[str, Any]:
    """Train in `workers` processes; return the weights and the epochs' rows."""
    started = []
    for rank in range(workers):
        words = [dataset, root / f"{workers}", rank, workers]
        command = [sys.executable, "-m", "tests.support.ddp_worker", *map(str, words)]
        started.append(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True))
    for process in started:
        _, error = process.communicate(timeout=240)
        assert process.returncode == 0, error
    files = RunFiles(str(root / f"{workers}"))
    rows = storage.read_parquet(str(root / f"{workers}" / "tables" / "har_train.parquet")).to_pylist()
    return {"weights": last_weights(root / f"{workers}"), "best": files.progress().best, "rows": rows}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    root = tmp_path_factory.mktemp("workers")
    dataset = make_training_dataset(root / "data", train=6)
    return {workers: train_with(workers, dataset, root) for workers in (1, 2, 3)}


@pytest.mark.parametrize("workers", [2, 3])
def test_several_workers_train_the_model_of_one(runs: dict[int, dict[str, Any]], workers: int) -> None:
    one, several = runs[1], runs[workers]
    assert one["weights"].keys() == several["weights"].keys()
    for name, values in one["weights"].items():
        torch.testing.assert_close(several["weights"][name], values, rtol=1e-4, atol=1e-6, msg=name)
    assert several["best"]["epoch"] == one["best"]["epoch"]
    assert several["best"]["map"] == pytest.approx(one["best"]["map"], rel=1e-4)
    for mine, other in zip(one["rows"], several["rows"], strict=True):
        for name in ("loss", "clips", "boxes", "val_loss", "val_map_paper", "val_map_corrected", "val_boxes"):
            assert (other[name] is None) == (mine[name] is None), name
            assert other[name] == (mine[name] and pytest.approx(mine[name], rel=1e-4)), name


def test_running_statistics_of_one_process_are_those_of_torch() -> None:
    plain, folded = (nn.Sequential(nn.Conv3d(3, 8, 3), nn.BatchNorm3d(8, momentum=0.2)) for _ in range(2))
    folded.load_state_dict(plain.state_dict())
    statistics = RunningStatistics(folded)
    for step in range(3):
        statistics.begin_step()
        for turn in range(4):
            clip = torch.randn(1, 3, 4, 6, 6, generator=torch.Generator().manual_seed(10 * step + turn))
            plain(clip)
            folded(clip)
            statistics.take_micro_batch(turn)
        statistics.end_step([statistics.rows()])
    for name, values in plain.state_dict().items():
        torch.testing.assert_close(folded.state_dict()[name], values, rtol=1e-6, atol=1e-7, msg=name)


def test_micro_batches_of_processes_are_folded_in_the_order_of_one() -> None:
    layer = nn.BatchNorm1d(1, momentum=0.5)
    statistics = RunningStatistics(layer)
    statistics.begin_step()
    rows = [torch.tensor([[0.0, 8.0, 1.0], [1.0, 2.0, 1.0]]), torch.tensor([[0.0, 4.0, 1.0]])]
    statistics.end_step(rows)  # turn 0 of rank 0, turn 0 of rank 1, turn 1 of rank 0
    assert layer.running_mean is not None
    assert layer.running_mean.tolist() == [(((0 + 8) / 2) + 4) / 2 / 2 + 1]
