"""`microg vlm generate` through models that run here: vLLM and transformers, a tiny Qwen2.5-VL of random weights."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from microg import storage
from microg.demo.tiny_models import build
from microg.models.vlm.frames import sample_frames
from microg.models.vlm.sampling import Uniform
from tests.support.helpers import make_dataset
from tests.support.processes import check_gone, family, start_microg, wait_for

ROWS = 4 * 7

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("local")
    make_dataset(root / "data")
    build("qwen2_5_vl", root / "qwen")
    return root


def words(folder: Path, run: Path, engine: str) -> list[object]:
    return [
        "vlm",
        "generate",
        "--model",
        folder / "qwen",
        "--engine",
        engine,
        "--dataset",
        folder / "data",
        "--run",
        run,
        "--set",
        "sampling.max_tokens=8",
        "--set",
        "clips_per_block=1",
    ]


def table_of(run: Path) -> list[dict[str, Any]]:
    rows = storage.read_parquet(str(run / "tables" / "generations.parquet")).to_pylist()
    assert len({(row["clip_id"], row["task"], row["qa_index"]) for row in rows}) == len(rows) == ROWS
    assert all(row["status"] == "ok" and row["prompt_tokens"] > 0 and row["cost"] is None for row in rows)
    return rows


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_killed_in_the_middle_each_item_is_answered_once(folder: Path, tmp_path: Path, engine: str) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    process = start_microg(log, *words(folder, run, engine))
    wait_for(lambda: any((run / "parts").glob("*.parquet")), process, log, seconds=500)
    processes = family(process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    check_gone(processes, "Generator")
    assert not (run / "tables").exists()
    done = {row["clip_id"] for file in (run / "parts").iterdir() for row in storage.read_parquet(str(file)).to_pylist()}
    assert 1 <= len(done) < 4
    process = start_microg(log, *words(folder, run, engine))
    assert process.wait(timeout=600) == 0, log.read_text()
    assert f"{7 * len(done)} done before" in log.read_text()
    for row in table_of(run):
        frames = sample_frames(str(folder / f"data/videos/{row['clip_id']}.mp4"), [Uniform(count=9)])[0]
        assert (row["frame_indices"], row["frame_hash"]) == (list(frames.indices), frames.sha256)
        assert row["engine"] == engine
