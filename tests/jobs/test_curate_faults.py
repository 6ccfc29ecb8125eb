"""Killing a curation anywhere: the same command finishes it, and the dataset is that of an undisturbed run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from microg import storage
from microg.data import schema
from microg.data.dataset import Dataset
from microg.models.curation.observe import Observation
from microg.pipelines.curate import observations
from microg.pipelines.curate import pipeline as curate_pipeline
from microg.pipelines.curate.observe_stage import OBSERVE, Observer
from microg.pipelines.curate.trim_stage import TRIM
from tests.support import processes
from tests.support.curation import write_detections, write_footage
from tests.support.environment import without_ray
from tests.support.processes import ROOT, check_gone, family, wait_for

SOURCES, CLIPS = 2, 8
# Large enough that tracking a clip takes a while: the kill must come before the end.
HEIGHT = 240
OPTIONS = ("--set", f"trim.height={HEIGHT}")


def microg(*arguments: object) -> int:
    """Run the command in this process, on the session's Ray."""
    return processes.microg("curate", *arguments)


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two videos of eight clips, and stored detections of each clip."""
    folder = tmp_path_factory.mktemp("faults")
    for source in range(SOURCES):
        write_footage(folder / "raw" / f"s{source}.mp4", seconds=3 * CLIPS + 0.2, seed=source)
        for clip in range(CLIPS):
            write_detections(folder / "dets", f"s{source}_{clip:03d}", height=HEIGHT)
    return folder / "raw", folder / "dets"


@pytest.fixture(scope="module")
def undisturbed(footage: tuple[Path, Path], ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "set"
    assert microg(footage[0], out, "--detections", footage[1], *OPTIONS) == 0
    return out


def arguments(footage: tuple[Path, Path], out: Path, *more: str) -> list[str]:
    words = [footage[0], out, "--detections", footage[1], *OPTIONS, *more]
    return [str(word) for word in words]


def start(footage: tuple[Path, Path], out: Path, log: Path, *more: str) -> psutil.Popen:
    return processes.start_microg(log, "curate", *arguments(footage, out, *more))


def committed(out: Path) -> int:
    folder = out / "observations"
    return len(list(folder.glob("*.parquet"))) if folder.is_dir() else 0


def check_whole(out: Path) -> None:
    """Every clip exactly once, with the video that its row names; no unfinished file."""
    clips = {row["clip_id"]: row for row in Dataset.open(str(out)).table("clips").to_pylist()}
    assert Dataset.open(str(out)).table("clips").num_rows == len(clips) == SOURCES * CLIPS
    assert {row["status"] for row in clips.values()} == {"ok"}
    videos = sorted((out / "videos").iterdir())
    assert [path.stem for path in videos] == sorted(clips)
    assert all(storage.sha256(path) == clips[path.stem]["sha256"] for path in videos)
    assert not list(out.rglob("*.tmp"))


def check_equal(out: Path, undisturbed: Path) -> None:
    """The dataset is whole, and every row of every table as in the undisturbed run."""
    check_whole(out)
    mine, theirs = Dataset.open(str(out)), Dataset.open(str(undisturbed))
    assert mine.table("boxes").num_rows > 0
    for name in schema.TABLES:
        assert mine.table(name).to_pylist() == theirs.table(name).to_pylist(), name


def kill_driver(footage: tuple[Path, Path], out: Path, log: Path, *more: str, when: int) -> None:
    """Start the command and kill it, and nothing else, once `when` clips are committed."""
    process = start(footage, out, log, *more)
    wait_for(lambda: committed(out) >= when, process, log)
    others = family(process)
    process.kill()
    process.wait()
    check_gone(others, "Observer")
    assert when <= committed(out) < SOURCES * CLIPS


@pytest.mark.slow
def test_a_killed_driver_leaves_no_process_and_the_same_command_does_the_rest(footage, ray_session, tmp_path):
    out = tmp_path / "set"
    one_actor = ("--set", "resources.max_actors=1")  # starts sooner
    kill_driver(footage, out, tmp_path / "log", *one_actor, when=3)
    assert not (out / "dataset.json").exists()
    (out / "videos" / ".tmp-stray.mp4").write_bytes(b"half")
    before = {path: path.stat().st_mtime_ns for path in (out / "videos").iterdir()}
    done = observations.read(str(out))["clip_id"].to_pylist()
    assert microg(footage[0], out, "--detections", footage[1], *OPTIONS, *one_actor) == 0
    for clip_id in done:  # what was done was not done again
        path = out / "videos" / f"{clip_id}.mp4"
        assert path.stat().st_mtime_ns == before[path]
    check_whole(out)


@pytest.mark.slow
def test_a_run_killed_twice_gives_what_an_undisturbed_one_gives(footage, undisturbed, tmp_path):
    out = tmp_path / "set"
    kill_driver(footage, out, tmp_path / "log", when=1)
    kill_driver(footage, out, tmp_path / "log", when=committed(out) + 2)
    assert microg(footage[0], out, "--detections", footage[1], *OPTIONS) == 0
    check_equal(out, undisturbed)


@pytest.mark.slow
def test_a_killed_actor_is_replaced_within_the_run(footage, undisturbed, tmp_path):
    out, log = tmp_path / "set", tmp_path / "log"
    process = start(footage, out, log)
    wait_for(lambda: committed(out) >= 3, process, log)
    actors = [child for child, name in family(process).items() if "MapBatches(Observer)" in name]
    actors[0].kill()
    assert committed(out) < SOURCES * CLIPS
    assert process.wait(timeout=250) == 0, log.read_text()
    check_equal(out, undisturbed)


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_how_to_resume(footage, undisturbed, tmp_path):
    out, log = tmp_path / "set", tmp_path / "log"
    process = start(footage, out, log)
    wait_for(lambda: committed(out) >= 3, process, log)
    others = family(process)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole group
    assert process.wait(timeout=60) == 130, log.read_text()
    assert "interrupted; run the same command again to resume" in log.read_text()
    assert "Traceback" not in log.read_text()
    check_gone(others, "Observer")
    assert 3 <= committed(out) < SOURCES * CLIPS
    assert microg(footage[0], out, "--detections", footage[1], *OPTIONS) == 0
    check_equal(out, undisturbed)


_CLUSTER = """
import os, sys, threading, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from microg.jobs import cli, common

