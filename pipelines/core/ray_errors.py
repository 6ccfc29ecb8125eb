"""What Ray's errors mean: one line with the cause, and what to do about it."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from microg import storage
from microg.errors import ConfigError, MicrogError, WorkerError, WriteError, describe
from microg.storage_faults import ends_run, free_bytes
from microg.system.hardware import inspect, usable_cores

_RESUME = "run the same command again to resume"
_DEBUG = f"{_RESUME}; --debug shows the whole report"
_FEWER_AT_ONCE = (
    f"give each worker more with --set resources.memory_gb=N, so that fewer run at once, or smaller batches; {_RESUME}"
)
OTHER_DISK = "make room there, or name a folder on a larger disk in RAY_TMPDIR, and run the same command again"
# Ray's sentences that say how a process ended; what follows them are guesses of all kinds.
_EXIT_DETAIL = re.compile(r"Worker exit detail: (.+?)(?: There are some potential root causes| Note:|$)", re.DOTALL)
_MICROG_ERROR = re.compile(r"^microg\.errors\.(\w+): (.+)$", re.MULTILINE)
_LOW_SHARED_BYTES, _LOW_MEMORY_GB, _LOW_FILES = 128 * 2**20, 1.0, 1024
NODE_WAIT_S = 30  # so long Ray waits for its own node


def is_rays(error: BaseException) -> bool:
    """Tell whether an error is of one of Ray's classes, without importing Ray."""
    return any(kind.__module__.partition(".")[0] == "ray" for kind in type(error).__mro__)


def explain(error: BaseException) -> MicrogError:
    """Return what to tell a user of an error that Ray raised: its cause in one line, and what to do.

    What our own code raised in a worker comes back as it was, as far as Ray keeps it.
    """
    for cause in _causes(error):
        if isinstance(cause, MicrogError):
            return cause
    if (ending := ends_run(error)) is not None:
        return ending
    text = str(error)
    if (told := _MICROG_ERROR.search(text)) is not None:  # Ray Data drops all but the text of a task's error
        return WriteError(told[2]) if told[1] == "WriteError" else WorkerError(told[2], _RESUME)
    names = {each.__name__ for each in type(error).__mro__}
    if "OutOfDiskError" in names:
        return WriteError(f"Ray has no room for its objects: {ray_room()[1]}", OTHER_DISK)
    for kind, what, fix in _KINDS:
        if kind in names:
            return WorkerError(what.format(reason=_reason(error)), fix)
    return WorkerError(f"Ray gave up: {type(error).__name__}: {_reason(error)}", _DEBUG)


# By the name of Ray's class, the more special first: what it means, and what to do.
_KINDS: tuple[tuple[str, str, str], ...] = (
    ("OutOfMemoryError", "a worker was stopped because its machine ran out of memory: {reason}", _FEWER_AT_ONCE),
    (
        "ObjectStoreFullError",
        "Ray's object store is full: {reason}",
        f"enlarge /dev/shm (docker run --shm-size=4g), or use fewer workers; {_RESUME}",
    ),
    ("AuthenticationError", "the cluster does not know this process: {reason}", "set RAY_AUTH_TOKEN to its token"),
    (
        "RuntimeEnvSetupError",
        "workers cannot be given their environment: {reason}",
        "check --working-dir and the packages of 'ray job submit', and the network of the nodes",
    ),
    ("LocalRayletDiedError", "this machine's part of Ray ended: it was killed, or ran out of memory", _FEWER_AT_ONCE),
    ("NodeDiedError", "a node of the cluster was lost: {reason}", _RESUME),
    ("OwnerDiedError", "the process that held a result has ended, with its node or by itself", _RESUME),
    ("ObjectLostError", "a result was lost with the node that held it, and could not be made again", _RESUME),
    ("GetTimeoutError", "a worker did not answer in time: {reason}", _DEBUG),
    ("ActorUnavailableError", "a worker cannot be reached: {reason}", _RESUME),
    ("RayActorError", "a worker's process ended: {reason}", _FEWER_AT_ONCE),
    ("WorkerCrashedError", "a worker's process crashed, or was killed", _FEWER_AT_ONCE),
    (
        "ExecutionTimeoutError",
        "nothing moved for too long: a worker hangs, or nodes did not come",
        f"'ray status' tells what is waited for; {_RESUME}",
    ),
    ("RayTaskError", "a worker failed: {reason}", _DEBUG),
)


