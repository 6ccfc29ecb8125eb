"""Files reach workers from paths and URIs, are read once a node, and are what the driver saw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from microg import storage
from microg.errors import WeightsError
from microg.pipelines.core import session, shared_files
from microg.pipelines.core.shared_files import share, share_folder
from microg.system.zoo import locate_weights, require_weights
from tests.support.s3_server import object_store, upload


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "microg" / "weights"


def test_a_file_of_the_driver_reaches_another_node_in_parts(
    ray_session: None, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_BLOCK_BYTES", 1000)
    monkeypatch.setattr(session, "started_here", lambda: False)  # as if the workers were elsewhere
    content = bytes(range(256)) * 20
    (tmp_path / "model.pt").write_bytes(content)
    shared = share(str(tmp_path / "model.pt"))
    assert len(shared.parts) == 6
    (tmp_path / "model.pt").unlink()  # which other nodes do not have
    copy = shared.path()
    assert copy.read_bytes() == content
    assert copy.name == "model.pt"
    assert cache in copy.parents
    copy.write_bytes(b"kept")
    assert shared.path().read_bytes() == b"kept"  # not fetched again
    assert [path.name for path in copy.parent.iterdir()] == ["model.pt"]


def test_a_uri_is_read_by_the_node_itself_and_content_that_changed_is_refused(
    cache: Path, tmp_path: Path, ray_session: None
) -> None:
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "model.pt").write_bytes(b"weights")
    with object_store() as store:
        uri = f"{upload(tmp_path / 'up', store.bucket())}/model.pt"
        assert locate_weights(uri) == uri
        shared = share(uri)
        assert not cache.exists()  # the driver read its digest and keeps no copy
        assert shared.parts == ()
        assert shared.path().read_bytes() == b"weights"
        assert require_weights(uri) == shared.path()
        with pytest.raises(WeightsError, match="is not what it was when the job started"):
            replace(shared, digest="0" * 64).path()
        with pytest.raises(WeightsError, match="there is no file"):
            share(f"{uri}.other")
        with pytest.raises(WeightsError, match="there is no file"):
            require_weights(f"{uri}.other")
        with pytest.raises(WeightsError, match="there is no file"):
            locate_weights(f"{uri}.other")
    assert not list(storage.local_path(str(cache)).rglob(".model*"))


def test_a_folder_of_the_driver_travels_where_a_node_has_none_like_it(
    ray_session: None, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "driver" / "mine"
    (folder / "1_Pooling").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "1_Pooling/config.json", ".hidden"):
        (folder / name).write_text(name)
    assert share_folder(str(folder)).files == ()  # on this machine alone
    monkeypatch.setattr(session, "started_here", lambda: False)
    assert share_folder(str(folder)).path() == folder  # a mount that all nodes have
    monkeypatch.setattr(shared_files, "_on_all_nodes", lambda folder: [{"config.json": 11}])
    shared = share_folder(str(folder))
    (folder / "config.json").unlink()  # which other nodes do not have
    copy = shared.path()
    assert copy.name == "mine"
    assert cache.parent in copy.parents
    names = sorted(path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file())
    assert names == ["1_Pooling/config.json", "config.json", "model.safetensors"]
    assert all((copy / name).read_text() == name for name in names)
    assert shared.path() == copy


def test_a_folder_that_a_later_node_lacks_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"there is no folder .* on this node"):
        shared_files.SharedFolder(str(tmp_path / "gone")).path()
