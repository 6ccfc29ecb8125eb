"""A small dataset to train on, and one worker in this process to compare other runs with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from microg.pipelines.core.training.checkpoints import RunFiles
from microg.pipelines.har.train.checks import TrainingSetup
from microg.pipelines.har.train.loop import TrainLoop
from microg.pipelines.har.train.settings import TrainConfig
from microg.pipelines.har.train.single_process import SingleProcess, run_local
from tests.support.helpers import FRAMES, HEIGHT, WIDTH, make_dataset, moving_scene, write_video

VAL, TEST = 3, 1


def make_training_dataset(root: Path, train: int) -> Path:
    """Write `train` clips to train on, 3 to validate on and 1 to test on; every second one shows two people."""

    def fill(rows: dict[str, list[dict[str, Any]]]) -> None:
        for name in rows:
            rows[name] = []
        for number in range(train + VAL + TEST):
            clip_id = f"film{number % 3}_{number:03d}"
            write_video(root / f"videos/{clip_id}.mp4", moving_scene(number))
            rows["clips"].append(
                {
                    "clip_id": clip_id,
                    "source_id": clip_id[:5],
                    "sequence": number,
                    "uri": f"videos/{clip_id}.mp4",
                    "num_frames": FRAMES,
                    "width": WIDTH,
                    "height": HEIGHT,
                    "status": "ok",
                }
            )
            for person in range(1, 2 + number % 2):
                for action in (12, 17 if person == 1 else 80):
                    rows["samples"].append(
                        {
                            "clip_id": clip_id,
                            "frame": 6,
                            "person_id": person,
                            "action_id": action,
                            "x1": 0.3 * person - 0.2,
                            "y1": 0.2,
                            "x2": 0.3 * person + 0.1,
                            "y2": 0.8,
                        }
                    )
            split = "train" if number < train else "val" if number < train + VAL else "test"
            rows["splits"].append({"clip_id": clip_id, "split": split, "scheme": "published"})

    make_dataset(root, fill, videos=False)
    return root


def tiny_config(**changes: Any) -> TrainConfig:
    """Return settings for the dataset above; one thread, so that sums have one order and bits can be compared."""
    values: dict[str, Any] = {
        "model": {"name": "TINY"},
        "batch": 4,
        "micro_batch": 2,
        "epochs": 3,
        "validation": {"every": 2},
        "schedule": {"lr": 0.01, "starts": [0], "relative": [1], "warmup_epochs": 1},
        "tensorboard": False,
        "resources": {"threads": 1},
    }
    return TrainConfig.model_validate({**values, **changes})


def run_alone(setup: TrainingSetup, group: SingleProcess | None = None) -> tuple[bool, TrainLoop]:
    """Train in this process, on one thread, from wherever the run folder is."""
    torch.set_num_threads(1)
    return run_local(setup, group)


def last_weights(root: Path) -> dict[str, torch.Tensor]:
    """Return the model's tensors in a run's last checkpoint."""
    files = RunFiles(str(root))
    state = files.load(files.progress())
    assert state is not None
    return state["model"]


def assert_same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Assert that two models have the same tensors, bit by bit."""
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different, f"{len(different)} tensors differ, such as {different[:3]}"