def _reason(error: BaseException) -> str:
    """Return the one sentence of Ray's report that says what happened."""
    for cause in _causes(error):
        if cause is not error and not is_rays(cause):
            return describe(cause)
    text = str(error)
    if (detail := _EXIT_DETAIL.search(text)) is not None:
        return " ".join(detail[1].split()).rstrip(".")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # the last line of a traceback is the error; reports without one begin with it
    return (lines[-1] if "Traceback" in text else lines[0] if lines else "no message").rstrip(".")[:300]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what caused it, here or in a worker, the outermost first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        cause = getattr(error, "cause", None)
        error = cause if isinstance(cause, BaseException) else error.__cause__


def ray_room() -> tuple[int | None, str]:
    """Return the bytes that are free where Ray keeps its files on this machine, and a text that says so."""
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    free = free_bytes(folder)
    return free, f"{folder} has {(free or 0) / 1e6:,.0f} MB free"


def no_connection(address: str, error: BaseException) -> ConfigError:
    """Return what to tell a user whose cluster does not answer."""
    return ConfigError(
        f"cannot connect to Ray at {address}: {describe(error)}",
        "check the address, and RAY_AUTH_MODE=token with the cluster's token where it asks for one",
    )


def no_start(error: BaseException) -> WorkerError:
    """Return why no local Ray came up, as far as this machine tells: each cause that is found, or how busy it is."""
    machine = inspect()
    shared = free_bytes("/dev/shm") if Path("/dev/shm").is_dir() else None
    files = _open_files()
    if shared is not None and shared < _LOW_SHARED_BYTES:
        cause = f"/dev/shm has {shared / 1e6:,.0f} MB free, and Ray keeps its objects there"
        fix = "enlarge it (docker run --shm-size=4g), or remove what other programs left in it"
    elif machine.available_gb is not None and machine.available_gb < _LOW_MEMORY_GB:
        cause, fix = f"{machine.available_gb:.1f} GB of memory are free", "stop other programs, or use a larger machine"
    elif files is not None and files < _LOW_FILES:
        cause, fix = f"a process may open {files} files here", f"ulimit -n {_LOW_FILES * 8}"
    elif (told := _last_words()) is not None:
        cause, fix = told, "--debug shows the whole report"
    else:
        load = os.getloadavg()[0]
        cause = (
            f"its processes did not answer within {NODE_WAIT_S} s; {load:.0f} processes want the "
            f"{usable_cores():g} cores of this machine"
        )
        fix = "stop some of them, or join a Ray that runs: ray start --head, then --address auto"
    return WorkerError(f"Ray did not start on this machine: {cause} ({describe(error)})", fix)


def _open_files() -> int | None:
    try:
        import resource

        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    except (ImportError, OSError, ValueError):
        return None


def _last_words() -> str | None:
    """Return the last failure in the logs of the newest session of Ray here; None where there is none."""
    root = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray" / "session_latest" / "logs"
    for name in ("gcs_server.err", "raylet.err", "gcs_server.out", "raylet.out"):
        try:
            lines = storage.join_local(root, name).read_text("utf-8", "replace").splitlines()[-400:]
        except OSError:
            continue
        for line in reversed(lines):
            if re.search(r" [CF] |Check failed|what\(\):|Address already in use|Cannot allocate", line):
                return f"{name} says: {line.strip()[-200:]}"
    return None
