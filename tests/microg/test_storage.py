from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from microg import storage
from microg.errors import DatasetError, PathError, WriteError

SCHEMA = pa.schema([("id", pa.string()), ("value", pa.int32())])


def rows(*ids: str) -> pa.Table:
    return pa.table({"id": list(ids), "value": list(range(len(ids)))}, schema=SCHEMA)


def test_paths_join():
    assert storage.join("a/", "b", "c") == "a/b/c"
    assert storage.join("s3://bucket/x", "y/z") == "s3://bucket/x/y/z"
    assert storage.join("a", "b..c") == "a/b..c"


@pytest.mark.parametrize(
    "part", ["/b", "gs://b/c", "..", "../b", "b/../../c", "zip::b", "b\0.mp4", "file:///etc/passwd"]
)
@pytest.mark.parametrize("root", ["a", "/a", "s3://bucket/a"])
def test_a_part_that_would_leave_the_folder_is_refused(root: str, part: str):
    with pytest.raises(PathError, match="may not become part of a path below"):
        storage.join(root, "videos", part)


def test_local_and_remote_are_told_apart(monkeypatch: pytest.MonkeyPatch):
    assert storage.is_local("/a")
    assert storage.is_local("file:///a")
    assert not storage.is_local("s3://a")
    assert storage.local_path("file:///a/b") == Path("/a/b")
    monkeypatch.setenv("HOME", "/home/me")
    assert storage.local_path("~/b") == Path("/home/me/b")


@pytest.mark.parametrize("root", ["{tmp}", "file://{tmp}", "memory://test-storage"])
def test_files_are_written_and_read_on_every_filesystem(root: str, tmp_path: Path):
    base = storage.join(root.format(tmp=tmp_path), "deep", "folder")
    storage.write_json(storage.join(base, "a.json"), {"ü": [1, None]})
    assert storage.read_json(storage.join(base, "a.json")) == {"ü": [1, None]}
    storage.write_parquet(storage.join(base, "b.parquet"), rows("x", "y"))
    assert storage.read_parquet(storage.join(base, "b.parquet")).equals(rows("x", "y"))
    assert storage.read_parquet_folder(base, SCHEMA).equals(rows("x", "y"))
    assert storage.exists(base)
    assert not storage.exists(storage.join(base, "c"))


def test_reader_never_sees_half_a_file(tmp_path: Path):
    path = tmp_path / "x.json"
    storage.write_json(path, ["0" * 200_000])
    stop = threading.Event()
    seen: set[int] = set()

    def read() -> None:
        while not stop.is_set():
            seen.add(len(storage.read_json(path)[0]))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(20):
        storage.write_json(path, ["1" * 200_000])
    stop.set()
    reader.join()
    assert seen == {200_000}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_failed_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    storage.write_bytes(tmp_path / "x", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match=r"x cannot be written: no room is left \([\d,.]+ MB free\)"):
        storage.write_bytes(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_torn_files_of_killed_writers_are_skipped(tmp_path: Path):
    storage.write_parquet(tmp_path / "a.parquet", rows("x", "y"))
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[:-9])
    (tmp_path / "c.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "d.parquet").write_bytes(b"")
    (tmp_path / "e.parquet.1234.tmp").write_bytes(whole)
    assert storage.read_parquet_folder(tmp_path, SCHEMA).equals(rows("x", "y"))


def test_folder_of_parquet_files_fills_missing_columns_and_selects(tmp_path: Path):
    storage.write_parquet(tmp_path / "old.parquet", pa.table({"id": ["x"]}))
    assert storage.read_parquet_folder(tmp_path, SCHEMA).to_pylist() == [{"id": "x", "value": None}]
    for folder in (tmp_path, tmp_path / "none"):
        assert storage.read_parquet_folder(folder, SCHEMA, columns=["value", "id"]).column_names == ["value", "id"]
    assert storage.read_parquet_folder(tmp_path / "none", SCHEMA).schema == SCHEMA


def test_empty_folder_of_parquet_files_has_no_rows(tmp_path: Path):
    assert storage.read_parquet_folder(tmp_path, SCHEMA).num_rows == 0


def test_column_of_another_type_is_refused(tmp_path: Path):
    storage.write_parquet(tmp_path / "a.parquet", pa.table({"id": ["x"], "value": ["not a number"]}))
    with pytest.raises(DatasetError, match="not a number"):
        storage.read_parquet_folder(tmp_path, SCHEMA)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all", None])
def test_damaged_or_missing_parquet_is_named(tmp_path: Path, content: bytes | None):
    if content is not None:
        (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(DatasetError, match=r"x\.parquet"):
        storage.read_parquet(tmp_path / "x.parquet")


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe"])
def test_damaged_json_is_named(tmp_path: Path, content: bytes):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DatasetError, match=r"x\.json is not valid JSON"):
        storage.read_json(tmp_path / "x.json")


def test_filesystem_that_is_not_installed_says_what_to_install():
    with pytest.raises(DatasetError, match="cannot open nosuch://x"):
        storage.read_bytes("nosuch://x")


def test_sha256_is_that_of_the_bytes(tmp_path: Path):
    (tmp_path / "x").write_bytes(b"abc" * 100_000)
    assert storage.sha256(tmp_path / "x") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_a_file_has_the_same_hash_wherever_it_lies(tmp_path: Path):
    content = bytes(range(256)) * 1000
    places = [str(tmp_path / "file"), "memory://hashes/file"]
    for place in places:
        storage.write_bytes(place, content)
    assert {storage.sha256(place) for place in places} == {hashlib.sha256(content).hexdigest()}


def test_names_in_a_folder_are_sorted_and_without_those_below(tmp_path: Path) -> None:
    for name in ("b.json", "a/c.json"):
        storage.write_json(str(tmp_path / name), 1)
    assert storage.names(str(tmp_path)) == ["a", "b.json"]
    assert storage.names(str(tmp_path / "absent")) == []
