"""What fits on a cluster, waiting for nodes that an autoscaler starts, and where models run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from microg.config import Resources
from microg.pipelines.core import cluster
from microg.pipelines.core.cluster import Capacity, decide_device
from tests.support.autoscaling_cluster import AutoscalingCluster, autoscaling_cluster, shape
from tests.support.environment import without_ray
from tests.support.processes import ROOT

FOUR_GPUS = Capacity(({"CPU": 2.0, "GPU": 1.0},) * 4)


def test_one_actor_never_spans_nodes() -> None:
    assert FOUR_GPUS.count({"GPU": 1.0}) == 4
    assert FOUR_GPUS.count({"GPU": 4.0, "CPU": 1.0}) == 0
    assert not FOUR_GPUS.fits([{"GPU": 4.0}])
    assert FOUR_GPUS.count({"CPU": 1.5}) == 4


def test_bundles_fit_together_or_not_at_all() -> None:
    mixed = Capacity(({"CPU": 2.0, "GPU": 1.0}, {"CPU": 4.0}))
    assert mixed.fits([{"CPU": 4.0}, {"CPU": 1.0, "GPU": 1.0}, {"CPU": 1.0}])
    assert mixed.fits([{"CPU": 1.0}, {"CPU": 1.0}, {"CPU": 2.0}, {"CPU": 2.0, "GPU": 1.0}])
    assert not mixed.fits([{"CPU": 3.0}, {"CPU": 3.0}])
    assert not mixed.fits([{"CPU": 1.0, "GPU": 1.0}] * 2)
    assert mixed.fits([{"CPU": 0.1}] * 60)


@pytest.mark.parametrize(
    ("device", "gpus", "expected"),
    [
        ("auto", 0, ("cuda", 1)),
        ("auto", 0.25, ("cuda", 0.25)),
        ("cpu", 0, ("cpu", 0)),
        ("cuda", 0, ("cuda", 1)),
    ],
)
def test_a_gpu_is_taken_where_there_is_one_unless_the_user_says_cpu(
    monkeypatch: pytest.MonkeyPatch, device: str, gpus: float, expected: tuple[str, float]
) -> None:
    monkeypatch.setattr(cluster, "capacity", lambda: FOUR_GPUS)
    resources, place = decide_device(Resources(gpus=gpus), device, who="the model", fix="--device cpu")
    assert (place, resources.gpus) == expected


def test_a_gpu_that_is_wanted_and_not_there_is_an_error_and_auto_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "capacity", lambda: Capacity(({"CPU": 4.0},)))
    with pytest.raises(cluster.ConfigError, match="needs 1 CPU, 1 GPU and 1 CPU, but Ray has no GPU; it has 4 CPUs"):
        decide_device(Resources(), "cuda", who="the model", fix="--device cpu")
    with pytest.raises(cluster.ConfigError, match="no GPU"):
        decide_device(Resources(gpus=1), "auto", who="the model", fix="--device cpu")
    with pytest.raises(cluster.ConfigError, match="device 'cuda:1' is not known"):
        decide_device(Resources(), "cuda:1", who="the model", fix="--device cpu")
    assert decide_device(Resources(), "auto", who="the model", fix="--device cpu") == (Resources(), "cpu")


@pytest.fixture(scope="module")
def growing() -> Iterator[AutoscalingCluster]:
    """A head that does no work, and up to two nodes of each of two types, of which none runs."""
    types = {"cpu_worker": ({"CPU": 4.0}, 2), "gpu_worker": ({"CPU": 2.0, "GPU": 1.0}, 2)}
    with autoscaling_cluster(shape(types)) as running:
        yield running


def driver(growing: AutoscalingCluster, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script that is connected to the cluster."""
    before = "from microg.config import Resources\nfrom microg.pipelines.core import cluster, session\n"
    before += "from microg.errors import ConfigError\nsession.connect(Resources())\n"
    return subprocess.run(
        [sys.executable, "-c", before + script],
        cwd=ROOT,
        env=without_ray(**growing.variables),
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_nodes_are_waited_for_refused_and_counted_on_a_cluster_that_starts_from_none(
    growing: AutoscalingCluster,
) -> None:
    done = driver(
        growing,
        """
assert cluster.capacity().scales and cluster.capacity().total("CPU") == 0
try:
    cluster.require([{"GPU": 4.0}], who="the model", fix="take fewer", wait_s=100)
except ConfigError as error:
    print(error.what)
print(cluster.most_that_fit([{"CPU": 1.0, "GPU": 1.0}], [{"CPU": 1.0}], 7))
now = cluster.require([{"CPU": 1.0, "GPU": 1.0}, {"CPU": 1.0}], who="the model", wait_s=100)
assert now.total("GPU") >= 1, now
print(cluster.decide_device(Resources(), "auto", who="the model", fix="--device cpu")[1])
print(cluster.pool_size(Resources(cpus=4.0)))
from microg.jobs.commands.har_sweep.run import concurrency
from microg.jobs.commands.har_sweep.settings import load_sweep_settings
from microg.pipelines.core.training.fit import place_workers
from microg.pipelines.har.train.settings import TrainConfig
tiny = {"model": {"name": "TINY"}, "schedule": {"starts": [0], "relative": [1]}}
two, three = {"batch": 4, "resources": {"workers": 2}}, {"batch": 6, "resources": {"workers": 3}}
print(place_workers(TrainConfig.model_validate({**tiny, "micro_batch": 2, **two}).resources))
try:
    place_workers(TrainConfig.model_validate({**tiny, "micro_batch": 2, **three}).resources)
except ConfigError as error:
    print(error.what.partition(";")[0])
sweep = load_sweep_settings("data", ["tiny"], ["lr=grid(0.1,0.01,0.001)"], [])
print(*concurrency(sweep, 3, None))
try:
    cluster.require([{"CPU": 3.0}] * 3, who="the pool", fix="take fewer", wait_s=0)
except ConfigError as error:
    print(error.what.partition(";")[0])
""",
    )
    assert done.returncode == 0, done.stderr
    refused, most, device, actors, placed, too_many, sweep, in_vain = done.stdout.splitlines()
    assert refused.startswith("the model needs 4 GPUs, and the cluster has no node types for that; it has 0 CPUs")
    assert (most, device, actors) == ("2", "cuda", "1")
    assert placed == "(1.0, 'cuda')"
    assert too_many.startswith(
        "training with 3 workers needs 3 x (1 CPU, 1 GPU) and 1 CPU, and the cluster has no node"
    )
    assert sweep == "2 0 cuda"  # three trials are left, of which two find a GPU
    assert in_vain.startswith("the pool needs 3 x (3 CPUs)")
    assert "the model needs 4 GPUs: waiting for the cluster to start nodes (it has 0 CPUs" in done.stderr


@pytest.mark.slow
def test_auto_is_the_cpu_only_where_no_node_type_has_a_gpu() -> None:
    with autoscaling_cluster(shape({"cpu_worker": ({"CPU": 2.0}, 1)})) as growing:
        done = driver(growing, 'print(cluster.decide_device(Resources(), "auto", who="the model", fix="-")[1])')
    assert (done.returncode, done.stdout) == (0, "cpu\n"), done.stderr
