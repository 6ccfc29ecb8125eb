from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from microg.errors import DatasetError, DownloadError
from microg.locks import lock
from microg.system import downloads, transfer
from tests.support.hub_server import COMMIT, FakeHub, git_sha1, serve

TOKEN = "hf_secretKeyOfTheTest"
BIG = bytes(range(256)) * 20_000  # 5.1 MB: several blocks


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_BACKOFF_S", 0.01)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)


@pytest.fixture
def server() -> Iterator[FakeHub]:
    files = {
        "README.md": b"# MicroG-4M\n",
        "annotation_files/actions.csv": b"video_id,action\n",
        "annotation_files/bounding_boxes.csv": b"x" * 999,
        "copy.csv": b"x" * 999,
        "label_map/map.txt": b"",
        "videos.zip": BIG,
    }
    with serve(FakeHub(downloads.REPOS["dataset"].id, "dataset", files)) as running:
        yield running


def fetch(server: FakeHub, folder: Path, include: tuple[str, ...] = (), revision: str | None = None) -> dict:
    connection = downloads.Hub(downloads.REPOS["dataset"], server.url)
    return downloads.download(
        connection, folder, downloads.plan(connection, folder, revision, include), revision=revision
    )


def test_all_files_arrive_whole_and_are_described(server: FakeHub, tmp_path: Path):
    manifest = fetch(server, tmp_path)
    there = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert json.loads(there.pop("download.json")) == manifest
    assert there == server.files
    assert (manifest["repo"], manifest["commit"], manifest["revision"]) == ("LEI-QI-233/MicroG-4M", COMMIT, "main")
    recorded = {entry["path"]: entry for entry in manifest["files"]}
    assert recorded["videos.zip"]["size"] == len(BIG)
    assert recorded["README.md"]["git_sha1"] == git_sha1(server.files["README.md"])
    assert len(recorded) == 6  # the listing has three pages and a folder in it


def test_second_run_sends_no_file_again(server: FakeHub, tmp_path: Path):
    fetch(server, tmp_path)
    before = len(server.requests)
    fetch(server, tmp_path)
    assert not [request for request in server.requests[before:] if "resolve" in request.path]


def test_dropped_connection_goes_on_with_a_range_request(server: FakeHub, tmp_path: Path):
    server.drop_after["videos.zip"] = 3_000_000
    fetch(server, tmp_path)
    first, second = server.downloads("videos.zip")
    assert first.byte_range is None
    assert first.sent == 3_000_000
    assert second.byte_range is not None
    start = int(second.byte_range.removeprefix("bytes=").rstrip("-"))
    assert 3_000_000 - (1 << 20) <= start <= 3_000_000
    assert second.sent == len(BIG) - start
    assert (tmp_path / "videos.zip").read_bytes() == BIG


def test_new_process_goes_on_where_the_last_one_stopped(server: FakeHub, tmp_path: Path):
    server.drop_after["videos.zip"] = 3_000_000
    server.broken_on_range = True
    with pytest.raises(DownloadError, match=r"videos\.zip"):
        fetch(server, tmp_path)
    assert not (tmp_path / "videos.zip").exists()
    assert not (tmp_path / "download.json").exists()
    (part,) = (path for path in (tmp_path / ".download").glob("*.part") if path.stat().st_size > 1000)
    have = part.stat().st_size
    server.broken_on_range = False
    fetch(server, tmp_path)
    assert server.downloads("videos.zip")[-1].byte_range == f"bytes={have}-"
    assert (tmp_path / "videos.zip").read_bytes() == BIG
    assert not (tmp_path / ".download").exists()


def test_server_that_ignores_ranges_restarts_the_file(server: FakeHub, tmp_path: Path):
    server.drop_after["videos.zip"] = 3_000_000
    server.ignores_range = True
    fetch(server, tmp_path)
    assert (tmp_path / "videos.zip").read_bytes() == BIG


