"""Every job that works on Ray starts, waits and ends on a cluster whose nodes are all still to be started.

The head does no work. Its autoscaler may start two nodes of CPUs, and two that declare a GPU; models that would need
the GPU itself compute on the CPU, while their actors and workers hold what they declare. Training and sweeps start a
dozen processes that load torch: these two are slow tests, and how they place their demand is tested on a cluster in
tests/pipelines/core/test_cluster_capacity.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from microg import storage
from microg.data.dataset import Dataset
from tests.support.autoscaling_cluster import AutoscalingCluster, autoscaling_cluster
from tests.support.curation import write_detections, write_footage
from tests.support.helpers import make_dataset
from tests.support.training import make_training_dataset

NODE_TYPES = {"cpu_worker": ({"CPU": 4.0}, 2), "gpu_worker": ({"CPU": 2.0, "GPU": 1.0}, 2)}
ENGINE = '''
from dataclasses import dataclass
from microg.models.vlm.base import Engine, Reply

@dataclass
class Echo(Engine):
    """Says the question again, from an actor that was given a GPU."""
    model: str = "echo"
    name: str = "echo"
    price: None = None

    def fingerprint(self):
        return {"engine": "echo"}

    def generate(self, requests, sampling):
        import ray
        gpus = ray.get_runtime_context().get_accelerator_ids()["GPU"]
        for request in requests:
            yield Reply(request.key, f"{len(gpus)} GPU", "ok", None, "stop", 1, 1, 0.0)
'''


CARD = """
name: echo
title: Echo
hub_id: me/echo
engine: echo_engine:Echo
frames: {kind: uniform, count: 4}
chat_template: none
context: 4096
gpu_memory_gb: 0
runs: "yes"
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AutoscalingCluster]:
    with autoscaling_cluster(NODE_TYPES) as running:
        yield running


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scaled")
    make_training_dataset(root / "set", train=4)
    make_dataset(root / "asked")
    write_footage(root / "raw" / "tour.mp4", seconds=3.2, seed=1)
    write_detections(root / "dets", "tour_000", person_frames=90)
    (root / "echo_engine.py").write_text(ENGINE)
    (root / "echo.yaml").write_text(CARD)
    return root


def job(cluster: AutoscalingCluster, place: Path, *words: object) -> str:
    """Run a command as a job's driver does, with the cluster's address in RAY_ADDRESS; return what it said."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-m", "microg.jobs.cli", *map(str, words)],
        cwd=place,  # which Ray's workers have on their path
        env=environment | cluster.variables,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


def test_curation_starts_a_node_and_ends(cluster: AutoscalingCluster, place: Path) -> None:
    words = ("curate", place / "raw", place / "mine", "--detections", place / "dets", "--set", "trim.height=48")
    said = job(cluster, place, *words)
    assert "waiting for the cluster to start nodes (it has 0 CPUs" in said
    assert Dataset.open(str(place / "mine")).table("clips").num_rows == 1


def test_generation_takes_a_gpu_node_without_being_told(cluster: AutoscalingCluster, place: Path) -> None:
    words = ("vlm", "generate", "--model", place / "echo.yaml", "--dataset", place / "asked")
    said = job(cluster, place, *words, "--run", place / "answers", "--set", "live_scores=false")
    assert "on cuda" in said
    rows = storage.read_parquet(str(place / "answers" / "tables" / "generations.parquet"))
    assert set(rows["text"].to_pylist()) == {"1 GPU"}


SETTINGS = ("epochs=1", "batch=4", "micro_batch=2", "resources.threads=1", "tensorboard=false")
QUICK = tuple(word for setting in SETTINGS for word in ("--set", setting))
ON_CPU = ("--device", "cpu", "--set", "resources.worker_gpus=1")


@pytest.mark.slow
def test_two_workers_train_on_nodes_of_their_own_and_their_model_predicts(
    cluster: AutoscalingCluster, place: Path
) -> None:
    words = ("har", "train", place / "set", "--recipe", "tiny", "--run", place / "run", *QUICK)
    said = job(cluster, place, *words, "--num-workers", 2, *ON_CPU)
    assert "training on cpu: 2 workers of 1 CPU and 1 GPU" in said
    assert storage.read_json(str(place / "run" / "run.json"))["devices"][0]["device"] == "cpu"
    words = ("har", "predict", place / "set", "--weights", place / "run", "--split", "val", "--run", place / "scores")
    said = job(cluster, place, *words, "--device", "cpu", "--set", "resources.gpus=1")
    assert "on cpu" in said


@pytest.mark.slow
def test_a_sweep_runs_as_many_trials_as_the_cluster_can_hold(cluster: AutoscalingCluster, place: Path) -> None:
    words = ("har", "sweep", place / "set", "--recipe", "tiny", "--run", place / "sweep", *QUICK)
    said = job(cluster, place, *words, *ON_CPU, "--space", "lr=grid(0.01,0.1)", "--scheduler", "fifo")
    assert "2 trials on cpu, 2 at once" in said


def test_texts_are_scored_on_actors(cluster: AutoscalingCluster, place: Path) -> None:
    rows = storage.read_parquet(str(place / "asked" / "tables" / "captions.parquet")).to_pylist()
    captions = json.dumps({row["clip_id"]: row["caption"] for row in rows})
    (place / "captions.json").write_text(captions)
    words = ("vlm", "score", "--predictions", place / "captions.json", "--references", place / "asked")
    more = ("--metrics", "cider,rouge_l", "--resamples", 20, "--workers", 2, "--no-plots")
    job(cluster, place, *words, *more, "--out", place / "points")
    assert storage.read_json(str(place / "points" / "metrics.json"))["tasks"]
