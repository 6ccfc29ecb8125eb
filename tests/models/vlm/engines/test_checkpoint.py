"""A checkpoint at a URI is the one in a folder: small files at once, weights when an engine loads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from microg.errors import ConfigError
from microg.models.vlm.cards import folder_card, is_checkpoint
from microg.models.vlm.engines.checkpoint import find, load_chat
from tests.support.s3_server import object_store, upload


def test_a_checkpoint_at_a_uri_is_the_one_that_was_uploaded(
    tiny_vlm: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tiny_vlm("qwen2_5_vl")
    with object_store() as store:
        uri = upload(folder, f"{store.bucket()}/checkpoints/{folder.name}")
        assert is_checkpoint(uri)
        assert not is_checkpoint(f"{uri}-other")
        card, same = folder_card(uri), folder_card(str(folder))
        assert card.hub_id == uri
        assert card.replaced(hub_id=same.hub_id) == same
        here, there = find(str(folder)), find(uri)
        assert there.config == here.config
        assert there.weights_gb == here.weights_gb
        load_chat(there)
        assert not list((tmp_path / "cache").rglob("*.safetensors"))  # a driver that counts tokens needs none
        assert there.identity == here.identity
        assert {path.name for path in Path(there.source).iterdir()} == {path.name for path in folder.iterdir()}
        with pytest.raises(ConfigError, match="has no revisions"):
            find(uri, "main")
