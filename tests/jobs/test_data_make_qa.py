"""Questions from captions: proposed, ranked, filtered, chosen diverse, checked; every step kept, nothing twice."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from microg import storage
from microg.jobs.cli import app
from microg.models.vlm.qa import Candidate, choose
from tests.support.helpers import make_dataset
from tests.support.openai_server import OpenAiServer, failure, prompt_of

PAIRS = [
    ("what", "What floats beside the astronaut?", "A cup."),
    ("what", "What floats beside the astronauts?", "A cup."),
    ("who", "Who is in the module?", "An astronaut."),
    ("how many", "How many people are there?", "Nine."),
    ("where", "Where is the astronaut?", "Perhaps in a module."),
    ("yes-no", "Does the astronaut float?", "Yes, the astronaut floats."),
    ("why", "Why does the hair stand up?", ""),
]


def _answers(body: dict[str, Any]) -> str:
    """Answer as a careful model would: propose PAIRS, judge them, and disagree with `Nine.`"""
    text = prompt_of(body)
    if "Write " in text:
        return json.dumps({"pairs": [{"form": form, "question": q, "answer": a} for form, q, a in PAIRS]})
    if "Judge this pair" in text:
        marks = {"consistency": 5, "fluency": 5, "relevance": 4, "information": 5 if "cup" in text else 4}
        if "Who is" in text:
            marks["relevance"] = 2
        return json.dumps({**marks, "hallucinated": False, "uncertain": "Perhaps" in text})
    return json.dumps({"own_answer": "One.", "same": "Nine." not in text})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")
    with OpenAiServer(answer=_answers) as running:
        yield running


def _make(tmp_path: Path, server: OpenAiServer, *more: str) -> tuple[int, dict[str, Any]]:
    if not (tmp_path / "data").exists():
        make_dataset(tmp_path / "data", videos=False)
    words = ["data", "make-qa", str(tmp_path / "data"), "--model", "m", "--url", server.url, "--json"]
    done = CliRunner().invoke(app, [*words, "--run", str(tmp_path / "run"), *more])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, json.loads(done.stdout)


def test_pairs_are_proposed_ranked_chosen_and_flagged_with_every_step_kept(tmp_path: Path, server: OpenAiServer):
    code, summary = _make(tmp_path, server)
    assert code == 0
    rows = storage.read_parquet(str(tmp_path / "run" / "qa_candidates.parquet")).to_pylist()
    first = {row["number"]: row for row in rows if row["clip_id"] == "filmA_000"}
    assert {number: row["reason"] for number, row in first.items()} == {
        0: "",
        1: "much like candidate 0",
        2: "low relevance",
        3: "",
        4: "uncertain",
        5: "",
        6: "question or answer is empty",
    }
    pairs = storage.read_parquet(str(tmp_path / "run" / "qa.parquet")).to_pylist()
    assert [(pair["qa_index"], pair["answer"]) for pair in pairs if pair["clip_id"] == "filmA_000"] == [
        (0, "A cup."),
        (1, "Nine."),
        (2, "Yes, the astronaut floats."),
    ]
    with (tmp_path / "run" / "review.csv").open() as file:
        review = list(csv.DictReader(file))
    assert {row["answer"] for row in review} == {"Nine."}
    assert review[0]["review"] == "from the caption alone: One."
    assert (summary["candidates"], summary["chosen"], summary["for_review"]) == (28, 12, 4)


def test_a_second_run_asks_nothing_and_a_failed_reply_is_asked_again(tmp_path: Path, server: OpenAiServer):
    make_dataset(tmp_path / "data", videos=False)
    assert _make(tmp_path, server, "--limit", "1")[0] == 0
    prompts = [prompt_of(body) for _, body in server.requests]
    assert len(prompts) == len(set(prompts)) == 1 + 6 + 3
    assert _make(tmp_path, server, "--limit", "1")[0] == 0
    assert len(server.requests) == len(prompts)

    other = tmp_path / "other"
    other.mkdir()
    judged = next(text for text in prompts if "Judge this pair" in text)
    server.faults[judged] = [failure(400, "odd")]
    code, summary = _make(other, server, "--limit", "1")
    assert (code, summary["errors"]) == (1, 1)
    code, again = _make(other, server, "--limit", "1")
    assert (code, again["errors"]) == (0, 0)


def test_a_proposal_that_is_no_json_fails_its_clip_only(tmp_path: Path, server: OpenAiServer):
    server.answer = (
        lambda body: "no" if "module 0" in prompt_of(body) and "Write " in prompt_of(body) else _answers(body)
    )
    code, summary = _make(tmp_path, server)
    assert code == 1
    assert summary["failed_clips"] > 0
    rows = storage.read_parquet(str(tmp_path / "run" / "qa_candidates.parquet")).to_pylist()
    failed = [row for row in rows if row["status"] == "error"]
    assert all("is not JSON" in row["error"] for row in failed)
    assert summary["chosen"] == 3 * (4 - summary["failed_clips"])


def test_a_plan_sends_nothing_and_a_changed_model_is_refused_under_the_same_name(tmp_path: Path, server: OpenAiServer):
    assert _make(tmp_path, server, "--dry-run")[1]["requests"] == 4 * (1 + 12 + 6)
    assert not server.requests
    assert not (tmp_path / "run").exists()
    _make(tmp_path, server, "--limit", "1")
    words = ["data", "make-qa", str(tmp_path / "data"), "--run", str(tmp_path / "run"), "--model", "n", "--limit", "1"]
    done = CliRunner().invoke(app, [*words, "--url", server.url])
    assert "was made with other settings" in str(done.exception)


def test_a_run_folder_elsewhere_is_refused_also_by_a_plan(tmp_path: Path, server: OpenAiServer):
    make_dataset(tmp_path / "data", videos=False)
    words = ["data", "make-qa", str(tmp_path / "data"), "--model", "m", "--url", server.url, "--run", "s3://bucket/qa"]
    for more in ([], ["--dry-run"]):
        done = CliRunner().invoke(app, [*words, *more])
        assert "s3://bucket/qa is not on this machine" in str(done.exception)


def test_the_best_of_each_form_comes_first_then_the_best_of_the_rest():
    def candidate(number: int, form: str, question: str, mark: int) -> Candidate:
        return Candidate("c", number, form, question, "yes", mark, mark, mark, mark)

    found = [
        candidate(0, "what", "what one", 5),
        candidate(1, "what", "what two is blue", 5),
        candidate(2, "who", "who flies", 3),
        candidate(3, "where", "where is it", 4),
    ]
    assert [each.chosen for each in choose(found, 3)] == [0, None, 1, 2]
    assert [each.chosen for each in choose(found, 4)] == [0, 1, 2, 3]
