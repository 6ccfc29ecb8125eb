"""`microg vlm generate` when servers misbehave and processes are killed: every item ends once, and nothing is asked on.

The commands run in processes of their own, with a Ray of their own.
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from microg import storage
from microg.data import schema
from microg.data.dataset import Dataset
from microg.models.vlm.prompts import prompt
from microg.texts.files import read_text_predictions
from tests.support import openai_server
from tests.support.helpers import moving_scene, write_video
from tests.support.openai_server import OpenAiServer, cut_json, failure, hang, page, prompt_of, reset, torn
from tests.support.processes import check_gone, family, start_microg, wait_for

CLIPS, QUESTIONS = 12, 6
ROWS = CLIPS * (QUESTIONS + 1)
KEY = "sk-test-0123456789"
QUICK = ("--set", "api={attempts: 4, timeout_s: 2, deadline_s: 60, first_wait_s: 0.05, give_up_after: 100}")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset whose questions all differ, so that a server can count them."""
    root = tmp_path_factory.mktemp("faults") / "data"
    dataset = Dataset.create(str(root), "faults")
    rows: dict[str, list[dict[str, Any]]] = {"clips": [], "captions": [], "qa": []}
    for number in range(CLIPS):
        clip_id = f"src_{number:03d}"
        write_video(root / f"videos/{clip_id}.mp4", moving_scene(number))
        rows["clips"].append(
            {
                "clip_id": clip_id,
                "source_id": "src",
                "sequence": number,
                "uri": f"videos/{clip_id}.mp4",
                "origin": "real",
                "fps": 30.0,
                "num_frames": 12,
                "width": 96,
                "height": 64,
                "status": "ok",
            }
        )
        rows["captions"].append({"clip_id": clip_id, "caption": "Somebody floats."})
        rows["qa"] += [
            {"clip_id": clip_id, "qa_index": index, "question": f"q{number}.{index}", "answer": "Yes."}
            for index in range(QUESTIONS)
        ]
    for name, table in rows.items():
        dataset.write(name, schema.from_rows(name, table))
    return root


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def words(data: Path, run: Path, url: str, *more: object) -> list[object]:
    return [
        "vlm",
        "generate",
        "--model",
        "m",
        "--url",
        url,
        "--dataset",
        data,
        "--run",
        run,
        "--frames",
        "uniform:2",
        *more,
    ]


def finished(log: Path, *arguments: object) -> tuple[int, str]:
    """Run the command to its end; return its exit code and output."""
    process = start_microg(log, *arguments)
    return process.wait(timeout=280), log.read_text()


def table_of(run: Path) -> dict[tuple[str, str, int | None], dict[str, Any]]:
    rows = storage.read_parquet(str(run / "tables" / "generations.parquet")).to_pylist()
    found = {(row["clip_id"], row["task"], row["qa_index"]): row for row in rows}
    assert len(found) == len(rows)
    return found


def question_of(body: dict[str, Any]) -> str:
    return prompt_of(body).rpartition("Question: ")[2]


def vqa_faults() -> dict[str, list[openai_server.Fault]]:
    """Return faults by prompt: each question of the first eight clips meets its own kind, some of them for ever."""
    kinds = {
        0: [failure(429, "slow down", retry_after="1")],
        1: [failure(500), failure(503)],
        2: [hang(5.0)],
        3: [cut_json(), torn()],
        4: [page()],
        5: [reset(), reset()],
    }
    faults: dict[str, list[openai_server.Fault]] = {}
    for number in range(8):
        for index, kind in kinds.items():
            faults[prompt_for(f"q{number}.{index}")] = list(kind)
    for index, kind in kinds.items():  # clip 8: until all attempts are used up
        faults[prompt_for(f"q8.{index}")] = list(kind) * 20
    faults[prompt_for("q9.0")] = [failure(400, "too long")]
    return faults


def prompt_for(question: str) -> str:
    return prompt("vqa-v1").render(question=question)


