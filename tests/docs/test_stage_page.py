"""The code on the page that says how to add a curation stage is run by the real command, in a copy of the code."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from microg import storage
from microg.data.dataset import Dataset
from tests.docs.test_extension_pages import block
from tests.support.curation import write_detections, write_footage
from tests.support.processes import ROOT


def run_copy(folder: Path, *words: object) -> None:
    """Run a command of the copy of the source code in `folder`, on the session's Ray."""
    import ray

    environment = os.environ | {"PYTHONPATH": str(folder), "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    command = [sys.executable, "-m", "microg.jobs.cli", *map(str, words)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_stage_page(tmp_path: Path, ray_session: None):
    code = tmp_path / "code"
    left_out = shutil.ignore_patterns(".*", "__pycache__", "tests", "docs", "runs", "data", "weights", "site", "dist")
    shutil.copytree(ROOT, code, symlinks=True, ignore=left_out)
    shutil.copytree(ROOT / "microg" / "data", code / "microg" / "data", dirs_exist_ok=True)
    (code / "models/curation/blur.py").write_text(block("stage", "models/curation/blur.py"))
    registry_file = code / "models/curation/registry.py"
    before = registry_file.read_text()
    line = block("stage", "models/curation/registry.py")
    registry_file.write_text(before.replace("_MODULES = (\n", f"_MODULES = (\n{line}"))
    assert registry_file.read_text() != before

    out = tmp_path / "set"
    write_footage(tmp_path / "raw" / "a.mp4", seconds=6.2)
    for clip_id in ("a_000", "a_001"):
        write_detections(tmp_path / "dets", clip_id)
    words = ("--detections", tmp_path / "dets", "--set", "trim.height=48", "--set", "resources.max_actors=1")
    run_copy(code, "curate", tmp_path / "raw", out, *words)
    files = [pq.read_table(file) for file in (out / "observations").iterdir()]
    observed = [row for table in files for row in table.to_pylist() if row["clip_id"]]
    assert len(observed) == 2
    assert all(row["sharpness"] > 20 and row["blur_s"] >= 0 for row in observed)
    decided = [row for row in Dataset.open(str(out)).table("decisions").to_pylist() if row["stage"] == "blur"]
    assert [(row["keep"], row["threshold"]) for row in decided] == [(True, 20.0)] * 2
    assert "blur" in storage.read_json(str(out / "metrics.json"))["throughput"]["stages"]

    run_copy(code, "curate", out, "--refilter", "--set", "filter.min_sharpness=1e6")
    clips = Dataset.open(str(out)).table("clips").to_pylist()
    assert [row["error"].split(" ")[0] for row in clips] == ["blur:"] * 2