def test_damaged_leftover_is_fetched_again_from_the_start(server: FakeHub, tmp_path: Path):
    server.drop_after["videos.zip"] = 3_000_000
    server.broken_on_range = True
    with pytest.raises(DownloadError):
        fetch(server, tmp_path)
    server.broken_on_range = False
    (part,) = (path for path in (tmp_path / ".download").glob("*.part") if path.stat().st_size > 1000)
    part.write_bytes(b"?" * part.stat().st_size)
    fetch(server, tmp_path)
    assert server.downloads("videos.zip")[-1].byte_range is None
    assert (tmp_path / "videos.zip").read_bytes() == BIG


@pytest.mark.parametrize("name", ["videos.zip", "annotation_files/actions.csv"])
def test_altered_content_is_refused_by_name(server: FakeHub, tmp_path: Path, name: str):
    server.served[name] = server.files[name][:-1] + b"!"
    with pytest.raises(DownloadError, match=f"{name} does not match"):
        fetch(server, tmp_path)
    assert not (tmp_path / name).exists()
    assert not (tmp_path / "download.json").exists()


def test_content_longer_than_listed_is_refused_before_it_fills_the_disk(server: FakeHub, tmp_path: Path):
    server.served["README.md"] = b"y" * 500
    with pytest.raises(DownloadError, match="longer than announced"):
        fetch(server, tmp_path, ("README.md",))


def test_changed_local_file_is_replaced(server: FakeHub, tmp_path: Path):
    fetch(server, tmp_path)
    (tmp_path / "README.md").write_bytes(b"# MicroG-4X\n")
    fetch(server, tmp_path)
    assert (tmp_path / "README.md").read_bytes() == server.files["README.md"]


def test_verify_finds_what_is_damaged_or_gone_without_the_network(server: FakeHub, tmp_path: Path):
    fetch(server, tmp_path)
    before = len(server.requests)
    assert downloads.verify(tmp_path)["commit"] == COMMIT
    (tmp_path / "README.md").write_bytes(b"# MicroG-4X\n")
    (tmp_path / "videos.zip").unlink()
    with pytest.raises(DownloadError, match=r"2 of 6 files .* README\.md, videos\.zip"):
        downloads.verify(tmp_path)
    assert len(server.requests) == before


def test_verify_of_a_folder_without_download_is_refused(tmp_path: Path):
    with pytest.raises(DownloadError, match="nothing was downloaded"):
        downloads.verify(tmp_path)
    (tmp_path / "download.json").write_text('{"files": [1]}')
    with pytest.raises(DatasetError, match="does not describe a download"):
        downloads.verify(tmp_path)


def test_include_takes_part_and_a_later_run_adds_to_it(server: FakeHub, tmp_path: Path):
    first = fetch(server, tmp_path, ("annotation_files/*",))
    assert [entry["path"] for entry in first["files"]] == [
        "annotation_files/actions.csv",
        "annotation_files/bounding_boxes.csv",
    ]
    assert not (tmp_path / "videos.zip").exists()
    second = fetch(server, tmp_path, ("README.md",), revision="v1")
    assert [entry["path"] for entry in second["files"]][:2] == ["README.md", "annotation_files/actions.csv"]
    assert second["revision"] == "v1"
    with pytest.raises(DownloadError, match=r"no file .* matches \*\.avi"):
        fetch(server, tmp_path, ("*.avi",))


def test_folder_of_another_repository_is_left_alone(server: FakeHub, tmp_path: Path):
    fetch(server, tmp_path, ("README.md",))
    other = downloads.Hub(downloads.REPOS["models"], server.url)
    with pytest.raises(DownloadError, match="holds a download of LEI-QI-233/MicroG-4M"):
        downloads.plan(other, tmp_path)


def test_missing_repository_and_revision_are_told_apart(server: FakeHub, tmp_path: Path):
    with pytest.raises(DownloadError, match="no such revision"):
        fetch(server, tmp_path, revision="v999")
    with pytest.raises(DownloadError, match="MicroG-4M-models is not at http://127"):
        downloads.Hub(downloads.REPOS["models"], server.url).list_files()


