from __future__ import annotations

import copy
import errno
import os
import sqlite3
from pathlib import Path

import pytest

from microg import storage
from microg.errors import StorageError, WriteError
from microg.storage_faults import ends_run, explain, writing


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, r"no room is left \([\d,.]+ MB free\)"),
        (errno.EDQUOT, r"your quota there is used up \([\d,.]+ MB free\)"),
        (errno.EROFS, "the filesystem is read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "the disk reports an error"),
        (errno.ESTALE, r"OSError: \[Errno \d+\] Stale file handle"),
    ],
)
def test_what_a_disk_refuses_names_the_file_the_cause_and_what_to_do(number: int, said: str, tmp_path: Path):
    expected = pytest.raises(WriteError, match=rf"^{tmp_path}/x cannot be written: {said} \(")
    with expected as refused, writing(tmp_path / "x"):
        raise OSError(number, os.strerror(number))
    assert refused.value.fix


def test_names_that_are_too_long_and_files_in_place_of_folders_are_told(tmp_path: Path):
    with pytest.raises(WriteError, match="its name is too long"):
        storage.write_bytes(tmp_path / ("x" * 300), b"")
    storage.write_bytes(tmp_path / "file", b"")
    with pytest.raises(WriteError, match="a part of its path is a file, not a folder"):
        storage.write_bytes(tmp_path / "file" / "below", b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(WriteError, match="a folder has that name"):
        storage.write_bytes(tmp_path / "folder", b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_full_database_is_a_full_disk(tmp_path: Path):
    base = sqlite3.connect(tmp_path / "base")
    base.execute("CREATE TABLE t (x)")
    base.execute("PRAGMA max_page_count = 2")
    with pytest.raises(WriteError, match="base cannot be written: no room is left"), writing(tmp_path / "base"):
        base.executemany("INSERT INTO t VALUES (?)", [("x" * 4000,)] * 9)
    with pytest.raises(sqlite3.OperationalError, match="no such table"), writing(tmp_path / "base"):
        base.execute("SELECT * FROM other")


def test_only_what_cannot_be_written_ends_a_run(tmp_path: Path):
    full = WriteError("x cannot be written", "make room")
    wrapped = RuntimeError("a task failed")
    wrapped.__cause__ = copy.copy(full)
    for error in (full, wrapped):
        found = ends_run(error)
        assert found is not None
        assert (found.what, found.fix) == (full.what, full.fix)
    assert ends_run(OSError(errno.ENOSPC, "full")) is not None
    for other in (PermissionError(errno.EACCES, "a video"), StorageError("s3://a cannot be read"), ValueError("row")):
        assert ends_run(other) is None


def test_an_error_that_no_disk_is_to_blame_for_is_not_explained():
    assert explain(ValueError("a bug")) is None
    known = explain(PermissionError(errno.EACCES, "Permission denied", "/etc/shadow"))
    assert known is not None
    assert known.what == "/etc/shadow: permission denied"
