"""`ray job submit --working-dir . -- python jobs/curate.py ...` to a head that asks for a token."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from microg import schema, storage
from microg.dataset import Dataset
from tests.curation import write_detections, write_footage
from tests.jobs.test_curate import SMALL, microg

ROOT = Path(__file__).resolve().parents[2]
RAY = Path(sys.executable).with_name("ray")


@dataclass(frozen=True)
class Head:
    """A running Ray head: the address of its job server, and the environment in which it can be reached."""

    address: str
    environment: dict[str, str]


def free_ports(count: int) -> list[int]:
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def answers(head: Head) -> bool:
    request = urllib.request.Request(
        f"{head.address}/api/version", headers={"Authorization": f"Bearer {head.environment['RAY_AUTH_TOKEN']}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """Start a head on ports of its own, and end it with all that it started."""
    gcs, dashboard, agent, client = free_ports(4)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    }  # fmt: skip
    found = Head(f"http://127.0.0.1:{dashboard}", environment)
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:  # short: Ray's sockets lie in it
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = psutil.Popen(
                [
                    str(RAY), "start", "--head", "--block", "--num-cpus=4", f"--port={gcs}", f"--temp-dir={folder}/ray",
                    "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
                    f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}",
                ],
                cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            end = time.monotonic() + 120
            while not answers(found):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.2)
            yield found
        finally:
            started = [process, *process.children(recursive=True)]
            for one in started:
                with_grace = one is process
                try:
                    one.terminate() if with_grace else one.kill()
                except psutil.NoSuchProcess:
                    continue
            psutil.wait_procs(started, timeout=30)


def submit(head: Head, *words: object, **changes: str) -> subprocess.CompletedProcess[str]:
    command = [RAY, "job", "submit", "--address", head.address, "--working-dir", ".", "--", "python", *words]
    return subprocess.run(
        [str(word) for word in command], cwd=ROOT, env=head.environment | changes, capture_output=True, text=True,
        timeout=280,
    )  # fmt: skip


@pytest.mark.slow
def test_a_submitted_job_gives_the_tables_of_a_local_run(head, ray_session, tmp_path):
    write_footage(tmp_path / "raw" / "tour.mp4", seconds=6.2, seed=1)
    (tmp_path / "raw" / "broken.mp4").write_bytes(b"no video")
    for number, person_frames in enumerate((90, 20)):
        write_detections(tmp_path / "dets", f"tour_{number:03d}", person_frames=person_frames)
    options = ("--detections", tmp_path / "dets", *SMALL)
    assert microg(tmp_path / "raw", tmp_path / "local", *options) == 1

    done = submit(head, "jobs/curate.py", tmp_path / "raw", tmp_path / "job", *options)
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
    code = "import jobs.cli, pipelines.curate as c; print('CODE', jobs.cli.__file__, c.__file__)"
    done = submit(head, "-c", code)
    assert done.returncode == 0, done.stdout + done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("CODE"))
    assert line.count("working_dir_files") == 2, line


@pytest.mark.slow
def test_a_head_takes_no_job_without_its_token(head):
    done = submit(head, "-c", "pass", RAY_AUTH_TOKEN="wrong")
    assert done.returncode == 1
    assert "authenti" in (done.stdout + done.stderr).lower() or "token" in (done.stdout + done.stderr).lower()
