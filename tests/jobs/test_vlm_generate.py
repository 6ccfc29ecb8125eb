"""`microg vlm generate`: every question answered once with its frames recorded, failures as rows, resume, refusals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from microg import storage
from microg.config import load_config, read_recipe, recipe_section
from microg.data.dataset import Dataset
from microg.demo.tiny_models import build
from microg.jobs.commands.vlm_score.settings import load_vlm_score_config
from microg.metrics.published import text_row, text_rows
from microg.models.vlm import cards
from microg.models.vlm.frames import sample_frames
from microg.models.vlm.prompts import prompt
from microg.models.vlm.sampling import Uniform
from microg.pipelines.vlm.settings import GenerateSettings
from microg.texts.screening import Screening, read_screening
from tests.support import gemini_server
from tests.support.gemini_server import GeminiServer
from tests.support.helpers import FRAMES, HEIGHT, WIDTH, make_dataset
from tests.support.model_server import Fault
from tests.support.openai_server import OpenAiServer, completion, failure, prompt_of
from tests.support.prices import write_prices
from tests.support.processes import ROOT, microg

CLIPS = ["filmA_000", "filmA_001", "tourB_000", "walkC_000"]
ROWS = len(CLIPS) * 7
ONE_ACTOR = ("--set", "resources.max_actors=1")  # starts sooner
KEY = "sk-test-0123456789"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asked") / "data"
    make_dataset(folder)
    return folder


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with OpenAiServer(answer=lambda body: f"said {_last(prompt_of(body))}") as running:
        yield running


def _last(text: str) -> str:
    """Return the question in a prompt, or "caption" where it holds none."""
    return text.rpartition("Question: ")[2] if "Question: " in text else "caption"


def words(data: Path, run: Path, server: Any, *more: object, model: str = "m") -> list[object]:
    return [
        "vlm",
        "generate",
        "--model",
        model,
        "--url",
        server.url,
        "--dataset",
        data,
        "--run",
        run,
        *ONE_ACTOR,
        *more,
    ]


def table_of(run: Path) -> list[dict[str, Any]]:
    return storage.read_parquet(str(run / "tables" / "generations.parquet")).to_pylist()


def test_each_clip_gets_a_caption_and_all_answers_once_with_the_frames_it_was_shown(
    data: Path, server: OpenAiServer, tmp_path: Path, ray_session: None, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    asked = words(data, run, server, "--frames", "uniform:3")
    assert microg(*asked) == 0
    printed = capsys.readouterr()
    assert f"next: microg vlm score --run {run}" in printed.out
    assert "generate: 28/28 rows" in printed.err
    rows = table_of(run)
    assert [(row["clip_id"], row["task"], row["qa_index"]) for row in rows] == [
        (clip, task, index)
        for clip in CLIPS
        for task, index in [("caption", None), *(("vqa", number) for number in range(6))]
    ]
    for row in rows:
        assert row["text"] == f"said {row['question'] or 'caption'}"
        assert (row["status"], row["error"], row["finish_reason"]) == ("ok", "", "stop")
        assert (row["model"], row["engine"], row["attempts"], row["cached"]) == ("m", "openai", 1, False)
        assert (row["prompt_tokens"], row["completion_tokens"]) == (7, 3)
        assert row["prompt_hash"] == prompt(row["prompt_id"]).hash
        frames = sample_frames(str(data / f"videos/{row['clip_id']}.mp4"), [Uniform(count=3)])[0]
        assert row["frame_indices"] == list(frames.indices) == [0, 5, FRAMES - 1]
        assert (row["frame_hash"], row["width"], row["height"]) == (frames.sha256, WIDTH, HEIGHT)
    assert len(server.requests) == ROWS
    for _, body in server.requests:
        content = body["messages"][-1]["content"]
        assert [part["type"] for part in content] == ["image_url"] * 3 + ["text"]
    assert all(KEY.encode() not in file.read_bytes() for file in run.rglob("*") if file.is_file())

    # the run is what scoring takes, as it is, with the dataset it was made from
    score = ["vlm", "score", "--run", run, "--metrics", "bleu", "--resamples", 0, "--no-plots", "--json"]
    assert microg(*score, "--out", tmp_path / "scored") == 0
    coverage = json.loads(capsys.readouterr().out)["coverage"]
    assert (coverage["caption"]["answered"], coverage["vqa"]["answered"]) == (4, 24)

    # the same command asks nothing again; another prompt, model, server or other frames are refused
    assert microg(*asked) == 0
    assert len(server.requests) == ROWS
    assert "28 done before" in capsys.readouterr().out
    changed = {
        ("--prompt", "vqa-unanswerable-v1"): "prompts.vqa: 'vqa-v1' there, 'vqa-unanswerable-v1' asked",
        ("--frames", "uniform:4"): "frames.count: 3 there, 4 asked",
        ("--set", "sampling.max_tokens=9"): "sampling.max_tokens: 256 there, 9 asked",
        ("--model", "other"): "model_id: 'm' there, 'other' asked",
        ("--url", "http://127.0.0.1:9/v1"): "server: ",
        ("--set", "settings.picture_format=png"): "pictures: 'jpeg95' there, 'png' asked",
    }
    for option, message in changed.items():
        assert microg(*asked, *option) == 2
        assert message in capsys.readouterr().err
    assert len(server.requests) == ROWS


def test_a_video_that_cannot_be_read_is_rows_with_its_reason_that_are_tried_again(
    server: OpenAiServer, tmp_path: Path, ray_session: None, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    make_dataset(data)
    missing, corrupt = data / "videos/filmA_001.mp4", data / "videos/walkC_000.mp4"
    kept = {path: path.read_bytes() for path in (missing, corrupt)}
    missing.unlink()
    corrupt.write_bytes(b"no video")
    server.faults = {prompt("caption-v1").render(): [failure(400, "too long")]}
    asked = words(data, run, server, "--frames", "uniform:2", "--json")
    assert microg(*asked) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["rows"], report["failed"], report["rows_in_table"]) == (ROWS, 15, ROWS)
    rows = {(row["clip_id"], row["task"], row["qa_index"]): row for row in table_of(run)}
    assert len(rows) == ROWS
    for (clip_id, *_), row in rows.items():
        if clip_id in ("filmA_001", "walkC_000"):
            assert row["status"] == "error"
            assert row["error"].startswith("VideoError" if clip_id == "walkC_000" else "VideoAccessError")
            assert row["text"] is row["frame_hash"] is None
    refused = [row for row in rows.values() if row["error"].startswith("HTTP 400")]
    assert [row["task"] for row in refused] == ["caption"]
    assert len(server.requests) == 14
    for path, content in kept.items():
        path.write_bytes(content)
    # a second try asks only what failed; what was lost before it was committed is not paid again: replies are kept
    for part in (run / "parts").iterdir():
        part.unlink()
    assert microg(*asked) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["done_before"], report["asked_now"]["cached"], report["account"]["sent"]) == (0, 13, 15)
    assert len(server.requests) == 14 + 15
    assert all(row["status"] == "ok" for row in table_of(run))


@pytest.mark.slow
def test_gemini_answers_and_a_run_grows_by_clips_and_by_a_task(
    data: Path, tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    with GeminiServer(answer=lambda body: f"said {_last(gemini_server.prompt_of(body))}") as server:
        card = tmp_path / "card.yaml"
        card.write_text(
            json.dumps(
                {
                    "name": "mock-gemini",
                    "title": "Mock",
                    "hub_id": "gemini-test",
                    "engine": "gemini",
                    "runs": "yes",
                    "frames": {"kind": "uniform", "count": 2},
                    "chat_template": "its own",
                    "context": 1000,
                    "settings": {"base_url": server.url},
                }
            )
        )
        run = tmp_path / "run"
        asked = ["vlm", "generate", "--model", card, "--dataset", data, "--run", run, *ONE_ACTOR, "--json"]
        assert microg(*asked, "--task", "caption", "--limit", 3) == 0
        assert [row["clip_id"] for row in table_of(run)] == CLIPS[:3]
        assert len(server.requests) == 3
        assert microg(*asked) == 0
        assert len(server.requests) == ROWS
        rows = table_of(run)
        assert len(rows) == ROWS
        assert all(row["text"] == f"said {row['question'] or 'caption'}" for row in rows)
        assert {(row["engine"], row["model"]) for row in rows} == {("gemini", "mock-gemini")}
        parts = server.requests[0][1]["contents"][-1]["parts"]
        assert ["inlineData" in part for part in parts] == [True, True, False]
        # fewer clips of a finished run take nothing away from it
        assert microg(*asked, "--task", "vqa", "--limit", 1) == 0
        assert len(table_of(run)) == ROWS
        assert json.loads(capsys.readouterr().out.rpartition("\n{")[2].join(["{", ""]))["rows"] == 6


@pytest.mark.slow
def test_costs_never_pass_the_cap_and_what_was_not_sent_says_so(
    data: Path,
    server: OpenAiServer,
    tmp_path: Path,
    ray_session: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MICROG_PRICES", str(write_prices(tmp_path)))  # a dollar a token: each answer costs 10
    asked = words(data, tmp_path / "run", server, "--task", "vqa", "--set", "sampling.max_tokens=3", "--json")
    assert microg(*asked, "--dry-run") == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["rows_to_do"], plan["max_cost"]) == (24, None)
    assert plan["cost_at_most"] > 24 * 10
    assert not (tmp_path / "run").exists()
    assert not server.requests
    one = plan["cost_at_most"] / 24
    assert microg(*asked, "--max-cost", one + 50) == 1
    report = json.loads(capsys.readouterr().out)
    sent = len(server.requests)
    assert report["account"]["spent"] == 10 * sent <= one + 50
    assert 1 <= sent < 24
    assert report["failed"] == 24 - sent
    assert all("of the cap are spent" in row["error"] for row in report["errors"])
    # a higher cap goes on; what was spent counts
    assert microg(*asked, "--max-cost", 240 + 2 * one) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["account"]["spent"] == 240
    assert (report["done_before"], len(server.requests)) == (sent, 24)


def test_a_server_that_refuses_the_key_ends_the_run_with_one_line(
    data: Path, server: OpenAiServer, tmp_path: Path, ray_session: None, capsys: pytest.CaptureFixture[str]
) -> None:
    server.faults = {prompt("caption-v1").render(): [failure(401, "wrong key")] * 20}
    assert microg(*words(data, tmp_path / "run", server)) == 2
    error = capsys.readouterr().err
    lines = error.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("error:"))
    told, fix = lines[place : place + 2]
    assert told.startswith("error: nothing can be answered: ")
    assert "refuses model 'm': HTTP 401" in told
    assert "OPENAI_API_KEY" in fix
    assert not (tmp_path / "run" / "tables").exists()


def test_a_model_screens_every_clip_and_its_run_is_not_scored_as_texts(
    data: Path, server: OpenAiServer, tmp_path: Path, ray_session: None, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = lambda body: json.dumps({"weightless": "no", "reason": "a title"})
    run = tmp_path / "run"
    assert microg(*words(data, run, server, "--task", "screening", "--frames", "uniform:2")) == 0
    printed = capsys.readouterr().out
    assert f"next: microg data accept {run} {data}" in printed
    assert "vlm score" not in printed
    rows = table_of(run)
    assert [(row["clip_id"], row["task"], row["qa_index"], row["prompt_id"]) for row in rows] == [
        (clip, "screening", None, "screening-v1") for clip in CLIPS
    ]
    assert read_screening(rows[0]["text"]) == Screening(False, "a title")
    assert microg("vlm", "score", "--run", run, "--no-plots") == 2
    assert "holds screenings only, no texts to score" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--model", "qwen9"], "there is no model 'qwen9'"),
        (["--model", "gemini-1.5-pro"], "cannot run: Google has switched off"),
        (["--model", "gpt-4o"], "OPENAI_API_KEY is not set"),
        ([], "which model to ask is missing"),
        (["--model", "gpt-4o", "--task", "captions"], "tasks.0: Input should be 'caption', 'vqa' or 'screening'"),
        (["--model", "gpt-4o", "--prompt", "vqa-v9"], "there is no prompt 'vqa-v9'"),
        (["--model", "gpt-4o", "--prompt", "vqa-v1", "--prompt", "vqa-json-v1"], "are for one task"),
        (["--model", "gpt-4o", "--set", "prompts.vqa=caption-v1"], "prompt caption-v1 is for task caption, not vqa"),
        (["--model", "gpt-4o", "--frames", "every"], "is no way to choose frames"),
        (["--model", "gpt-4o", "--split", "test"], "has no test split of scheme 'published'"),
        (["--model", "gpt-4o", "--dataset", "absent"], "absent is not a dataset"),
        (["--model", "gpt-4o", "--set", "modle=3"], "did you mean 'model'"),
        (["--model", "m", "--url", "http://127.0.0.1:9/v1", "--set", "settings.x=1"], "no setting x"),
        (["--model", "m", "--url", "http://example.org/v1", "--max-cost", "1"], "the price of m is not known"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    data: Path,
    tmp_path: Path,
    given: Sequence[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    run = [] if "--run" in given else ["--run", tmp_path / "run"]
    where = [] if "--dataset" in given else ["--dataset", data]
    assert microg("vlm", "generate", *where, *run, *given) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_a_plan_tells_rows_tokens_memory_and_cost_and_writes_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--dataset", data, "--run", tmp_path / "run", "--dry-run", "--json"]
    assert microg("vlm", "generate", "--model", "qwen2.5-vl-7b", *where, "--limit", 2) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["clips_to_do"], plan["rows_to_do"], plan["gpu_memory_gb"]) == (2, 14, 24)
    assert plan["gpu_memory"].startswith("as the model's card says")
    assert plan["cost_at_most"] == "none: it runs here"
    assert plan["first_clip"] == f"9 frames of {WIDTH} x {HEIGHT}"
    assert plan["tokens_about"] > 0
    assert [(stage["stage"], stage["runs_as"]) for stage in plan["stages"]] == [("decode", "tasks"), ("ask", "actors")]
    assert plan["tokens_counted"].startswith("by OpenAI's rule for pictures, as the model is not here")
    assert microg("vlm", "generate", "--model", "gpt-4o", *where) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["stages"][1]["max_actors"] == 2
    assert plan["rows_to_do"] == ROWS
    assert 0 < plan["cost_at_most"] < 10
    assert not (tmp_path / "run").exists()


def test_a_plan_counts_the_tokens_of_a_model_that_is_here_as_the_model_does(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build("qwen2_5_vl", tmp_path / "qwen")
    words = ["vlm", "generate", "--model", tmp_path / "qwen", "--engine", "transformers", "--dataset", data]
    words += ["--run", tmp_path / "run", "--task", "vqa", "--set", "sampling.max_tokens=4", "--limit", 1, "--json"]
    assert microg(*words, "--dry-run") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["tokens_counted"] == "by the model's own processor"
    assert plan["gpu_memory_gb"] == pytest.approx(sum(plan["gpu_memory"].values()), abs=0.1)
    assert set(plan["gpu_memory"]) == {"weights", "cache", "pictures", "language", "runtime"}
    assert microg(*words) == 0
    asked = json.loads(capsys.readouterr().out)["asked_now"]
    longest = asked["prompt_tokens"] + 4 * asked["rows"]  # the plan counts the longest answers
    assert abs(plan["tokens_about"] - longest) < 0.05 * longest


def test_clips_without_captions_are_asked_only_where_that_is_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(rows: dict[str, list[dict[str, Any]]]) -> None:
        rows["captions"] = rows["captions"][:1]
        rows["qa"] = []
        rows["clips"][3]["status"] = "rejected"

    make_dataset(tmp_path / "data", change, videos=False)
    where = ["vlm", "generate", "--model", "gpt-4o", "--dataset", tmp_path / "data", "--dry-run", "--json"]
    assert microg(*where, "--task", "caption") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["clips"] == 1
    assert "1 clips with status rejected or error were left out" in plan["notes"][0]
    assert microg(*where, "--task", "caption", "--all-clips") == 0
    assert json.loads(capsys.readouterr().out)["clips"] == 3
    assert microg(*where) == 2
    assert "has no questions" in capsys.readouterr().err
    assert Dataset.open(str(tmp_path / "data")).table("qa").num_rows == 0


def test_every_published_row_has_a_recipe_with_its_frames_and_tasks() -> None:
    found = {}
    for file in sorted((ROOT / "recipes" / "vlm").glob("*.yaml")):
        settings = load_config(GenerateSettings, **recipe_section(str(file), "generate"))
        model = cards.card(settings.model)
        assert model.name == file.stem
        assert model.paper is not None
        assert [settings.prompt_of(task).task for task in settings.tasks] == list(settings.tasks)
        assert len(settings.tasks) == len(model.paper.tables)
        row = read_recipe(str(file)).get("row")
        if row is None:
            assert model.name == "tarsier2-recap-7b"
            continue
        published = text_row(row)
        assert settings.tasks == tuple(published.scores)
        assert len(settings.policy().indices(90, 30.0)) == published.frames == model.paper.frames
        load_vlm_score_config(str(file), (), {})
        found[row] = file
    assert set(found) == set(text_rows())


def test_a_recipe_says_what_is_asked_and_options_come_first(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["vlm", "generate", "--recipe", ROOT / "recipes/vlm/gpt-4o.yaml", "--dataset", data, "--dry-run", "--json"]
    assert microg(*words) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["model"], plan["frames"]) == ("gpt-4o", "uniform:6")
    assert microg(*words, "--model", "gpt-6.1-sol", "--prompt", "vqa-json-v1", "--frames", "dense") == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["model"], plan["frames"]) == ("gpt-6.1-sol", "dense")
    assert plan["prompts"] == {"caption": "caption-v1", "vqa": "vqa-json-v1"}
    assert microg("vlm", "generate", "--recipe", ROOT / "recipes/vlm/video-chatgpt.yaml", "--dataset", data) == 2
    assert "Video-ChatGPT 7B cannot run" in capsys.readouterr().err


@pytest.mark.slow
def test_odd_replies_of_a_server_are_rows_and_the_run_goes_on_and_is_scored(
    data: Path, cases: Path, server: OpenAiServer, tmp_path: Path, ray_session: None, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(name: str, status: int = 200) -> list[Fault]:
        return [(status, {}, (cases / "server" / f"{name}.json").read_bytes(), None, 0.0)] * 99

    questions = list(dict.fromkeys(Dataset.open(str(data)).table("qa")["question"].to_pylist()))
    odd = {
        questions[0]: (said("http-403-moderation", 403), "Your input was flagged"),
        questions[1]: (said("error-json-with-200"), "Provider returned error"),
        questions[2]: ([(200, {}, completion(""), None, 0.0)] * 99, "no text (finish_reason stop)"),
        questions[3]: (said("content-as-list"), None),
        questions[4]: (said("lone-surrogate"), None),
    }
    server.faults = {prompt("vqa-v1").render(question=name): list(faults) for name, (faults, _) in odd.items()}
    run = tmp_path / "run"
    asked = words(data, run, server, "--task", "vqa", "--set", "api={attempts: 2, first_wait_s: 0.01}")
    for _ in range(2):  # a resume ends the same way
        assert microg(*asked) == 1
        printed = capsys.readouterr().out
        assert "answers hold U+FFFD" in printed
        rows = [row for row in table_of(run) if row["question"] in odd]
        assert rows
        for row in rows:
            words_of_server = odd[row["question"]][1]
            assert row["status"] == ("ok" if words_of_server is None else "error")
            assert words_of_server is None or words_of_server in row["error"]
        assert {row["text"] for row in rows} == {None, "A man floats.", "bad \ufffd end"}
    score = ["vlm", "score", "--run", run, "--metrics", "bleu", "--resamples", 0, "--no-plots", "--json"]
    assert microg(*score, "--missing", "zero", "--out", tmp_path / "scored") == 0
    failed = sum(row["status"] == "error" for row in table_of(run))
    assert json.loads(capsys.readouterr().out)["coverage"]["vqa"]["failed"] == failed
