"""`ray job submit --working-dir . -- python jobs/curate.py ...` to a head that asks for a token."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from microg import storage
from microg.data import schema
from microg.data.dataset import Dataset
from tests.jobs.test_curate import SMALL, microg
from tests.support.curation import write_detections, write_footage
from tests.support.ray_head import Head, ray_head


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head() as started:
        yield started


@pytest.mark.slow
def test_a_submitted_job_gives_the_tables_of_a_local_run(head, ray_session, tmp_path):
    write_footage(tmp_path / "raw" / "tour.mp4", seconds=6.2, seed=1)
    (tmp_path / "raw" / "broken.mp4").write_bytes(b"no video")
    for number, person_frames in enumerate((90, 20)):
        write_detections(tmp_path / "dets", f"tour_{number:03d}", person_frames=person_frames)
    options = ("--detections", tmp_path / "dets", *SMALL)
    assert microg(tmp_path / "raw", tmp_path / "local", *options) == 1

    done = head.submit("jobs/curate.py", tmp_path / "raw", tmp_path / "job", *options)
    assert done.returncode == 1, done.stdout + done.stderr  # as the command itself: one file failed
    assert "1 files and 0 clips failed" in done.stdout
    submitted, local = Dataset.open(str(tmp_path / "job")), Dataset.open(str(tmp_path / "local"))
    assert local.table("boxes").num_rows > 0
    for name in schema.TABLES:
        assert submitted.table(name).to_pylist() == local.table(name).to_pylist(), name
    for name in ("bounding_boxes.csv", "videos/tour_000.mp4"):
        assert storage.sha256(tmp_path / "job" / name) == storage.sha256(tmp_path / "local" / name)


@pytest.mark.slow
def test_a_job_runs_the_uploaded_code(head):
    code = (
        "from microg.jobs import cli; from microg.pipelines.curate import pipeline; "
        "print('CODE', cli.__file__, pipeline.__file__)"
    )
    done = head.submit("-c", code)
    assert done.returncode == 0, done.stdout + done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("CODE"))
    assert line.count("working_dir_files") == 2, line


@pytest.mark.slow
def test_a_head_takes_no_job_without_its_token(head):
    done = head.submit("-c", "pass", RAY_AUTH_TOKEN="wrong")
    assert done.returncode == 1
    assert "authenti" in (done.stdout + done.stderr).lower() or "token" in (done.stdout + done.stderr).lower()