def test_gated_and_unauthorised_say_where_the_key_comes_from(
    server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    server.token = TOKEN
    with pytest.raises(DownloadError, match="HF_TOKEN is not set") as missing:
        fetch(server, tmp_path)
    assert "HTTP 401" in str(missing.value)
    monkeypatch.setenv("HF_TOKEN", "hf_wrongKey")
    with pytest.raises(DownloadError, match="HF_TOKEN was refused") as refused:
        fetch(server, tmp_path)
    assert "hf_wrongKey" not in str(refused.value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    server.gated = True
    with pytest.raises(DownloadError, match="access has to be granted"):
        fetch(server, tmp_path)


def test_key_reaches_the_hub_but_not_its_storage_host(server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    server.token = TOKEN
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    fetch(server, tmp_path)
    at_storage = [request for request in server.requests if request.host.startswith("localhost")]
    at_hub = [request for request in server.requests if not request.host.startswith("localhost")]
    assert at_storage
    assert all(request.authorization is None for request in at_storage)
    assert all(request.authorization == f"Bearer {TOKEN}" for request in at_hub)
    assert TOKEN not in (tmp_path / "download.json").read_text()


def test_key_is_not_sent_unencrypted_to_another_machine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(DownloadError, match="unencrypted") as refused:
        downloads.Hub(downloads.REPOS["dataset"], "http://mirror.example.org")
    assert TOKEN not in str(refused.value)
    with pytest.raises(DownloadError, match="not a web address"):
        downloads.Hub(downloads.REPOS["dataset"], "mirror.example.org")


def test_unreachable_hub_is_one_clear_error(tmp_path: Path):
    with serve(FakeHub("a/b", "dataset", {})) as gone:
        url = gone.url
    with pytest.raises(DownloadError, match=f"{url} cannot be reached"):
        downloads.Hub(downloads.REPOS["dataset"], url).list_files()


def test_offline_mode_is_named(server: FakeHub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE forbids"):
        downloads.Hub(downloads.REPOS["dataset"], server.url).list_files()


@pytest.mark.parametrize(
    "path", ["../escape.txt", "/etc/passwd", "a/../../b", "a\\..\\b", "download.json", ".download/x"]
)
def test_listed_path_that_leaves_the_folder_is_refused(server: FakeHub, tmp_path: Path, path: str):
    server.extra_paths.append(path)
    with pytest.raises(DownloadError, match="name is not allowed"):
        fetch(server, tmp_path / "inner")
    assert not list(tmp_path.rglob("*.txt"))


def test_too_small_disk_is_told_before_anything_is_fetched(
    server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(DownloadError, match=r"has 0\.0 GB free, the download needs 0\.1 GB"):
        fetch(server, tmp_path)
    assert not server.downloads("videos.zip")


def test_disk_that_fills_up_is_told(server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(self: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DownloadError, match="the disk is full"):
        fetch(server, tmp_path, ("README.md",))


def test_two_downloads_into_one_folder_are_refused(server: FakeHub, tmp_path: Path):
    connection = downloads.Hub(downloads.REPOS["dataset"], server.url)
    plan = downloads.plan(connection, tmp_path)
    mine = lock(tmp_path / ".download" / "lock", DownloadError("held twice"))
    with mine, pytest.raises(DownloadError, match="another process is downloading"):
        downloads.download(connection, tmp_path, plan)


def test_progress_ends_at_the_planned_bytes_despite_a_drop(server: FakeHub, tmp_path: Path):
    server.drop_after["videos.zip"] = 3_000_000
    server.ignores_range = True
    connection = downloads.Hub(downloads.REPOS["dataset"], server.url)
    plan = downloads.plan(connection, tmp_path)
    counts: list[int] = []
    downloads.download(connection, tmp_path, plan, on_bytes=counts.append)
    assert sum(counts) == plan.missing_bytes == sum(len(data) for data in server.files.values())
    assert min(counts) < 0  # the restart was taken back


def test_stopping_ends_a_running_transfer(server: FakeHub, tmp_path: Path):
    connection = downloads.Hub(downloads.REPOS["dataset"], server.url)
    _, files = connection.list_files()
    stop = threading.Event()
    stop.set()
    with pytest.raises(downloads.CancelledError):
        connection.transfer(files[-1], COMMIT, tmp_path / "part", lambda count: None, stop)
