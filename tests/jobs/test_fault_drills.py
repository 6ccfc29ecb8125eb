"""Fault drills: whoever dies in curation, training, prediction, generation or scoring, what comes out is the same.

Victims: a worker (short tasks, or the Java program of a scorer), an actor, a node with all that runs on it, and the
driver, after which the same command is given again. On three nodes, and on a cluster whose autoscaler started its nodes
and starts another for one that is lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.autoscaling_cluster import AutoscalingCluster, autoscaling_cluster, shape
from tests.support.drills import JOBS, Drill, check_same, given, strike, titles
from tests.support.processes import microg, start_microg, wait_for
from tests.support.ray_head import Head, ray_head

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("drills")


@pytest.fixture(scope="module")
def drills(folder: Path) -> Callable[[str], Drill]:
    return cache(lambda job: JOBS[job](folder))


@pytest.fixture(scope="module")
def undisturbed(drills: Callable[[str], Drill], folder: Path, ray_session: None) -> Callable[[str], Path]:
    """Return the run folder of a job that nobody disturbed, here and on a local Ray."""

    def of(job: str) -> Path:
        run = folder / f"undisturbed-{job}"
        if not run.exists():
            assert microg(*given(drills(job), run)) == 0
        return run

    return of


@pytest.fixture(scope="module")
def cluster() -> Iterator[Head]:
    with ray_head(workers=2, cpus=2) as head:
        yield head


@pytest.mark.parametrize("victim", ["worker", "actor", "node", "driver"])
@pytest.mark.parametrize("job", JOBS)
def test_a_job_that_loses_a_part_ends_with_the_tables_of_an_undisturbed_one(
    job: str,
    victim: str,
    drills: Callable[[str], Drill],
    undisturbed: Callable[[str], Path],
    cluster: Head,
    tmp_path: Path,
) -> None:
    drill, run, log = drills(job), tmp_path / "run", tmp_path / "log"
    wanted = drill.tables(undisturbed(job))
    while len(cluster.nodes) < 3:
        cluster.add_node()
    words = [*given(drill, run), "--address", cluster.gcs]
    ray = {name: value for name, value in cluster.environment.items() if name.startswith("RAY_")}
    process = start_microg(log, *words, ray=ray)
    first = drill.actor if victim == "driver" else ""

    def struck() -> bool:
        if victim != "worker" and drill.done(run) < drill.after:  # tasks are short, and the first to end
            return False
        if first and not any(first in title for _, _, title in titles(cluster.nodes)):
            return False
        return strike(cluster.nodes, drill, victim, process, spared=cluster.nodes[0])

    wait_for(struck, process, log, 300)
    assert drill.done(run) < drill.whole
    cluster.nodes[:] = [node for node in cluster.nodes if node.poll() is None]
    if victim == "driver":
        process.wait()
        assert not (run / "metrics.json").exists()
        time.sleep(2)  # the cluster ends what the lost driver left
        process = start_microg(log, *words, ray=ray)
    assert process.wait(timeout=600) == 0, log.read_text()
    check_same(drill.tables(run), wanted, drill)


# Models compute on the CPU, and hold a GPU each, of which a node has one.
GPUS = ("--device", "cpu", "--set", "resources.gpus=1", "--set", "resources.min_actors=2")
GPUS += ("--set", "resources.max_actors=2")
HOLDING = {"predict": GPUS, "generate": GPUS, "train": ("--device", "cpu", "--set", "resources.worker_gpus=1")}


@pytest.fixture(scope="module")
def growing() -> Iterator[AutoscalingCluster]:
    types = {"cpu_worker": ({"CPU": 2.0}, 3), "gpu_worker": ({"CPU": 2.0, "GPU": 1.0}, 3)}
    with autoscaling_cluster(shape(types)) as cluster:
        yield cluster


@pytest.mark.parametrize("victim", ["worker", "actor", "node"])
@pytest.mark.parametrize("job", JOBS)
def test_a_cluster_that_starts_nodes_replaces_what_is_lost_and_the_tables_are_the_same(
    job: str,
    victim: str,
    drills: Callable[[str], Drill],
    undisturbed: Callable[[str], Path],
    growing: AutoscalingCluster,
    tmp_path: Path,
) -> None:
    drill, run, log = drills(job), tmp_path / "run", tmp_path / "log"
    wanted = drill.tables(undisturbed(job))
    process = start_microg(log, *given(drill, run), *HOLDING.get(job, ()), ray=growing.variables)

    def struck() -> bool:
        if victim != "worker" and drill.done(run) < drill.after:
            return False
        return strike(growing.raylets(), drill, victim, process)

    wait_for(struck, process, log, 300)
    assert drill.done(run) < drill.whole
    assert process.wait(timeout=600) == 0, log.read_text()
    check_same(drill.tables(run), wanted, drill)
