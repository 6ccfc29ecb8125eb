"""Rows of the paper's Tables 4 and 5, each recipe on a tiny stand-in in its true layout: all answers, frames as #f."""

from __future__ import annotations

from pathlib import Path

import pytest

from microg import storage
from microg.demo.tiny_models import build
from microg.demo.tiny_models.published import build_published
from microg.demo.tiny_models.published.video_chatgpt import BASE, PROJECTOR, VISION
from microg.models.vlm.cards import card
from tests.support.gemini_server import GeminiServer
from tests.support.openai_server import OpenAiServer
from tests.support.processes import ROOT, microg

CLIPS = 4
# Recipe -> architecture of the tiny model that stands for it; what has a layout of its own is converted first.
ROWS = {
    "video-llava": "video_llava",
    "llava-next-interleave-7b": "llava",
    "llava-next-video": "llava_next_video",
    "qwen2.5-vl-7b": "qwen2_5_vl",
    "llava-video-7b": None,
    "tarsier2-recap-7b": None,
    "video-chatgpt": None,
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def converted(name: str, folder: Path) -> Path:
    """Write what the authors of a model published, and give it to the command that rewrites it."""
    published = build_published(name, folder / "published")
    words: list[object] = [published]
    if name == "video-chatgpt":
        words = [published / BASE, "--part", f"vision={published / VISION}", "--part"]
        words += [f"projector={published / PROJECTOR}"]
    assert microg("vlm", "convert", *words[:1], folder / "model", *words[1:]) == 0
    return folder / "model"


def make_clips(folder: Path) -> None:
    """Write a dataset of clips of 90 frames, as the published ones are."""
    made = ["--clips", CLIPS, "--width", 160, "--height", 120, "--questions", 6]
    assert microg("data", "synth", folder, *made) == 0


def check_row(name: str, model: Path, folder: Path) -> None:
    """Ask a recipe's questions about four clips and look at every row."""
    make_clips(folder / "data")
    run, found = folder / "run", card(name)
    recipe = ROOT / "recipes" / "vlm" / f"{name}.yaml"
    where = ["--dataset", folder / "data", "--run", run, "--limit", CLIPS, "--set", "sampling.max_tokens=8"]
    assert microg("vlm", "generate", "--recipe", recipe, "--model", model, *where) == 0
    rows = storage.read_parquet(str(run / "tables" / "generations.parquet")).to_pylist()
    assert found.paper is not None
    assert {row["clip_id"] for row in rows if row["task"] == "caption"} == {row["clip_id"] for row in rows}
    assert len({row["clip_id"] for row in rows}) == CLIPS
    assert {row["task"] for row in rows} == ({"caption", "vqa"} if 5 in found.paper.tables else {"caption"})
    assert {row["status"] for row in rows} == {"ok"}
    assert {len(row["frame_indices"]) for row in rows} == {found.paper.frames}
    assert {row["engine"] for row in rows} == {found.engine}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_the_paper_runs_from_its_recipe(name: str, tmp_path: Path, ray_session: None) -> None:
    architecture = ROWS[name]
    model = converted(name, tmp_path) if architecture is None else build(architecture, tmp_path / "model")
    check_row(name, model, tmp_path)


@pytest.mark.parametrize(
    ("recipe", "model", "server", "key"),
    [
        ("gpt-4o", "gpt-4o", OpenAiServer, "OPENAI_API_KEY"),
        ("gemini-1.5-pro", "gemini-3.8-flash", GeminiServer, "GEMINI_API_KEY"),  # its successor's card
    ],
)
def test_a_row_of_a_provider_is_asked_from_its_recipe(
    recipe: str,
    model: str,
    server: type[OpenAiServer] | type[GeminiServer],
    key: str,
    tmp_path: Path,
    ray_session: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(key, "sk-test-0123456789")
    make_clips(tmp_path / "data")
    frames = card(recipe).paper
    assert frames is not None
    with server() as running:
        words = ["--dataset", tmp_path / "data", "--run", tmp_path / "run", "--limit", CLIPS, "--model", model]
        where = ["--set", f"settings.base_url={running.url}"]
        path = ROOT / "recipes" / "vlm" / f"{recipe}.yaml"
        assert microg("vlm", "generate", "--recipe", path, *words, *where) == 0
    rows = storage.read_parquet(str(tmp_path / "run" / "tables" / "generations.parquet")).to_pylist()
    assert {row["status"] for row in rows} == {"ok"}
    assert {len(row["frame_indices"]) for row in rows} == {frames.frames}
    assert len({row["clip_id"] for row in rows}) == CLIPS
