"""Datasets and run folders on an S3-compatible store, through s3fs as users have it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import boto3
import numpy as np
import pyarrow as pa
import pytest
import s3fs

from microg import storage
from microg.config import Config
from microg.data import schema
from microg.data.dataset import Dataset
from microg.errors import RunConflictError, StorageError, VideoAccessError, WriteError
from microg.locks import exclusive
from microg.models.video.encode import Mp4Writer
from microg.pipelines.core.part_files import WRITTEN, PartFiles
from microg.pipelines.curate.find_footage import list_footage
from microg.runs import Run
from microg.video import read_rgb
from tests.support.command_line import refused
from tests.support.helpers import make_dataset
from tests.support.s3_server import Kind, ObjectStore, object_store, upload


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store() as started:
        yield started


@pytest.fixture
def bucket(store: ObjectStore) -> str:
    return store.bucket()


class Settings(Config):
    value: int = 0


def test_a_run_is_resumed_and_another_one_refused(bucket: str):
    root = f"{bucket}/runs/mine"
    assert not Run.start(root, "test", Settings(value=1)).resumed
    again = Run.start(root, "test", Settings(value=1))
    again.finish({"score": 1})
    assert again.resumed
    assert storage.read_json(f"{root}/metrics.json")["score"] == 1
    with pytest.raises(RunConflictError, match="value: 1 there, 2 asked"):
        Run.start(root, "test", Settings(value=2))


def test_a_dataset_has_the_rows_and_frames_of_its_local_twin(bucket: str, tmp_path: Path):
    local = make_dataset(tmp_path)
    remote = Dataset.open(upload(tmp_path, f"{bucket}/set"))
    for name in schema.TABLES:
        assert remote.table(name).equals(local.table(name)), name
    assert remote.fingerprint() == local.fingerprint()
    for clip in local.kept_clips().to_pylist():
        uri = remote.resolve(clip["uri"])
        assert storage.sha256(uri) == clip["sha256"]
        np.testing.assert_array_equal(read_rgb(uri, 5), read_rgb(local.resolve(clip["uri"]), 5))


def test_what_another_process_wrote_or_removed_is_seen_at_once(bucket: str):
    client = boto3.client("s3")
    name = bucket.removeprefix("s3://")
    storage.write_bytes(f"{bucket}/set/a.mp4", b"1")
    fs, folder = storage.filesystem(f"{bucket}/set")
    assert [item.uri for item in list_footage(f"{bucket}/set")[0]] == [f"{bucket}/set/a.mp4"]
    assert len(fs.ls(folder)) == 1
    client.put_object(Bucket=name, Key="set/b.mp4", Body=b"22")
    assert [item.size for item in list_footage(f"{bucket}/set")[0]] == [1, 2]
    assert storage.exists(f"{bucket}/set/b.mp4")
    client.delete_object(Bucket=name, Key="set/a.mp4")
    assert not storage.exists(f"{bucket}/set/a.mp4")
    assert len(storage.filesystem(f"{bucket}/set")[0].ls(folder)) == 1


def test_footage_that_was_replaced_has_another_fingerprint(bucket: str):
    storage.write_bytes(f"{bucket}/raw/a.mp4", b"11")
    before = list_footage(f"{bucket}/raw")[0][0].fingerprint
    assert list_footage(f"{bucket}/raw")[0][0].fingerprint == before
    storage.write_bytes(f"{bucket}/raw/a.mp4", b"22")
    assert list_footage(f"{bucket}/raw")[0][0].fingerprint != before


def test_rows_that_many_workers_append_are_joined_and_the_newest_wins(bucket: str):
    columns = pa.schema([("key", pa.string()), ("value", pa.int32()), (WRITTEN, pa.int64())])
    parts = PartFiles(f"{bucket}/run/parts", columns, "key")
    assert parts.newest().num_rows == 0
    for time, value in enumerate((1, 2, 3)):
        parts.append(pa.table({"key": ["a"], "value": [value], WRITTEN: [time]}, schema=columns))
    assert parts.newest().to_pylist() == [{"key": "a", "value": 3, WRITTEN: 2}]
    parts.compact(when_more_than=1)
    fs, folder = storage.filesystem(parts.folder)
    assert len(fs.find(folder)) == 1
    assert parts.newest()["value"].to_pylist() == [3]


def test_a_video_is_encoded_to_the_bytes_of_a_local_one(bucket: str, tmp_path: Path):
    digests = []
    for target in (f"{bucket}/videos/a.mp4", str(tmp_path / "a.mp4")):
        with Mp4Writer(target, (64, 48), 30, crf=23, preset="ultrafast", key_interval=10) as writer:
            for shade in range(12):
                picture = np.full((48, 64, 3), shade * 20, np.uint8)
                writer.write(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p"))
            digests.append(writer.finish())
        assert storage.sha256(target) == digests[-1]
    assert digests[0] == digests[1]


def test_a_folder_is_removed_with_all_in_it_and_nothing_beside_it(bucket: str):
    for name in ("run/ray/a", "run/ray/deep/b", "run/rays/c"):
        storage.write_bytes(f"{bucket}/{name}", b"x")
    storage.remove_tree(f"{bucket}/run/ray")
    storage.remove_tree(f"{bucket}/run/none")
    assert not storage.exists(f"{bucket}/run/ray")
    assert storage.exists(f"{bucket}/run/rays/c")


def test_a_misspelt_bucket_is_refused_and_not_made(store: ObjectStore, tmp_path: Path):
    with pytest.raises(WriteError, match=r"s3://misspelt-bucket/set/dataset\.json cannot be written"):
        Dataset.create("s3://misspelt-bucket/set", "new")
    (tmp_path / "x").write_bytes(b"x")
    with pytest.raises(WriteError, match="make the bucket, or correct its name"):
        storage.move_into_place(tmp_path / "x", "s3://misspelt-bucket/x")
    assert "misspelt-bucket" not in [found["Name"] for found in boto3.client("s3").list_buckets()["Buckets"]]


def test_a_store_that_asks_for_credentials_is_one_line_that_says_which(store, bucket, monkeypatch, capsys):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    s3fs.S3FileSystem.clear_instance_cache()
    message = refused(monkeypatch, capsys, "data", "stats", f"{bucket}/set")
    s3fs.S3FileSystem.clear_instance_cache()
    assert "set/dataset.json cannot be read: NoCredentialsError" in message
    assert "AWS_ACCESS_KEY_ID" in message


@pytest.fixture
def failing_bucket(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket whose client waits but shortly: botocore's own tries and pauses are not what is tested here."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    yield bucket
    s3fs.S3FileSystem.clear_instance_cache()


CONTENT = bytes(range(256)) * 400


@pytest.mark.parametrize("kind", ["InternalError", "SlowDown", "half", "reset", "lost"])
def test_a_store_that_fails_now_and_then_is_asked_again(store, failing_bucket: str, kind: Kind, monkeypatch):
    if kind == "reset":  # after which botocore alone tries again
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
        s3fs.S3FileSystem.clear_instance_cache()
    for method in ("PUT", "GET"):
        with store.failing(kind, method, "file", times=2) as fault:
            if method == "PUT":
                storage.write_bytes(f"{failing_bucket}/file", CONTENT)
            assert storage.read_bytes(f"{failing_bucket}/file") == CONTENT
        assert fault.met >= 1 if (kind, method) == ("half", "PUT") else fault.met == 2  # half of nothing is whole


@pytest.mark.parametrize("kind", ["InternalError", "ExpiredToken"])
def test_a_store_that_goes_on_failing_is_named_and_what_was_there_stays(store, failing_bucket, kind):
    storage.write_bytes(f"{failing_bucket}/file", CONTENT)
    with (
        store.failing(kind, "PUT"),
        pytest.raises(WriteError, match=f"{failing_bucket}/file cannot be written: ") as no,
    ):
        storage.write_bytes(f"{failing_bucket}/file", b"other")
    assert "run the same command again" in str(no.value)
    with store.failing(kind, "GET"), pytest.raises(StorageError, match=f"{failing_bucket}/file cannot be read: "):
        storage.read_bytes(f"{failing_bucket}/file")
    assert storage.read_bytes(f"{failing_bucket}/file") == CONTENT


def test_rows_in_a_store_that_fails_are_an_error_and_not_missing(store: ObjectStore, failing_bucket: str):
    columns = pa.schema([("key", pa.string()), (WRITTEN, pa.int64())])
    parts = PartFiles(f"{failing_bucket}/run/parts", columns, "key")
    parts.append(pa.table({"key": ["a"], WRITTEN: [1]}, schema=columns))
    with store.failing("ExpiredToken", "GET", "part-"), pytest.raises(StorageError, match="cannot be read"):
        parts.newest()
    assert parts.newest().num_rows == 1


def test_a_video_in_a_store_that_fails_is_not_at_fault(store: ObjectStore, failing_bucket: str, tmp_path: Path):
    clip = make_dataset(tmp_path).kept_clips().to_pylist()[0]["uri"]
    storage.write_bytes(f"{failing_bucket}/a.mp4", (tmp_path / clip).read_bytes())
    with store.failing("InternalError", "GET"), pytest.raises(VideoAccessError, match=r"a\.mp4 cannot be read"):
        read_rgb(f"{failing_bucket}/a.mp4", 5)


def test_a_folder_in_a_bucket_is_held_by_one(bucket: str):
    refusal = pytest.raises(RunConflictError, match="another process is writing to s3://")
    with exclusive(f"{bucket}/run"), refusal, exclusive(f"{bucket}/run"):
        pass
    with exclusive(f"{bucket}/run"):
        pass
    assert not storage.exists(f"{bucket}/run")
