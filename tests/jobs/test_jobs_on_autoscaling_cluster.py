"""Every job that works on Ray starts, waits and ends on a cluster whose nodes are all still to be started.

The cluster is that of cluster.yaml: its head, which does no work, its node types with what they have, and its limits.
Those of Google Cloud and Kubernetes are started too, each in a slow test (rayjob.yaml with its job in
test_cluster_page.py). Models that would need a GPU itself compute
on the CPU, while their actors and workers hold what they declare. Training and sweeps start a dozen processes that load
torch: these two are slow tests, and how they place their demand is tested on a cluster in
tests/pipelines/core/test_cluster_capacity.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from microg import storage
from microg.data.dataset import Dataset
from tests.support.autoscaling_cluster import AutoscalingCluster, autoscaling_cluster
from tests.support.cluster_files import kuberay_shape, launcher, variant
from tests.support.curation import write_detections, write_footage
from tests.support.environment import without_ray
from tests.support.helpers import make_dataset
from tests.support.training import last_weights, make_training_dataset

SHAPES = {
    "Google Cloud": lambda: launcher() | variant("Google Cloud"),
    "raycluster.yaml": lambda: kuberay_shape("raycluster"),
}
FEW = ("--set", "resources.max_actors=2")  # this machine has fewer cores than its nodes declare
ENGINE = '''
from dataclasses import dataclass
from microg.models.vlm.base import Engine, Reply

@dataclass
class Echo(Engine):
    """Says the question again, from an actor that was given a GPU."""
    model: str = "echo"
    name: str = "echo"
    price: None = None
    device: str = "auto"
    tensor_parallel: int = 1
    over_nodes: bool = False

    @classmethod
    def settings_on(cls, place):
        nodes = {"over_nodes": True} if place.over_nodes else {}
        return super().settings_on(place) | nodes

    def fingerprint(self):
        return {"engine": "echo"}

    def generate(self, requests, sampling):
        import ray
        from ray.util.placement_group import get_current_placement_group, placement_group_table
        text = f"{len(ray.get_runtime_context().get_accelerator_ids()['GPU'])} GPU"
        if self.over_nodes:
            group = get_current_placement_group()
            nodes = set(placement_group_table(group)["bundles_to_node_id"].values())
            text = f"{sum(bundle['GPU'] for bundle in group.bundle_specs):g} GPUs of {len(nodes)} nodes"
        for request in requests:
            yield Reply(request.key, text, "ok", None, "stop", 1, 1, 0.0)
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
runs: weights
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AutoscalingCluster]:
    with autoscaling_cluster(launcher()) as running:
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
    done = subprocess.run(
        [sys.executable, "-m", "microg.jobs.cli", *map(str, words)],
        cwd=place,  # which Ray's workers have on their path
        env=without_ray(**cluster.variables),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


def test_curation_starts_a_node_and_ends(cluster: AutoscalingCluster, place: Path) -> None:
    check_curation(cluster, place, place / "mine")


def test_generation_takes_a_gpu_node_without_being_told(cluster: AutoscalingCluster, place: Path) -> None:
    check_generation(cluster, place, place / "answers")


def check_curation(cluster: AutoscalingCluster, place: Path, out: Path) -> None:
    words = ("curate", place / "raw", out, "--detections", place / "dets", "--set", "trim.height=48")
    said = job(cluster, place, *words, *FEW)
    assert "waiting for the cluster to start nodes (it has 0 CPUs" in said
    assert Dataset.open(str(out)).table("clips").num_rows == 1


def check_generation(cluster: AutoscalingCluster, place: Path, run: Path) -> None:
    words = ("vlm", "generate", "--model", place / "echo.yaml", "--dataset", place / "asked", "--run", run)
    assert "on cuda" in job(cluster, place, *words, "--set", "live_scores=false", *FEW)
    rows = storage.read_parquet(str(run / "tables" / "generations.parquet"))
    assert set(rows["text"].to_pylist()) == {"1 GPU"}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SHAPES)
def test_the_other_clusters_that_we_describe_start_their_nodes_too(name: str, place: Path, tmp_path: Path) -> None:
    wanted = SHAPES[name]()
    with autoscaling_cluster(wanted) as cluster:
        check_curation(cluster, place, tmp_path / "mine")
        check_generation(cluster, place, tmp_path / "answers")
        found = ask(cluster, "[node['Resources'] for node in nodes]")
        assert len(cluster.raylets()) == len(found) - 1  # the head is the other one
    for one in wanted["available_node_types"].values():
        has = {name: amount for name, amount in one["resources"].items() if amount}  # Ray says nothing of 0 CPUs
        assert any(node == node | has for node in found), (has, found)


def ask(cluster: AutoscalingCluster, question: str) -> Any:
    """Return what an expression is for a driver: `nodes` are those that live, `actors` all that there were."""
    script = "import json, ray\nfrom ray._private import state\nray.init(logging_level='ERROR')\n"
    script += "nodes = [node for node in ray.nodes() if node['Alive']]\nactors = state.actors().values()\n"
    script += f"print(json.dumps({question}))"
    environment = without_ray(**cluster.variables)
    said = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    return json.loads(said.stdout.splitlines()[-1])


def test_a_model_over_two_gpus_is_spread_over_nodes_that_have_one_each(
    cluster: AutoscalingCluster, place: Path
) -> None:
    words = ("vlm", "generate", "--model", place / "echo.yaml", "--dataset", place / "asked")
    more = ("--run", place / "spread", "--set", "live_scores=false", "--set", "tensor_parallel=2")
    assert "on cuda, over several nodes" in job(cluster, place, *words, *more)
    rows = storage.read_parquet(str(place / "spread" / "tables" / "generations.parquet"))
    assert set(rows["text"].to_pylist()) == {"2 GPUs of 2 nodes"}


SETTINGS = ("epochs=1", "batch=4", "micro_batch=2", "resources.threads=1", "tensorboard=false")
QUICK = tuple(word for setting in SETTINGS for word in ("--set", setting))
ON_CPU = ("--device", "cpu", "--set", "resources.worker_gpus=1")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_workers_train_on_nodes_of_their_own_and_their_model_predicts(
    cluster: AutoscalingCluster, place: Path
) -> None:
    words = ("har", "train", place / "set", "--recipe", "tiny", "--run", place / "run", *QUICK)
    said = job(cluster, place, *words, "--num-workers", 2, *ON_CPU)
    assert "training on cpu: 2 workers of 1 CPU and 1 GPU" in said
    assert storage.read_json(str(place / "run" / "run.json"))["devices"][0]["device"] == "cpu"
    # what watches the workers lives where the driver does, here the head: no lost node takes it along
    head = ask(cluster, "[node['NodeID'] for node in nodes if 'node:__internal_head__' in node['Resources']]")
    watching = "[one['Address']['NodeID'] for one in actors if one['ActorClassName'] == 'Monitor']"
    assert ask(cluster, watching) == head
    words = ("har", "predict", place / "set", "--weights", place / "run", "--split", "val", "--run", place / "scores")
    said = job(cluster, place, *words, "--device", "cpu", "--set", "resources.gpus=1")
    assert "on cpu" in said


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_runs_as_many_trials_as_the_cluster_can_hold_and_two_workers_a_trial_change_nothing(
    cluster: AutoscalingCluster, place: Path
) -> None:
    found = []
    for workers in (1, 2):
        run = place / f"sweep-{workers}"
        words = ("har", "sweep", place / "set", "--recipe", "tiny", "--run", run, *QUICK, *ON_CPU)
        more = ("--set", f"resources.workers={workers}", "--set", f"resources.worker_gpus={1 / workers}")
        said = job(cluster, place, *words, *more, "--space", "lr=grid(0.01,0.1)", "--scheduler", "fifo")
        assert "2 trials on cpu, 2 at once" in said
        found.append(storage.read_parquet(str(run / "tables" / "har_sweep.parquet")).to_pylist())
        weights = [last_weights(run / trial["run"]) for trial in sorted(found[-1], key=lambda trial: trial["trial_id"])]
        if workers == 1:
            alone = weights
    assert [row["status"] for row in found[1]] == ["done", "done"]
    assert [(row["trial_id"], row["best"]) for row in found[0]] == [(row["trial_id"], row["best"]) for row in found[1]]
    for one, two in zip(alone, weights, strict=True):
        for name, tensor in one.items():
            torch.testing.assert_close(two[name], tensor, rtol=1e-5, atol=1e-5)


def test_texts_are_scored_on_actors(cluster: AutoscalingCluster, place: Path) -> None:
    rows = storage.read_parquet(str(place / "asked" / "tables" / "captions.parquet")).to_pylist()
    captions = json.dumps({row["clip_id"]: row["caption"] for row in rows})
    (place / "captions.json").write_text(captions)
    words = ("vlm", "score", "--predictions", place / "captions.json", "--references", place / "asked")
    more = ("--metrics", "cider,rouge_l", "--resamples", 20, "--workers", 2, "--no-plots")
    job(cluster, place, *words, *more, "--out", place / "points")
    assert storage.read_json(str(place / "points" / "metrics.json"))["tasks"]
