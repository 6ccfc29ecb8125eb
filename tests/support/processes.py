"""Running `microg`: in this process on the session's Ray, or as a process that may be killed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from microg.jobs import cli, common
from tests.support.environment import without_ray

ROOT = Path(__file__).resolve().parents[2]


def microg(*arguments: object) -> int:
    """Run the command in this process and return its exit code."""
    before, sys.argv = sys.argv, ["microg", *map(str, arguments)]
    try:
        common.run(cli.app)
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        sys.argv = before
    return 0


def start_microg(log: Path, *arguments: object, ray: Mapping[str, str] | None = None) -> psutil.Popen:
    """Start the command in a process group of its own, with a Ray of its own or that which `ray`'s variables tell."""
    with log.open("wb") as output:
        return psutil.Popen(
            [sys.executable, "-m", "microg.jobs.cli", *map(str, arguments)],
            cwd=ROOT,
            env=without_ray(**(ray or {})),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_for(condition: Callable[[], bool], process: psutil.Popen, log: Path, seconds: float = 200) -> None:
    """Wait until `condition` holds while the process lives."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.02)


def family(process: psutil.Popen) -> dict[psutil.Process, str]:
    """Return all processes below one, with their command lines."""
    names = {}
    for child in process.children(recursive=True):
        try:
            names[child] = " ".join(child.cmdline())
        except psutil.Error:  # ended meanwhile
            continue
    return names


def check_gone(processes: dict[psutil.Process, str], actor: str) -> None:
    """All workers end; of Ray's own agents, which write nothing, some notice only later that their node is gone."""
    workers = [process for process, name in processes.items() if "Agent" not in name]
    assert any(f"MapBatches({actor})" in name for name in processes.values())
    alive = psutil.wait_procs(workers, timeout=60)[1]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    assert not alive, [processes[process] for process in alive]
