"""Weights and folders at `hf://` and `gs://` URIs are copied into the cache by content, from servers of our own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.gcs_server import gcs_server
from tests.support.hub_server import FakeHub, serve
from tests.support.processes import ROOT

FILES = {"config.json": b"{}", "w.pt": bytes(range(256)) * 8000}
# In a process of its own: addresses of stores are read when their clients are imported.
_PROGRAM = """
import sys
from microg import storage
from microg.system.folders import RemoteFolder
from microg.system.zoo import require_weights
folder = sys.argv[1]
print(storage.exists(f"{folder}/w.pt"), storage.exists(f"{folder}/none.pt"))
print(require_weights(f"{folder}/w.pt"))
print(RemoteFolder.listed(folder).keep())
"""


def check(uri: str, cache: Path, own: Mapping[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, uri],
        cwd=ROOT,
        env={**os.environ, **own, "XDG_CACHE_HOME": str(cache), "NO_PROXY": "127.0.0.1,localhost"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    there, weights, folder = done.stdout.splitlines()
    assert there == "True False"
    assert Path(weights).read_bytes() == FILES["w.pt"]
    assert hashlib.sha256(FILES["w.pt"]).hexdigest()[:16] in weights
    assert {path.name: path.read_bytes() for path in Path(folder).iterdir()} == FILES


def test_files_on_the_hub(tmp_path: Path) -> None:
    with serve(FakeHub("me/mine", "model", FILES)) as hub:
        check("hf://me/mine", tmp_path, {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")})


def test_files_on_google_cloud_storage(tmp_path: Path) -> None:
    with gcs_server("bucket", {f"models/mine/{name}": data for name, data in FILES.items()}) as address:
        check("gs://bucket/models/mine", tmp_path, {"STORAGE_EMULATOR_HOST": address})
