"""Connecting to Ray: a local one with settings that avoid the known deadlocks, or a running cluster."""

from __future__ import annotations

import logging
import math
import os
import secrets
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import Any

from microg.config import Resources
from microg.console import say_aside
from microg.errors import WriteError
from microg.pipelines.core.ray_errors import NODE_WAIT_S, OTHER_DISK, explain, no_connection, no_start, ray_room
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


class _Beginning:
    """A connection that a thread of its own makes."""

    def __init__(self, resources: Resources | None, dashboard: bool) -> None:
        self._wanted = (resources, dashboard)
        self._error: BaseException | None = None
        self._connected = threading.Event()
        threading.Thread(target=self._connect, name="ray-start", daemon=True).start()

    def _connect(self) -> None:
        try:
            _connect(self._wanted[0], dashboard=self._wanted[1])
        except BaseException as error:
            self._error = error
        self._connected.set()
        threading.Event().wait()  # Ray's processes end with the thread that started them

    def end(self) -> None:
        """Wait until it is there, and raise what kept it from being."""
        self._connected.wait()
        if self._error is not None:
            raise self._error
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # Ray sets one, but from the main thread only
            signal.signal(signal.SIGTERM, _exit)


def _exit(signum: int, _: FrameType | None) -> None:
    """End as Ray's own handler does: what is to be done at the exit is done."""
    sys.exit(signum)


_beginning: _Beginning | None = None


def begin(resources: Resources | None = None, *, dashboard: bool = False) -> None:
    """Start to connect, on a thread: `connect`, with the same arguments, then finds Ray up or nearly so.

    A local Ray takes seconds in which its driver only waits. For the main thread, once what it checks is fine.
    """
    global _beginning
    if _beginning is None and threading.current_thread() is threading.main_thread():
        _beginning = _Beginning(resources, dashboard)


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
    global _beginning
    import_first = "ray" not in sys.modules  # a token must be there before; and tests patch what is imported
    if import_first:
        begin(resources, dashboard=dashboard)
    begun, _beginning = _beginning, None
    if begun is not None:
        import ray.data  # which takes as long as Ray does to come up  # noqa: F401

        begun.end()
    _connect(resources, dashboard=dashboard)


def _connect(resources: Resources | None, *, dashboard: bool) -> None:
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
        lean = address is None and not dashboard
        with _without_log_level_notice(), _lean_node() if lean else nullcontext():
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


@contextmanager
def _lean_node() -> Iterator[None]:
    """Have Ray start without what nobody asks of a local one, a third of the work of its start.

    That is its web server, the monitor of the autoscaler, which has no nodes to start, and the reader of workers' logs,
    which `log_to_driver` silences. Ray 2.60 has no settings for them.
    """
    from ray._private import services
    from ray._private.node import Node

    names = ("start_api_server", "start_monitor", "start_log_monitor")
    originals = {name: getattr(Node, name) for name in names}
    get_node = services.get_node

    def get_node_at_once(gcs_address: str, node_id: str) -> Any:
        _await_node(gcs_address, node_id)  # Ray itself looks once a second
        return get_node(gcs_address, node_id)

    for name in names:
        setattr(Node, name, lambda *_, **__: None)
    services.get_node = get_node_at_once
    try:
        yield
    finally:
        services.get_node = get_node
        for name, original in originals.items():
            setattr(Node, name, original)


def _await_node(gcs_address: str, node_id: str) -> None:
    """Wait until a node is there, or for so long as Ray waits."""
    from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]

    client, until = GcsClient(address=gcs_address), time.monotonic() + NODE_WAIT_S
    while time.monotonic() < until:
        if any(each.hex() == node_id for each in client.get_all_node_info(timeout=5)):
            return
        time.sleep(0.05)


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
