"""Kinds of questions by a model: labelled once, beside the rules, and taken by statistics and scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from microg import storage
from microg.data.dataset import Dataset
from microg.data.qa_kinds import qa_kind, qa_rules, read_kinds
from microg.errors import FormatError
from microg.jobs.cli import app
from microg.models.vlm.prompts import prompt
from tests.support import scored_runs
from tests.support.openai_server import OpenAiServer, failure, prompt_of


def _answers(body: dict[str, Any]) -> str:
    return json.dumps({"kind": "temporal" if "How many" in prompt_of(body) else "entity/attribute"})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")
    with OpenAiServer(answer=_answers) as running:
        yield running


def _command(*words: str) -> tuple[int, Any]:
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, json.loads(done.stdout)


def _label(root: Path, server: OpenAiServer, *more: str) -> tuple[int, dict[str, Any]]:
    words = ["data", "label-qa", str(root / "data"), "--model", "m", "--url", server.url, "--run", str(root / "run")]
    return _command(*words, *more)


def test_a_model_labels_questions_once_and_its_kinds_reach_statistics_and_slices(
    tmp_path: Path, server: OpenAiServer
) -> None:
    dataset = scored_runs.scored_dataset(tmp_path / "data")
    questions = dataset.table("qa").to_pylist()
    assert _label(tmp_path, server, "--dry-run")[1]["questions"] == len(questions)
    assert not server.requests
    code, summary = _label(tmp_path, server)
    assert (code, summary["failed"], summary["rules"]) == (0, 0, qa_rules().name)
    asked = len(server.requests)
    assert _label(tmp_path, server)[0] == 0
    assert len(server.requests) == asked

    labels = read_kinds(str(tmp_path / "run"))
    assert len(labels) == len(questions)
    apart = [
        row for row in questions if labels[row["clip_id"], row["qa_index"]] != qa_kind(row["question"], row["answer"])
    ]
    assert summary["for_review"] == len(apart) == len((tmp_path / "run" / "review.csv").read_text().splitlines()) - 1
    _, stats = _command("data", "stats", dataset.root, "--qa-kinds", str(tmp_path / "run"))
    counted = {row["kind"]: row["questions"] for row in stats["tables"]["qa_kinds"]}
    assert counted["temporal"] == list(labels.values()).count("temporal")
    assert sum(counted.values()) == len(questions)

    said = scored_runs.generate_run(tmp_path / "said", dataset, 0.5, seed=1)
    words = ["vlm", "score", "--run", str(said), "--references", dataset.root, "--metrics", "rouge_l", "--no-plots"]
    words += ["--missing", "zero"]
    _, plain = _command(*words, "--out", str(tmp_path / "plain"))
    _, labelled = _command(*words, "--out", str(tmp_path / "labelled"), "--qa-kinds", str(tmp_path / "run"))
    assert plain["qa_kinds"] == qa_rules().name
    slices = labelled["tasks"]["vqa"]["paper"]["slices"]
    assert {name for name in slices if name.startswith("qa_kind/")} == {
        f"qa_kind/{kind}" for kind in set(labels.values())
    }
    pairs = storage.read_parquet(str(tmp_path / "labelled" / "tables" / "text_pairs.parquet")).to_pylist()
    of_answers = [row for row in pairs if row["task"] == "vqa"]
    assert all(row["qa_kind"] == labels[row["clip_id"], row["qa_index"]] for row in of_answers)


def test_a_reply_that_is_no_kind_fails_its_question_only_and_is_asked_again(
    tmp_path: Path, server: OpenAiServer
) -> None:
    scored_runs.scored_dataset(tmp_path / "data")
    server.answer = lambda body: json.dumps({"kind": "colour"}) if "How many" in prompt_of(body) else _answers(body)
    code, summary = _label(tmp_path, server)
    assert code == 1
    assert 0 < summary["failed"] < summary["questions"]
    rows = storage.read_parquet(str(tmp_path / "run" / "tables" / "qa_kinds.parquet")).to_pylist()
    assert {row["kind"] for row in rows if row["status"] == "error"} == {None}
    assert len(read_kinds(str(tmp_path / "run"))) == summary["questions"] - summary["failed"]

    other = tmp_path / "other"
    Dataset.create(str(other / "data"), "d")
    for name in ("clips", "sources", "qa"):
        Dataset.open(str(other / "data")).write(name, Dataset.open(str(tmp_path / "data")).table(name))
    server.answer = _answers
    server.faults[prompt_of(server.requests[0][1])] = [failure(400, "odd")]
    assert _label(other, server)[1]["failed"] == 1
    assert _label(other, server)[1]["failed"] == 0


def test_a_folder_without_labels_or_with_unknown_kinds_is_refused(tmp_path: Path) -> None:
    from microg.data import schema

    with pytest.raises(FormatError, match="holds no table qa_kinds"):
        read_kinds(str(tmp_path))
    table = schema.from_rows("qa_kinds", [{"clip_id": "a_000", "qa_index": 0, "kind": "colour", "status": "ok"}])
    storage.write_parquet(str(tmp_path / "kinds.parquet"), table)
    with pytest.raises(FormatError, match="'colour' is no kind of question"):
        read_kinds(str(tmp_path / "kinds.parquet"))


def test_the_prompt_offers_the_kinds_of_the_rules() -> None:
    template = prompt("qa-kind-v1")
    assert template.json_schema is not None
    assert template.json_schema["properties"]["kind"]["enum"] == list(qa_rules().kinds)
    assert all(f"\n{kind}: " in template.user for kind in qa_rules().kinds)
