"""What to tell a user whose disk or object store does not take a file, or does not give it."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from microg.errors import StorageError, WriteError, describe

_AGAIN = "then run the same command again: what was done before is kept"
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
# Why a file cannot be written, and what to do, by the number of the system's error.
_REASONS = {
    errno.ENOSPC: ("no room is left", f"make room there or choose another folder, {_AGAIN}"),
    errno.EDQUOT: ("your quota there is used up", f"make room there or choose another folder, {_AGAIN}"),
    errno.EFBIG: ("it would be larger than a file may be", "raise the limit (ulimit -f), or choose another filesystem"),
    errno.EROFS: ("the filesystem is read-only", "choose a folder that can be written"),
    errno.EACCES: ("permission denied", "choose a folder that you may write to, or change its permissions"),
    errno.EPERM: ("the system does not permit it", "choose a folder that you may write to"),
    errno.ENAMETOOLONG: ("its name is too long", "choose shorter names"),
    errno.ENOTDIR: ("a part of its path is a file, not a folder", "choose another path, or move that file away"),
    errno.EEXIST: ("a part of its path is a file, not a folder", "choose another path, or move that file away"),
    errno.EISDIR: ("a folder has that name", "choose another name, or move that folder away"),
    errno.ENOTEMPTY: ("a folder has that name", "choose another name, or move that folder away"),
    errno.EMFILE: ("too many files are open", "raise the limit (ulimit -n)"),
    errno.EIO: ("the disk reports an error", f"see to the disk, {_AGAIN}"),
}
# Whose exceptions are no OSError: a store that cannot be reached, credentials that are missing or refused.
_STORE_LIBRARIES = frozenset({"aiobotocore", "aiohttp", "botocore", "gcsfs", "google", "requests"})
_CREDENTIALS = (
    "set AWS_PROFILE (or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), AWS_DEFAULT_REGION, and for a store that is "
    "not Amazon's AWS_ENDPOINT_URL; for gs://, GOOGLE_APPLICATION_CREDENTIALS"
)


@contextmanager
def writing(uri: str | os.PathLike[str]) -> Iterator[None]:
    """Raise a `WriteError` that names `uri` for what a disk, an object store or SQLite refuses in the block."""
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        known = _of_sqlite(error) or error
        if not (isinstance(known, OSError) or _of_store(known)):
            raise
        raise _unwritable(uri, known) from error


@contextmanager
def reading(uri: str | os.PathLike[str]) -> Iterator[None]:
    """Raise a `StorageError` that names `uri` when an object store does not serve it.

    That a file is not there stays a `FileNotFoundError`; what a local path meets is left alone.
    """
    try:
        yield
    except (StorageError, FileNotFoundError):
        raise
    except Exception as error:
        if not _is_remote(uri) or not (isinstance(error, OSError) or _of_store(error)):
            raise
        raise StorageError(f"{uri} cannot be read: {_said(error)}", _store_fix(error)) from error


def ends_run(error: BaseException) -> WriteError | None:
    """Return what ends a whole run, not the row that met it: a file that cannot be written; None for all else."""
    for each in _causes(error):
        if isinstance(each, WriteError):
            return WriteError(each.what, each.fix)  # not Ray's form of it
        if isinstance(each, OSError) and each.errno in _NO_ROOM:
            return _unwritable(each.filename or tempfile.gettempdir(), each)
    return None


def explain(error: BaseException) -> StorageError | None:
    """Return what to tell a user of an error that ended a command; None where no disk or store is at fault."""
    if (known := ends_run(error)) is not None:
        return known
    if isinstance(error, OSError):
        reason, fix = _REASONS.get(error.errno or 0, (describe(error), "--debug shows where it happened"))
        return StorageError(reason if error.filename is None else f"{error.filename}: {reason}", fix)
    if _of_store(error):
        return StorageError(f"object store: {_said(error)}", _store_fix(error))
    return None


def free_bytes(path: str | os.PathLike[str]) -> int | None:
    """Return the bytes that are free where a local path lies, or will lie; None where that cannot be known."""
    place = Path(str(path).removeprefix("file://")).expanduser().absolute()
    for folder in (place, *place.parents):
        try:
            return shutil.disk_usage(folder).free
        except OSError:
            continue
    return None


def _unwritable(uri: str | os.PathLike[str], error: BaseException) -> WriteError:
    if _is_remote(uri):
        return WriteError(f"{uri} cannot be written: {_said(error)}", _store_fix(error))
    number = error.errno if isinstance(error, OSError) else None
    reason, fix = _REASONS.get(number or 0, (describe(error), f"see to that, {_AGAIN}"))
    free = free_bytes(uri) if number in _NO_ROOM else None
    room = "" if free is None else f" ({free / 1e6:,.1f} MB free)"
    return WriteError(f"{uri} cannot be written: {reason}{room}", fix)


def _of_sqlite(error: Exception) -> OSError | None:
    """Return the system's error that SQLite tells of, None where it tells of something else."""
    known = {sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_READONLY: errno.EROFS, sqlite3.SQLITE_IOERR: errno.EIO}
    number = known.get(error.sqlite_errorcode & 0xFF) if isinstance(error, sqlite3.OperationalError) else None
    return None if number is None else OSError(number, str(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, and what caused it, here or in a worker of Ray."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        yield each
        seen.add(id(each))
        each = each.__cause__ or getattr(each, "cause", None)


def _is_remote(uri: str | os.PathLike[str]) -> bool:
    return "://" in str(uri) and not str(uri).startswith("file://")


def _of_store(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in _STORE_LIBRARIES


def _said(error: BaseException) -> str:
    return str(error) if isinstance(error, FileNotFoundError) else describe(error)


def _store_fix(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "make the bucket, or correct its name"
    return f"see that the store can be reached and that it knows you: {_CREDENTIALS}; {_AGAIN}"
