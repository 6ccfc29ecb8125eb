"""Folders at URIs are copied file by file, once a node, and are what was listed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from microg import storage
from microg.errors import WeightsError
from microg.system import folders
from microg.system.folders import RemoteFolder
from tests.support.s3_server import object_store, upload

FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"words",
    "model-1.safetensors": b"weights",
    "sub/model.bin": bytes(300),
    ".git/config": b"hidden",
}


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A model's folder on an object store, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, content in FILES.items():
        path = tmp_path / "up" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with object_store() as store:
        yield upload(tmp_path / "up", f"{store.bucket()}/checkpoints/mine")


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_small_files_come_first_and_weights_when_they_are_wanted(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    blocks = storage.read_blocks

    def counting(source: str) -> Iterator[bytes]:
        read.append(source.removeprefix(f"{uri}/"))
        return blocks(source)

    monkeypatch.setattr(storage, "read_blocks", counting)
    remote = RemoteFolder.listed(f"{uri}/")
    assert remote.weights_bytes == 307
    folder = remote.keep(weights=False)
    assert folder.name == "mine"
    assert names_in(folder) == ["config.json", "tokenizer.json"]
    assert remote.keep() == folder
    assert names_in(folder) == ["config.json", "model-1.safetensors", "sub/model.bin", "tokenizer.json"]
    assert all((folder / name).read_bytes() == FILES[name] for name in names_in(folder))
    assert RemoteFolder.listed(uri).keep() == folder
    assert sorted(read) == names_in(folder)  # each of them once
    assert [path.name for path in folder.parent.iterdir() if path.suffix == ".tmp"] == []


def test_another_content_is_another_copy_and_one_that_changes_meanwhile_is_refused(uri: str) -> None:
    remote = RemoteFolder.listed(uri)
    storage.write_bytes(f"{uri}/model-1.safetensors", b"changed")
    with pytest.raises(WeightsError, match=r"model-1\.safetensors is not what it was"):
        remote.keep()
    assert (RemoteFolder.listed(uri).keep() / "model-1.safetensors").read_bytes() == b"changed"
    storage.remove(f"{uri}/config.json")
    with pytest.raises(WeightsError, match=r"config\.json is gone"):
        RemoteFolder(uri, tuple(folders.RemoteFile(file.name, file.size + 1, "") for file in remote.files)).keep()


def test_a_folder_that_is_not_there_is_told(uri: str) -> None:
    with pytest.raises(WeightsError, match="there is no folder"):
        RemoteFolder.listed(f"{uri}-other")