def test_every_server_fault_ends_in_an_answer_or_an_error_row(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with OpenAiServer(answer=lambda body: f"said {question_of(body)}", faults=vqa_faults()) as server:
        asked = words(data, run, server.url, *QUICK)
        code, log = finished(tmp_path / "log", *asked)
        assert code == 1, log
        rows = table_of(run)
        assert len(rows) == ROWS
        failed = {
            f"q{int(clip[-3:])}.{index}": row["error"]
            for (clip, task, index), row in rows.items()
            if row["status"] != "ok" and task == "vqa"
        }
        assert set(failed) == {"q9.0", *(f"q8.{index}" for index in range(QUESTIONS))}
        assert failed["q9.0"].startswith("HTTP 400")
        assert all(failed[f"q8.{index}"].startswith("gave up after") for index in range(QUESTIONS))
        assert all(row["text"] is None for row in rows.values() if row["status"] == "error")
        for (clip, task, index), row in rows.items():
            if row["status"] == "ok" and task == "vqa":
                assert row["text"] == f"said q{int(clip[-3:])}.{index}"
        counts = Counter(question_of(body) for _, body in server.requests if "Question: " in prompt_of(body))
        assert max(counts.values()) <= 4
        assert all(counts[f"q{number}.{index}"] == 1 for number in (10, 11) for index in range(QUESTIONS))
        assert server.keys == {f"Bearer {KEY}"}
        assert KEY not in log
        assert all(KEY.encode() not in file.read_bytes() for file in run.rglob("*") if file.is_file())

        # the same command asks what failed again, and nothing else
        server.faults.clear()
        before = len(server.requests)
        code, log = finished(tmp_path / "log", *asked)
        assert code == 0, log
        assert len(server.requests) - before == len(failed)
        assert all(row["status"] == "ok" for row in table_of(run).values())


def test_a_server_that_goes_away_ends_the_run_which_resumes_when_it_is_back(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with OpenAiServer(answer=question_of) as server:
        url = server.url
        code, log = finished(tmp_path / "log", *words(data, run, url, "--limit", 2))
        assert code == 0, log
    code, log = finished(tmp_path / "log", *words(data, run, url, *QUICK, "--set", "api.give_up_after=4"))
    assert code == 2, log
    assert "the server answers nothing any more: gave up after 4 attempts: connection failed" in log
    assert "Traceback" not in log
    assert sum(row["status"] == "ok" for row in table_of(run).values()) == 14


@pytest.mark.parametrize("victim", ["actor", "driver"])
def test_killed_in_the_middle_each_item_is_answered_once_and_paid_once(data: Path, tmp_path: Path, victim: str) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    with OpenAiServer(answer=lambda body: f"said {question_of(body)}", latency_s=0.3) as server:
        more = ("--set", "resources.max_actors=1", "--set", "api.concurrency=4", "--set", "clips_per_block=2")
        asked = words(data, run, server.url, *more)
        process = start_microg(log, *asked)
        wait_for(lambda: len(server.requests) > 20, process, log)
        processes = family(process)
        if victim == "driver":
            process.send_signal(signal.SIGKILL)
            process.wait()
            check_gone(processes, "Generator")
            assert not (run / "tables").exists()  # nobody scores half a run unnoticed
            assert len(server.requests) < ROWS
            code, printed = finished(log, *asked)
        else:
            (actor,) = [process for process, name in processes.items() if "MapWorker(MapBatches(Generator))" in name]
            os.kill(actor.pid, signal.SIGKILL)
            code, printed = process.wait(timeout=280), log.read_text()
        assert code == 0, printed
        rows = table_of(run)
        assert len(rows) == ROWS
        assert all(row["status"] == "ok" for row in rows.values())
        # only what was under way when it was killed is asked a second time
        counts = Counter((prompt_of(body), json.dumps(body["messages"])) for _, body in server.requests)
        assert len(counts) == ROWS
        assert len(server.requests) - ROWS <= 4
        assert len(read_text_predictions(str(run)).rows) == ROWS
        before = len(server.requests)
        assert finished(log, *asked)[0] == 0
        assert len(server.requests) == before
        assert finished(log, *asked, "--prompt", "vqa-unanswerable-v1")[0] == 2
        assert "'vqa-v1' there, 'vqa-unanswerable-v1' asked" in log.read_text()
        assert len(server.requests) == before
