"""Engines on the same GPUs start one after the other, on other GPUs at once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from microg import locks
from microg.models.vlm.engines import gpu_turn
from microg.models.vlm.engines.gpu_turn import turn_on_gpus, wait_for_gpu_memory

_HOLDER = """
import sys
from microg.models.vlm.engines.gpu_turn import turn_on_gpus
with turn_on_gpus():
    print("here", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(("mine", "waits"), [("1", True), ("0,1", True), ("2,0", False)])
def test_the_same_gpu_is_started_on_by_one_process_at_a_time(
    mine: str, waits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_turn.tempfile, "gettempdir", lambda: str(tmp_path))
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "1", "TMPDIR": str(tmp_path)}
    other = subprocess.Popen(
        [sys.executable, "-c", _HOLDER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdin is not None
    assert other.stdout is not None
    assert other.stdout.readline() == "here\n"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mine)
    held: list[bool] = []

    def lock_or_say(file: Any, operation: int) -> None:
        """Lock as `flock` does; where it would wait, let the other process end first."""
        try:
            flock(file, operation | locks.fcntl.LOCK_NB)
        except BlockingIOError:
            held.append(True)
            other.kill()
            other.wait()
            flock(file, operation)

    flock = locks.fcntl.flock
    monkeypatch.setattr(locks.fcntl, "flock", lock_or_say)
    with turn_on_gpus():
        assert bool(held) is waits
    other.kill()
    other.wait()


def test_memory_of_a_process_that_ended_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    free = iter([0.1, 0.3, 0.5])
    wait_for_gpu_memory(0.45, 1000, lambda: next(free))
    assert len(slept) == 2
    wait_for_gpu_memory(0.45, 1000, lambda: None)
    wait_for_gpu_memory(0.45, 0, lambda: 0.1)
    assert len(slept) == 2
