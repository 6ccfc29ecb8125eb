"""Connecting to Ray: a local one with settings that avoid the known deadlocks, or a running cluster."""

from __future__ import annotations

import logging
import math
import os
import secrets
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from microg.config import Resources
from microg.console import say_aside
from microg.errors import WriteError
from microg.pipelines.core.ray_errors import OTHER_DISK, explain, no_connection, no_start, ray_room
from microg.system.hardware import usable_cores

_QUIET = {
    # The hook of `uv run` uploads the working directory and rebuilds the environment for each session.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_DATA_LOG_LEVEL": "ERROR",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}
# One stuck stage must become an error, not a silent hang; far above the slowest batch of any stage.
_NO_PROGRESS_TIMEOUT_S = 900
_started_here = False
_RAY_NEEDS = 64 * 2**20  # logs and sockets of a session, at least


def connect(resources: Resources | None = None, *, dashboard: bool = False) -> None:
    """Connect this process to Ray once; a second call does nothing.

    `dashboard` starts it with a local Ray: without its State API nobody frees the workers of a trial stopped early.

    Locally twice as many CPUs are declared as there are cores, at least four: one a core for a job's actors, as many
    for the short tasks beside them. With fewer, tasks and actors wait for each other forever. Raises `ConfigError`
    when a given address does not answer, `WorkerError` when no local Ray comes up, and `WriteError` when it has no
    room. A Ray that runs on this machine, or has left its address behind, is joined by its address alone, given here
    or in RAY_ADDRESS. Who talks to a local Ray has to know a token that is made here, unless RAY_AUTH_MODE says
    otherwise.
    """
    for key, value in _QUIET.items():
        os.environ.setdefault(key, value)
    address = (resources.address if resources else None) or os.environ.get("RAY_ADDRESS")
    if address is None:
        _make_token()
    import ray
    from ray._private import ray_constants

    # A caller that imported Ray before has Ray's default, which is to upload the folder and rebuild the environment.
    ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] == "1"
    if ray.is_initialized():
        configure_data()
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address is None:
        # A look at every process each 2.5 s, for a dashboard nobody opens, took a third of a core.
        os.environ.setdefault("REPORTER_UPDATE_INTERVAL_MS", "60000")
        require_room()
        options |= {"num_cpus": max(4, 2 * math.ceil(usable_cores())), "include_dashboard": dashboard}
        _announce_own_ray()
    try:
        with _without_log_level_notice():
            ray.init(address=address or "local", **options)
    except Exception as error:  # a node that does not come up in time is a plain Exception
        raise (no_start(error) if address is None else no_connection(address, error)) from error
    global _started_here
    _started_here = address is None
    _messages_to_stderr()
    configure_data()


def _make_token() -> None:
    """Have a local Ray ask for a token that the processes of this command alone know.

    Ray listens on all of the machine's addresses, and runs what it is told. It reads the mode when it is imported: a
    caller that did so before has to choose it by itself.
    """
    if os.environ.setdefault("RAY_AUTH_MODE", "disabled" if "ray" in sys.modules else "token") == "token":
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def require_room() -> None:
    """Raise `WriteError` where a local Ray has no room for its own files: it would hang at its start."""
    free, said = ray_room()
    if free is not None and free < _RAY_NEEDS:
        raise WriteError(f"Ray has no room for its own files: {said}", OTHER_DISK)


def _announce_own_ray() -> None:
    """Say in a line that a local Ray is started beside one that `ray start` left its address of."""
    from ray._private import services
    from ray._private.utils import read_ray_address

    known = read_ray_address()
    if known in services.find_gcs_addresses():
        say_aside(
            f"a Ray runs here at {known}; this command starts its own (--address {known} joins it)",
        )
    elif known:
        say_aside(f"the Ray that ran here at {known} has ended; this command starts its own")


def _messages_to_stderr() -> None:
    """Have Ray print the cluster's messages on standard error: on standard output they would break a command's JSON.

    Ray 2.60 prints them from a thread of the driver, whatever `log_to_driver` says, and has no setting for it.
    """
    from ray._private import worker

    if worker.print_to_stdstream.__module__ == __name__:
        return
    original = worker.print_to_stdstream

    def print_to_stderr(data: dict[str, Any], ignore_prefix: bool) -> None:
        original({**data, "is_err": True}, ignore_prefix)

    worker.print_to_stdstream = print_to_stderr


@contextmanager
def _without_log_level_notice() -> Iterator[None]:
    """Keep Ray's C++ part from printing, on every start, that RAY_BACKEND_LOG_LEVEL is set; all else is printed."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            captured.seek(0)
            lines = [line for line in captured if b"RAY_BACKEND_LOG_LEVEL" not in line]
            if lines:
                os.write(2, b"".join(lines))


def configure_data() -> None:
    """Set what Ray Data of this process needs; actors that build datasets call it too."""
    from ray.data import DataContext

    from microg.pipelines.core.pacing import Paced

    context = DataContext.get_current()
    if Paced not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(Paced)
    context.execution_no_progress_timeout_s = _NO_PROGRESS_TIMEOUT_S
    context.enable_progress_bars = False
    # Few clips for many actors is no mistake.
    warnings.filterwarnings("ignore", message="The minimum number of concurrent actors")


def ordered_execution(ahead_bytes: int) -> Any:
    """Return Ray Data's options for a stream whose order is kept and that runs at most `ahead_bytes` ahead."""
    from ray.data import ExecutionOptions, ExecutionResources

    limits = ExecutionResources.for_limits(object_store_memory=ahead_bytes)
    return ExecutionOptions(preserve_order=True, resource_limits=limits)


def started_here() -> bool:
    """Tell whether this process started the Ray that it is connected to, on this machine alone."""
    return _started_here


@contextmanager
def ray_failures_as_worker_errors() -> Iterator[None]:
    """Raise what `microg.pipelines.core.ray_errors.explain` makes of it when Ray gives up."""
    from ray.data.exceptions import ExecutionTimeoutError, SystemException
    from ray.exceptions import RayError

    try:
        yield
    except (RayError, ExecutionTimeoutError, SystemException) as error:
        raise explain(error) from error
