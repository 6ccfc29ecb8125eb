"""Weights and folders at `hf://` URIs are copied into the cache by content, from a hub of our own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from tests.support.hub_server import FakeHub, serve
from tests.support.processes import ROOT

# In a process of its own: the hub's address is read when its client is imported.
_PROGRAM = """
from microg import storage
from microg.system.folders import RemoteFolder
from microg.system.weights import require_weights
print(storage.exists("hf://me/mine/w.pt"), storage.exists("hf://me/mine/none.pt"))
print(require_weights("hf://me/mine/w.pt"))
print(RemoteFolder.listed("hf://me/mine").keep())
"""


def test_a_file_and_a_folder_on_the_hub_are_kept_by_content(tmp_path: Path) -> None:
    files = {"config.json": b"{}", "w.pt": os.urandom(2_000_000)}
    with serve(FakeHub("me/mine", "model", files)) as hub:
        own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            cwd=ROOT,
            env={**os.environ, **own, "NO_PROXY": "127.0.0.1,localhost"},
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    there, weights, folder = done.stdout.splitlines()
    assert there == "True False"
    assert Path(weights).read_bytes() == files["w.pt"]
    assert hashlib.sha256(files["w.pt"]).hexdigest()[:16] in weights
    assert {path.name: path.read_bytes() for path in Path(folder).iterdir()} == files