out, arguments = Path(sys.argv[1]), sys.argv[2:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]
ray.init(address=cluster.address, log_to_driver=False)
removed = []

def remove():
    folder = out / "observations"
    while not folder.is_dir() or len(list(folder.glob("*.parquet"))) < 3:
        time.sleep(0.02)
    cluster.remove_node(nodes[0], allow_graceful=False)
    removed.append(len(list(folder.glob("*.parquet"))))

threading.Thread(target=remove, daemon=True).start()
sys.argv = ["microg", "curate", *arguments]
code = 0
try:
    common.run(cli.app)
except SystemExit as ended:
    code = ended.code or 0
print("REMOVED AT", removed, "NODES", sum(node["Alive"] for node in ray.nodes()), flush=True)
ray.shutdown()
cluster.shutdown()
sys.exit(code if removed else 9)
"""


@pytest.mark.slow
def test_a_lost_node_of_a_cluster_costs_no_clip(footage, undisturbed, tmp_path):
    out, script = tmp_path / "set", tmp_path / "cluster.py"
    script.write_text(textwrap.dedent(_CLUSTER))
    environment = without_ray(RAY_AUTH_MODE="disabled", RAY_ENABLE_UV_RUN_RUNTIME_ENV="0")
    words = [sys.executable, script, out, *arguments(footage, out)]
    done = subprocess.run(
        [str(word) for word in words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    removed_at = int(done.stdout.split("REMOVED AT [")[1].split("]")[0])
    assert removed_at < SOURCES * CLIPS
    assert "NODES 2" in done.stdout
    check_equal(out, undisturbed)


@pytest.mark.slow
def test_a_clip_that_kills_its_worker_every_time_ends_as_an_error_row(footage, undisturbed, tmp_path, monkeypatch):
    class Fragile(Observer):
        def _observe(self, row: dict[str, Any]) -> Observation:
            if row["clip_id"] == "s1_003":
                os.kill(os.getpid(), signal.SIGKILL)
            return super()._observe(row)

    fragile = curate_pipeline.PIPELINE.with_stages(replace(OBSERVE, work=Fragile))
    monkeypatch.setattr(curate_pipeline, "PIPELINE", fragile)
    out = tmp_path / "set"
    assert microg(footage[0], out, "--detections", footage[1], *OPTIONS) == 1
    clips = {row["clip_id"]: row for row in Dataset.open(str(out)).table("clips").to_pylist()}
    assert clips["s1_003"]["status"] == "error"
    assert clips["s1_003"]["error"] == "decode: WorkerCrashed: observing this clip kills its worker"
    assert len(clips) == SOURCES * CLIPS
    others = [row for clip_id, row in clips.items() if clip_id != "s1_003"]
    expected = Dataset.open(str(undisturbed)).table("clips").to_pylist()
    assert others == [row for row in expected if row["clip_id"] != "s1_003"]
    monkeypatch.undo()
    assert microg(footage[0], out, "--detections", footage[1], *OPTIONS) == 0  # it is tried again by the next run
    check_equal(out, undisturbed)


@pytest.mark.slow
def test_footage_that_kills_its_cutter_every_time_ends_as_an_error_row(footage, undisturbed, tmp_path, monkeypatch):
    def trim_fragile(block: Any, *, settings: Any, folder: str, done: Any, attempts: Any) -> Any:
        from microg.pipelines.curate import trim_stage

        original = trim_stage.trim_stretch

        def trim_stretch(row: dict[str, Any], *rest: Any) -> list[dict[str, Any]]:
            if row["source_id"] == "s1":
                os.kill(os.getpid(), signal.SIGKILL)
            return original(row, *rest)

        trim_stage.trim_stretch = trim_stretch
        try:
            return trim_stage.trim_stretches(block, settings=settings, folder=folder, done=done, attempts=attempts)
        finally:
            trim_stage.trim_stretch = original

    fragile = curate_pipeline.PIPELINE.with_stages(replace(TRIM, work=trim_fragile))
    monkeypatch.setattr(curate_pipeline, "PIPELINE", fragile)
    out = tmp_path / "set"
    assert microg(footage[0], out, "--detections", footage[1], *OPTIONS) == 1
    sources = {row["source_id"]: row for row in Dataset.open(str(out)).table("sources").to_pylist()}
    assert sources["s1"]["error"] == "WorkerCrashed: trimming this footage kills its worker"
    assert [sources[name]["clips"] for name in ("s0", "s1")] == [CLIPS, 0]
    monkeypatch.undo()
    assert microg(footage[0], out, "--detections", footage[1], *OPTIONS) == 0
    check_equal(out, undisturbed)
