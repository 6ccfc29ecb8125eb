"""A Ray head that asks for a token, with more nodes beside it if wanted, and jobs submitted to it."""

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.environment import without_ray

ROOT = Path(__file__).resolve().parents[2]
RAY = Path(sys.executable).with_name("ray")


@dataclass(frozen=True)
class Head:
    """A running Ray head: addresses of its job server and for drivers, and the environment in which it can be reached.

    `nodes` are the processes of the nodes, the head's first; `add_node` starts one more and waits until it joined.
    """

    address: str
    gcs: str
    environment: dict[str, str]
    nodes: list[psutil.Popen]
    add_node: Callable[[], None]

    def submit(self, *words: object, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run `ray job submit --working-dir . -- python WORDS` in the repository, with other variables."""
        command = [RAY, "job", "submit", "--address", self.address, "--working-dir", ".", "--", "python", *words]
        return subprocess.run(
            [str(word) for word in command],
            cwd=ROOT,
            env=self.environment | changes,
            capture_output=True,
            text=True,
            timeout=500,
        )

    def alive_nodes(self) -> int:
        """Return how many nodes the head knows and that live."""
        answer = self._get("/api/v0/nodes?detail=0")
        return answer.count(b'"state": "ALIVE"') + answer.count(b'"state":"ALIVE"')

    def answers(self) -> bool:
        """Tell whether jobs can be submitted."""
        try:
            return bool(self._get("/api/version"))
        except (urllib.error.URLError, OSError):
            return False

    def _get(self, path: str) -> bytes:
        token = self.environment["RAY_AUTH_TOKEN"]
        request = urllib.request.Request(f"{self.address}{path}", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=5) as reply:
            return reply.read()


@contextmanager
def ray_head(
    *, workers: int = 0, cpus: int = 4, gpus: int = 0, variables: Mapping[str, str] | None = None
) -> Iterator[Head]:
    """Start a head that declares `cpus` CPUs and `gpus` GPUs, and `workers` nodes like it, on ports of their own; end
    all that was started.

    `variables` are set for every node, and so for every job.
    """
    gcs, dashboard, client = free_ports(3)
    environment = without_ray() | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        **(variables or {}),
    }
    started: list[psutil.Popen] = []

    def add_node() -> None:  # one after the other: on a busy machine a node soon gives up joining
        before = head.alive_nodes()
        start(f"--address=127.0.0.1:{gcs}")
        wait_for(1 + before)

    head = Head(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{gcs}", environment, started, add_node)
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:  # short: Ray's sockets lie in it
        log = Path(folder) / "log"

        def start(*words: str) -> None:
            command = [
                str(RAY),
                "start",
                "--block",
                "--node-ip-address=127.0.0.1",
                f"--num-cpus={cpus}",
                f"--num-gpus={gpus}",
                "--object-store-memory=200000000",
                f"--dashboard-agent-listen-port={free_ports(1)[0]}",
                *words,
            ]
            with log.open("ab") as output:
                started.append(
                    psutil.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
                )

        def wait_for(count: int) -> None:
            end = time.monotonic() + 120
            while not (head.answers() and head.alive_nodes() >= count):
                assert started[-1].poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.2)

        try:
            start(
                "--head",
                f"--port={gcs}",
                f"--temp-dir={folder}/ray",
                "--dashboard-host=127.0.0.1",
                f"--dashboard-port={dashboard}",
                f"--ray-client-server-port={client}",
            )
            wait_for(1)
            for _ in range(workers):
                add_node()
            yield head
        finally:
            end_processes(started)


@contextmanager
def bare_head(folder: str) -> Iterator[str]:
    """Start a head without a dashboard whose files are below `folder`, a short path; yield its address for drivers."""
    known = Path(folder) / "ray" / "ray_current_cluster"
    words = ["--head", "--block", "--include-dashboard=false", "--num-cpus=1", "--object-store-memory=100000000"]
    words += [f"--port={free_ports(1)[0]}", f"--temp-dir={known.parent}"]
    environment = without_ray(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
    with (Path(folder) / "log").open("wb") as log:
        command = [str(RAY), "start", *words]
        head = psutil.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + 120
        while not known.exists():
            assert head.poll() is None, (Path(folder) / "log").read_text()
            assert time.monotonic() < end, (Path(folder) / "log").read_text()
            time.sleep(0.1)
        yield known.read_text()
    finally:
        end_processes([head])


def end_processes(started: Sequence[psutil.Process]) -> None:
    family: list[psutil.Process] = []
    for process in started:
        with suppress(psutil.NoSuchProcess):
            family += [process, *process.children(recursive=True)]
    for one in family:
        with suppress(psutil.NoSuchProcess):
            one.kill()  # a head that is asked to end drains its node for half a minute
    end = time.monotonic() + 30
    while any(map(_runs, family)) and time.monotonic() < end:
        time.sleep(0.05)


def _runs(process: psutil.Process) -> bool:
    """Tell whether a process runs: one that has ended may wait for ever for a parent that asks how."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on."""
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
