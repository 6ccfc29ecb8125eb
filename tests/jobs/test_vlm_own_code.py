"""`microg vlm generate` with the recipes of models that run their repository's own code: consent first, then rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from microg import storage
from microg.models.vlm.engines.checkpoint import find
from microg.models.vlm.engines.repository.consent import RepositoryCode
from microg.models.vlm.frames import sample_frames
from microg.models.vlm.sampling import Uniform
from tests.support.helpers import make_dataset, moving_scene, write_video
from tests.support.processes import ROOT, microg

CLIP_FRAMES = 90  # as a published clip has


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own_code") / "data"

    def longer(rows: dict[str, list[dict[str, Any]]]) -> None:
        for clip in rows["clips"]:
            clip |= {"num_frames": CLIP_FRAMES, "duration_s": 3.0, "fps": 30.0}
            clip.pop("sha256", None)

    make_dataset(folder, longer, videos=False)
    for number, clip in enumerate(("filmA_000", "filmA_001", "tourB_000", "walkC_000")):
        write_video(folder / f"videos/{clip}.mp4", moving_scene(number, CLIP_FRAMES), fps=30)
    return folder


def words(data: Path, run: Path, recipe: str, model: Path, *more: object) -> list[object]:
    paths: list[object] = ["--recipe", ROOT / f"recipes/vlm/{recipe}.yaml", "--model", model, "--dataset", data]
    small = ("--set", "sampling.max_tokens=6", "--limit", 4)
    return ["vlm", "generate", *paths, "--run", run, *small, *more]


def test_without_consent_one_line_says_whose_code_where_to_read_it_and_how_to_allow_it(
    data: Path, tmp_path: Path, tiny_vlm: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_vlm("mplug_owl3")
    assert microg(*words(data, tmp_path / "run", "mplug-owl3", folder)) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert f"{folder} runs code of its own (configuration_hyper_qwen2.py," in told
    assert f"read it at {folder}, then allow it with --trust-remote-code" in told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("recipe", "architecture", "frames"),
    [
        ("mplug-owl3", "mplug_owl3", [0, 44, 89]),
        pytest.param(
            "internvideo2.5-8b",
            "internvideo2_5",
            list(range(CLIP_FRAMES)),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_row_of_table_4_is_made_on_the_papers_frames_and_the_run_records_the_consent(
    data: Path,
    tmp_path: Path,
    tiny_vlm: Callable[[str], Path],
    ray_session: None,
    capsys: pytest.CaptureFixture[str],
    recipe: str,
    architecture: str,
    frames: list[int],
) -> None:
    folder, run = tiny_vlm(architecture), tmp_path / "run"
    assert microg(*words(data, run, recipe, folder, "--trust-remote-code")) == 0
    identity = RepositoryCode.of(find(str(folder))).identity
    assert f"runs its repository's own code, as you allowed: {identity}" in capsys.readouterr().out
    rows = storage.read_parquet(str(run / "tables" / "generations.parquet")).to_pylist()
    assert [row["status"] for row in rows] == ["ok"] * 4
    for row in rows:
        assert row["frame_indices"] == frames
        assert (row["engine"], row["task"], row["completion_tokens"]) == ("repository", "caption", 6)
        shown = sample_frames(str(data / f"videos/{row['clip_id']}.mp4"), [Uniform(count=len(frames))])[0]
        assert row["frame_hash"] == shown.sha256
    recorded = json.loads((run / "run.json").read_text())["config"]
    assert recorded["repository_code"] == identity
    engine = json.loads((run / "engine.json").read_text())
    assert engine["code"]["identity"] == identity
    assert engine["adaptations"]
