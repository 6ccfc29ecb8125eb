"""Questions are made and labelled by every engine that answers texts, in this process or at a server."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from microg import storage
from microg.errors import ConfigError
from microg.jobs.cli import app
from microg.models.vlm.base import Engine, Reply, Request, Sampling
from tests.support.gemini_server import GeminiServer
from tests.support.helpers import make_dataset

_PAIR = {"form": "what", "question": "What floats?", "answer": "A cup."}


class CarefulEngine(Engine):
    """Answers in this process what the prompts of questions ask for."""

    name = "careful"
    asked: list[Request] = []  # noqa: RUF012
    closed = 0

    def __init__(self, model: str, device: str = "auto") -> None:
        self.model, self.device = model, device

    def fingerprint(self) -> dict[str, Any]:
        return {"engine": self.name, "model": self.model}

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Reply]:
        for request in requests:
            CarefulEngine.asked.append(request)
            yield Reply(request.key, json.dumps(answer(request.prompt)))

    def close(self) -> None:
        CarefulEngine.closed += 1


class SeeingEngine(CarefulEngine):
    """Answers only about frames."""

    answers_text = False


def answer(prompt: str) -> dict[str, Any]:
    """Answer as a careful model would."""
    if "Write " in prompt:
        return {"pairs": [_PAIR]}
    if "Judge this pair" in prompt:
        marks = dict.fromkeys(("consistency", "fluency", "relevance", "information"), 5)
        return {**marks, "hallucinated": False, "uncertain": False}
    if "Which kind" in prompt:
        return {"kind": "temporal"}
    return {"own_answer": "A cup.", "same": True}


@pytest.fixture(autouse=True)
def engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "careful_engine", sys.modules[__name__])
    monkeypatch.setattr(CarefulEngine, "asked", [])
    monkeypatch.setattr(CarefulEngine, "closed", 0)


def command(name: str, folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    if not (folder / "data").exists():
        make_dataset(folder / "data", videos=False)
    line = ["data", name, str(folder / "data"), "--run", str(folder / name), *words, "--json"]
    done = CliRunner().invoke(app, line)
    if isinstance(done.exception, Exception):
        raise done.exception
    return done.exit_code, json.loads(done.stdout)


def test_a_model_that_runs_in_this_process_makes_questions_and_labels_them_once(tmp_path: Path) -> None:
    words = ["--model", "any", "--engine", "careful_engine:CarefulEngine"]
    assert command("make-qa", tmp_path, *words, "--dry-run")[1]["cost_at_most"] == 0
    code, summary = command("make-qa", tmp_path, *words)
    assert (code, summary["chosen"], summary["for_review"]) == (0, 4, 0)
    assert all(request.frames is None for request in CarefulEngine.asked)
    assert CarefulEngine.closed == 1
    before = len(CarefulEngine.asked)
    assert command("make-qa", tmp_path, *words)[1]["chosen"] == 4
    assert len(CarefulEngine.asked) == before
    assert command("label-qa", tmp_path, *words)[1]["temporal"] == 24


def test_a_card_of_ones_own_is_run_by_the_engine_that_it_names(tmp_path: Path) -> None:
    about = {"name": "mine", "title": "Mine", "hub_id": "me/mine", "engine": "careful_engine:CarefulEngine"}
    rest = {"frames": {"kind": "uniform", "count": 4}, "chat_template": "none", "context": 4096}
    path = tmp_path / "card.yaml"
    path.write_text(json.dumps({**about, **rest, "gpu_memory_gb": 0, "runs": "weights"}))
    assert command("make-qa", tmp_path, "--model", str(path))[1]["chosen"] == 4


def test_a_checkpoint_folder_labels_questions_within_the_shape_that_is_asked_for(
    tmp_path: Path, tiny_vlm: Callable[[str], Path]
) -> None:
    words = ["--model", str(tiny_vlm("qwen2_5_vl")), "--engine", "transformers", "--limit", "2"]
    code, summary = command("label-qa", tmp_path, *words, "--max-tokens", "40", "--set", "settings.threads=1")
    assert (code, summary["questions"], summary["failed"]) == (0, 2, 0)
    rows = storage.read_parquet(str(tmp_path / "label-qa" / "tables" / "qa_kinds.parquet")).to_pylist()
    assert all(row["kind"] and row["status"] == "ok" for row in rows)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_vllm_labels_questions_too(tmp_path: Path, tiny_vlm: Callable[[str], Path]) -> None:
    words = ["--model", str(tiny_vlm("qwen2_5_vl")), "--engine", "vllm", "--limit", "2", "--max-tokens", "40"]
    code, summary = command("label-qa", tmp_path, *words)
    assert (code, summary["failed"]) == (0, 0)


def test_gemini_makes_questions_by_its_name_without_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "test-key-0123456789")
    with GeminiServer(answer=lambda body: json.dumps(answer(json.dumps(body)))) as server:
        words = ["--model", "gemini-9", "--engine", "gemini", "--url", server.url, "--limit", "1"]
        code, summary = command("make-qa", tmp_path, *words)
    assert (code, summary["chosen"]) == (0, 1)


def test_what_cannot_answer_texts_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"answers only about frames.*--engine of vllm, transformers"):
        command("make-qa", tmp_path, "--model", "any", "--engine", "careful_engine:SeeingEngine")
    with pytest.raises(ConfigError, match="the engine transformers asks no server"):
        command("make-qa", tmp_path, "--model", "m", "--engine", "transformers", "--url", "http://127.0.0.1:9/v1")
    words = ["--engine", "careful_engine:CarefulEngine", "--set", "settings.colour=red"]
    with pytest.raises(ConfigError, match="colour"):
        command("label-qa", tmp_path, "--model", "any", *words)
    with pytest.raises(ConfigError, match="there is no model 'nothing'"):
        command("label-qa", tmp_path, "--model", "nothing")
    assert {each.name for each in tmp_path.iterdir()} == {"data"}


def test_code_of_strangers_runs_only_with_consent(tmp_path: Path, tiny_vlm: Callable[[str], Path]) -> None:
    folder = tiny_vlm("mplug_owl3")
    with pytest.raises(ConfigError, match="--trust-remote-code"):
        command("label-qa", tmp_path, "--model", str(folder), "--limit", "1")
    assert not (tmp_path / "label-qa").exists()
