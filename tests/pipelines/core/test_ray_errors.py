"""Errors of Ray in one line each: the cause, and what to do."""

from __future__ import annotations

import sys

import pytest
from ray import exceptions
from ray.data.exceptions import ExecutionTimeoutError

from microg.errors import ConfigError, MicrogError, WorkerError, WriteError
from microg.jobs.common import make_app, run
from microg.pipelines.core import ray_errors
from microg.pipelines.core.ray_errors import explain, no_start
from microg.system.hardware import Hardware

_DEAD_ACTOR = """The actor died unexpectedly before finishing this task.
\tclass_name: Observer
\tactor_id: 0123
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker
 unexpectedly exits with a connection error code 2. End of file. There are some potential root causes. (1) The process
 is killed by SIGKILL by OOM killer due to high memory usage. (2) ray stop --force is called."""


def actor_died(text: str) -> exceptions.RayActorError:
    return exceptions.RayActorError("0123", text)


def task_error(cause: Exception) -> exceptions.RayTaskError:
    text = f"Traceback (most recent call last):\n  File x\n{type(cause).__name__}: {cause}"
    return exceptions.RayTaskError("observe", text, cause)


@pytest.mark.parametrize(
    ("error", "what", "fix"),
    [
        (actor_died(_DEAD_ACTOR), "process ended: Worker unexpectedly exits with a connection error", "memory_gb"),
        (
            exceptions.OutOfMemoryError("Memory on the node (IP: 10.0.0.2) was 15.3GB / 16GB (0.96)"),
            "10.0.0.2",
            "memory",
        ),
        (exceptions.WorkerCrashedError(), "crashed, or was killed", "resume"),
        (exceptions.LocalRayletDiedError(), "this machine's part of Ray ended", "resume"),
        (exceptions.ObjectStoreFullError("used 2 GB of 2 GB"), "object store is full: used 2 GB", "/dev/shm"),
        (exceptions.RuntimeEnvSetupError("pip install failed"), "environment", "packages"),
        (ExecutionTimeoutError("no progress for 900 s"), "nothing moved for too long", "ray status"),
        (task_error(KeyError("boxes")), "a worker failed: KeyError: 'boxes'", "--debug"),
        (exceptions.RaySystemError("lost it"), "Ray gave up: RaySystemError", "--debug"),
    ],
)
def test_each_kind_is_one_line_with_its_cause_and_a_way_on(error: Exception, what: str, fix: str):
    told = explain(error)
    assert isinstance(told, WorkerError)
    assert what in told.what
    assert "\n" not in told.what
    assert len(told.what) < 400
    assert fix in str(told.fix)


def test_what_our_own_code_raised_in_a_worker_comes_back_as_it_was():
    own = ConfigError("no such key", "see --settings")
    assert explain(task_error(own)) is own
    assert explain(exceptions.RaySystemError("x\nmicrog.errors.WriteError: /a is full\ny")).what == "/a is full"


def test_a_full_disk_of_rays_own_is_told_with_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: object):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    told = explain(exceptions.OutOfDiskError("full"))
    assert isinstance(told, WriteError)
    assert str(tmp_path) in told.what


def _machine(monkeypatch: pytest.MonkeyPatch, *, shared: int, memory_gb: float) -> None:
    found = Hardware("linux", "cpu", 2, 8.0, memory_gb, 10.0, 1.0, ())
    monkeypatch.setattr(ray_errors, "inspect", lambda: found)
    monkeypatch.setattr(ray_errors, "free_bytes", lambda path: shared)
    monkeypatch.setattr(ray_errors, "_last_words", lambda: None)


@pytest.mark.parametrize(
    ("shared", "memory_gb", "cause"),
    [(10**6, 8.0, "/dev/shm has 1 MB free"), (10**10, 0.2, "0.2 GB of memory"), (10**10, 8.0, "processes want the")],
)
def test_a_ray_that_does_not_start_says_what_keeps_it(
    monkeypatch: pytest.MonkeyPatch, shared: int, memory_gb: float, cause: str
):
    _machine(monkeypatch, shared=shared, memory_gb=memory_gb)
    told = no_start(Exception("The current node timed out during startup."))
    assert cause in told.what
    assert "less busy" not in str(told)


def test_an_error_of_ray_that_no_pipeline_expects_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    app = make_app("x")

    @app.command()
    def fail() -> None:
        raise actor_died(_DEAD_ACTOR)

    monkeypatch.setattr(sys, "argv", ["x"])
    with pytest.raises(SystemExit) as end:
        run(app)
    assert end.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["error", "  fix"]
    assert isinstance(explain(actor_died("x")), MicrogError)
