"""No room, no permission, a store that fails: one line, nothing half written, and the same command goes on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import s3fs

from microg import storage
from microg.data.dataset import Dataset
from tests.support.command_line import refused
from tests.support.curation import write_detections, write_footage
from tests.support.processes import microg, start_microg, wait_for
from tests.support.s3_server import ObjectStore, object_store, upload
from tests.support.scored_runs import predict_run, scored_dataset
from tests.support.small_disk import resize, small_disk, small_files


@pytest.fixture(scope="module")
def score(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The words of a scoring, but for its run folder."""
    root = tmp_path_factory.mktemp("score")
    data = scored_dataset(root / "data")
    run = predict_run(root / "run", data, seed=0)
    return ["har", "score", "--predictions", str(run), "--groundtruth", data.root, "--resamples", "20", "--no-plots"]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # botocore's own tries and pauses are not what is tested here
    with object_store() as started:
        yield started


def scores(run: str) -> object:
    return storage.read_json(storage.join(run, "metrics.json"))["protocols"]


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(score, tmp_path: Path, monkeypatch, capsys):
    words = [*score, "--run", str(tmp_path / "run")]
    with small_files(4_000):
        message = refused(monkeypatch, capsys, *words)
    assert f"error: {tmp_path}/run/" in message
    assert "cannot be written: it would be larger than a file may be" in message
    left = [path.name for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert "metrics.json" not in left
    assert not [name for name in left if name.endswith((".tmp", ".lock"))]
    assert microg(*words) == 0
    assert (tmp_path / "run" / "metrics.json").is_file()


def test_a_store_that_fails_now_and_then_gets_the_same_run_and_one_that_does_not_recover_is_one_line(
    score, store: ObjectStore, tmp_path: Path, monkeypatch, capsys
):
    bucket = store.bucket()
    with store.failing("InternalError", "PUT", "/run/tables", times=2), store.failing("half", "GET", "/run", times=1):
        assert microg(*score, "--run", f"{bucket}/run") == 0
    assert microg(*score, "--run", tmp_path / "run") == 0
    assert scores(f"{bucket}/run") == scores(str(tmp_path / "run"))
    s3fs.S3FileSystem.clear_instance_cache()
    capsys.readouterr()
    with store.failing("ExpiredToken", "PUT", "/other/tables"):
        message = refused(monkeypatch, capsys, *score, "--run", f"{bucket}/other")
    assert f"error: {bucket}/other/tables/har_scores.parquet cannot be written: PermissionError" in message
    assert storage.names(f"{bucket}/other") == ["run.json"]
    assert microg(*score, "--run", f"{bucket}/other") == 0


@pytest.mark.slow
def test_the_first_of_two_processes_ends_well_and_the_second_is_refused(score, tmp_path: Path):
    words = [*score[:-3], "--resamples", "20000", "--run", tmp_path / "run"]
    first = start_microg(tmp_path / "first.log", *words)
    wait_for((tmp_path / "run" / ".lock").exists, first, tmp_path / "first.log")
    second = start_microg(tmp_path / "second.log", *words)
    assert second.wait(60) == 2
    assert f"another process is writing to {tmp_path}/run" in (tmp_path / "second.log").read_text()
    assert first.poll() is None
    assert first.wait(300) == 0
    assert scores(str(tmp_path / "run"))


@pytest.mark.slow
def test_a_curation_on_a_full_disk_blames_no_clip_and_goes_on_when_there_is_room(tmp_path: Path):
    write_footage(tmp_path / "raw" / "a.mp4", seconds=12.2, seed=0)
    for clip in range(4):
        write_detections(tmp_path / "dets", f"a_{clip:03d}", height=240)
    disk = tmp_path / "disk"
    words = ["curate", tmp_path / "raw", disk / "set", "--detections", tmp_path / "dets", "--set", "trim.height=240"]
    with small_disk(disk, "150k"):
        full = start_microg(tmp_path / "full.log", *words)
        assert full.wait(200) == 2
        said = (tmp_path / "full.log").read_text()
        assert "cannot be written: no room is left" in said
        assert "Traceback" not in said
        assert not list(disk.rglob("*tmp*"))
        resize(disk, "20m")
        resumed = start_microg(tmp_path / "resumed.log", *words)
        assert resumed.wait(200) == 0, (tmp_path / "resumed.log").read_text()
        assert Dataset.open(str(disk / "set")).table("clips")["status"].to_pylist() == ["ok"] * 4
        read_only = subprocess.run(["mount", "-o", "remount,ro", disk], check=False)
        if not read_only.returncode:
            refusal = start_microg(tmp_path / "ro.log", *words)
            assert refusal.wait(100) == 2
            assert "cannot be written: the filesystem is read-only" in (tmp_path / "ro.log").read_text()


@pytest.mark.slow
def test_a_curation_from_and_to_a_store_that_fails_now_and_then_makes_the_same_dataset(tmp_path: Path, store):
    write_footage(tmp_path / "raw" / "tour.mp4", seconds=6.2, seed=1)
    for number, person_frames in enumerate((90, 20)):
        write_detections(tmp_path / "dets", f"tour_{number:03d}", person_frames=person_frames)
    remote = upload(tmp_path, store.bucket())
    faults = (
        ("InternalError", "PUT", "/set/", 2),
        ("lost", "PUT", "/set/videos/", 1),
        ("SlowDown", "GET", "/raw/", 2),
        ("half", "GET", "/raw/", 1),
        ("reset", "GET", "/set/observations", 1),
    )
    datasets = []
    for place, ray in ((str(tmp_path), {}), (remote, store.environment)):
        words = (f"{place}/raw", f"{place}/set", "--detections", f"{place}/dets", "--set", "trim.height=48")
        with ExitStack() as failing:
            met = [failing.enter_context(store.failing(*fault)) for fault in faults]  # type: ignore[arg-type]
            process = start_microg(tmp_path / "log", "curate", *words, ray=ray)
            assert process.wait(280) == 0, (tmp_path / "log").read_text()
        assert all(bool(fault.met) is bool(ray) for fault in met[:3])
        datasets.append(Dataset.open(f"{place}/set"))
    for name in ("clips", "decisions", "boxes", "samples", "splits"):
        here, there = (dataset.table(name).to_pylist() for dataset in datasets)
        assert here == there, name
    assert datasets[1].table("boxes").num_rows > 0
