"""Files and folders that one process at a time writes to.

On a disk the system holds the lock, and lets go of it when the process ends. Object stores have no locks: there a
process puts an entry beside what it writes to and renews it; entries that are not renewed are void.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from microg import storage
from microg.errors import MicrogError, RunConflictError, StorageError, WriteError
from microg.storage_faults import writing

_LOCK, _LEASES = "lock", "leases"
_RENEW_EVERY_S = 20.0
# An entry that was not renewed for so long is void. Clocks of machines that share a store must agree better than this.
_VOID_AFTER_S = 120.0
# Of filesystems on which nothing can be locked, such as some cluster filesystems as they are mounted.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


@contextmanager
def exclusive(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a folder, such as a run's or a dataset's, on a disk or an object store, until the block or the process ends.

    Raises `RunConflictError` when another process holds it, and `WriteError` when it cannot be written. Folders
    that this call made and in which the block left nothing are removed.
    """
    place = storage.local_path(folder).absolute()
    made = [each for each in (place, *place.parents) if not each.exists()] if storage.is_local(folder) else []
    try:
        with _held(storage.join(folder, "."), str(folder)):
            yield
    finally:
        with suppress(OSError):
            for each in made:
                each.rmdir()


@contextmanager
def exclusive_file(path: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a file, such as a page, and what goes with it, as `exclusive` does a folder."""
    folder, slash, name = str(path).rpartition("/")
    with _held(f"{folder}{slash}.{name}.", str(path)):
        yield


def hidden(names: Iterable[str]) -> list[str]:
    """Return names of files without those by which a folder is held."""
    return [name for name in names if name not in (f".{_LOCK}", f".{_LEASES}")]


@contextmanager
def lock(path: Path, error: MicrogError | None = None, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a local file for this process until the block ends, or the process; the file is then removed.

    When another process has it, raises `error`, and without one calls `on_wait` and waits. Raises `WriteError` when it
    cannot be made.
    """
    with writing(path):
        file = _locked(path, error, on_wait)
    try:
        yield
    finally:
        with file, suppress(OSError):
            path.unlink()


def _locked(path: Path, error: MicrogError | None, on_wait: Callable[[], None]) -> IO[bytes]:
    """Return the open, locked file at `path`."""
    waited = False
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as failed, suppress(FileNotFoundError):  # the folder may be removed meanwhile: then again
            file = failed.enter_context(path.open("wb"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if error:
                    raise error from None
                if not waited:
                    on_wait()
                    waited = True
                fcntl.flock(file, fcntl.LOCK_EX)
            # else whoever had it removed it meanwhile, and another process may hold a new file of that name
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                failed.pop_all()
                return file


@contextmanager
def _held(prefix: str, what: str) -> Iterator[None]:
    """Hold what is called `what` by a lock, or where there are none by a lease, whose paths begin with `prefix`."""
    with ExitStack() as until:
        if storage.is_local(prefix):
            error = RunConflictError(f"another process is writing to {what}", "wait for it to finish")
            try:
                until.enter_context(lock(storage.local_path(f"{prefix}{_LOCK}"), error))
            except WriteError as refused:
                if not (isinstance(refused.__cause__, OSError) and refused.__cause__.errno in _NO_LOCKS):
                    raise
                until.enter_context(_Lease(f"{prefix}{_LEASES}", what))
        else:
            until.enter_context(_Lease(f"{prefix}{_LEASES}", what))
        yield


class _Lease:
    """An entry in `folder` that says that this process writes to `what`; a thread renews it.

    A process writes its entry first and then looks for others, so that of two that start at once at most one goes on;
    this needs a store that lists what was just written, as S3, GCS and Azure do.
    """

    def __init__(self, folder: str, what: str) -> None:
        self._folder, self._what = folder, what
        self._entry = storage.join(folder, f"{uuid.uuid4().hex}.json")
        self._ended = threading.Event()
        self._since = time.time()
        self._taken = False

    def __enter__(self) -> None:
        for last in (False, True):
            self._write()
            other = self._other()
            if other is None:
                self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
                self._thread.start()
                return
            storage.remove(self._entry)
            if last or time.time() - other["since"] > _RENEW_EVERY_S:  # else both may have begun at once
                raise RunConflictError(
                    f"another process is writing to {self._what}: {other['pid']} on {other['host']}",
                    f"wait for it to finish; if it was killed, its hold ends in {_left(other):.0f} s",
                )
            time.sleep(random.uniform(0.2, 1.0))

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        with suppress(StorageError):  # one that cannot be removed is void before long
            storage.remove(self._entry)
        if self._taken:
            raise RunConflictError(
                f"another process took over {self._what} while this one could not reach it",
                "run the same command again when that one has ended",
            )

    def _write(self) -> None:
        own = {"host": socket.gethostname(), "namespace": _pid_namespace(), "pid": os.getpid()}
        storage.write_json(self._entry, {**own, "since": self._since, "renewed": time.time()})

    def _other(self) -> dict[str, Any] | None:
        """Return the entry of another process that holds the folder, and remove entries that are void."""
        for name in storage.names(self._folder):
            path = storage.join(self._folder, name)
            if path == self._entry:
                continue
            try:
                entry = storage.read_json(path)
            except FileNotFoundError:
                continue
            if _left(entry) > 0 and not _is_dead(entry):
                return entry
            storage.remove(path)
        return None

    def _renew(self) -> None:
        while not self._ended.wait(_RENEW_EVERY_S):
            with suppress(MicrogError):  # the store may be back at the next turn
                if not storage.exists(self._entry):  # it was void, and another process removed it
                    self._taken = True
                    return
                self._write()


def _left(entry: dict[str, Any]) -> float:
    """Return the seconds until an entry is void."""
    return entry["renewed"] + _VOID_AFTER_S - time.time()


def _is_dead(entry: dict[str, Any]) -> bool:
    """Tell whether the process of an entry ran here and has ended: then nobody needs to wait."""
    if (entry["host"], entry["namespace"]) != (socket.gethostname(), _pid_namespace()):
        return False
    try:
        os.kill(entry["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _pid_namespace() -> str:
    """Return what tells this machine's or container's numbers of processes from those of another."""
    with suppress(OSError):
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    return ""
