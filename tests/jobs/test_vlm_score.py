"""`microg vlm score` from the command line: what it prints and writes, the oracle, comparison, bad input."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from microg import storage
from microg.data import schema
from microg.jobs import cli
from microg.metrics.published import text_row
from microg.metrics.text import registry
from microg.metrics.text.tables import beside_published
from microg.registry import Registry
from tests.support.command_line import refused
from tests.support.helpers import make_dataset
from tests.support.openai_server import OpenAiServer, prompt_of

ROOT = Path(__file__).resolve().parents[2]
CHEAP = ("--metrics", "cider,bleu,rouge_l", "--protocol", "paper")
FAST = (*CHEAP, "--resamples", "20", "--no-plots")
WORDS = ["man", "woman", "floats", "red", "tether", "cable", "waves", "slowly", "behind", "panel", "the", "a"]
QUESTIONS = ["How many people float?", "Is the hatch open?", "What is her name?", "What does he hold?"]
ANSWERS = [["Two.", "Three.", "One."], ["Yes.", "No."], ["Not mentioned."], ["A red tether.", "The cable."]]


def _references(clips: int = 12) -> list[dict[str, Any]]:
    draw = random.Random(4)
    return [
        {
            "video_id": f"film_{number:03d}",
            "caption": " ".join(draw.choices(WORDS, k=draw.randint(5, 14))) + ".",
            "qa_pairs": [{"Q": q, "A": draw.choice(a)} for q, a in zip(QUESTIONS, ANSWERS, strict=True)],
        }
        for number in range(clips)
    ]


def _predictions(skill: float, seed: int = 0) -> list[dict[str, Any]]:
    """Return what a model says that is right with probability `skill`."""
    draw, made = random.Random(seed), _references()
    for entry in made:
        if draw.random() > skill:
            entry["caption"] = " ".join(draw.choices(WORDS, k=9))
        for pair in entry["qa_pairs"]:
            if draw.random() > skill:
                pair["A"] = draw.choice(["Four.", "It is blue.", "Yes, it is.", "Not mentioned."])
    return made


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    monkeypatch.chdir(tmp_path)
    Path("said.json").write_text(json.dumps(_predictions(0.6)))
    Path("true.json").write_text(json.dumps(_references()))
    return "said.json", "true.json"


def _microg(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["vlm", "score", *arguments])


def _json(*arguments: str, code: int = 0) -> dict[str, Any]:
    done = _microg(*arguments, "--json")
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def _refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    return refused(monkeypatch, capsys, "vlm", "score", *arguments)


def _of(files: tuple[str, str]) -> tuple[str, ...]:
    return "--predictions", files[0], "--references", files[1]


def test_writes_a_run_folder_with_tables_plots_and_metrics(files: tuple[str, str]):
    found = _json(*_of(files), *CHEAP, "--resamples", "50", "--out", "r")
    assert all(Path(path).is_file() for path in found["files"])
    names = {Path(path).name for path in found["files"]}
    assert {"text_pairs.parquet", "text_scores.parquet", "text_items.parquet", "text_bootstrap.parquet"} <= names
    assert {"vlm_scores_vqa.png", "vlm_scores_caption.svg", "vlm_answer_slices.png", "vlm_lengths_vqa.png"} <= names
    for name in ("text_pairs", "text_scores", "text_items", "text_bootstrap"):
        table = pq.read_table(f"r/tables/{name}.parquet")
        assert table.schema.equals(schema.RUN_TABLES[name])
        assert table.num_rows
    metrics = json.loads(Path("r/metrics.json").read_text())
    assert metrics["tasks"] == found["tasks"]
    manifest = json.loads(Path("r/run.json").read_text())
    assert (manifest["command"], manifest["protocol"]) == ("vlm score", "paper")
    rows = pq.read_table("r/tables/text_scores.parquet").to_pylist()
    whole = {(r["task"], r["system"], r["slice"], r["metric"]): r for r in rows if r["coverage"] == "all"}
    cider = whole["caption", "model", "all", "cider"]
    assert cider["value"] == found["tasks"]["caption"]["paper"]["scores"]["cider"]
    assert cider["low"] < cider["value"] < cider["high"]
    assert (cider["items"], cider["clips"], cider["corpus_items"]) == (12, 12, 12)
    assert whole["vqa", "model", "yes/no", "yes_no_accuracy"]["items"] == 12
    assert {key[1] for key in whole} == {"model", "constant", "blind", "shuffled"}
    items = pq.read_table("r/tables/text_items.parquet").to_pylist()
    mean = sum(r["value"] for r in items if (r["task"], r["metric"]) == ("caption", "cider")) / 12
    assert mean == pytest.approx(cider["value"], abs=1e-12)


def test_prints_scores_baselines_published_row_slices_and_examples(files: tuple[str, str]):
    shown = _microg(*_of(files), *FAST, "--row", "Video_LLaVA").output
    for text in (
        "12 of 12 items of 12 clips answered",
        "CIDEr-D",
        "published: Video-LLaVA",
        "28.47?",
        "yes/no accuracy",
        "constant",
        "blind",
        "shuffled",
        "unanswerable",
        "length penalty takes",
        "best and worst by token F1",
        "the published vqa BLEU-4 is doubtful",
        "wrote 5 files to runs/vlm_score/said-",
    ):
        assert text in shown


def test_a_better_model_scores_better_than_what_sees_no_video(files: tuple[str, str]):
    scores = _json(*_of(files), *FAST, "--out", "r")["tasks"]["vqa"]["paper"]
    for name in ("exact_match", "rouge_l"):
        assert scores["scores"][name] > scores["baselines"]["shuffled"][name]
    # the same answer to everything reaches what a quarter of the answers is worth
    assert scores["baselines"]["constant"]["exact_match"] == 0.25
    assert scores["baselines"]["blind"]["exact_match"] >= 0.25


def test_task_is_what_predictions_hold_unless_asked_for(files: tuple[str, str], monkeypatch, capsys):
    captions = {entry["video_id"]: entry["caption"] for entry in _predictions(0.5)}
    Path("captions.json").write_text(json.dumps(captions))
    found = _json(*_of(("captions.json", files[1])), *FAST)
    assert list(found["tasks"]) == ["caption"]
    assert found["notes"] == ["the references also hold vqa items: they were not scored, as the other side has none"]
    assert list(_json(*_of(files), *FAST, "--task", "vqa")["tasks"]) == ["vqa"]
    error = _refused(monkeypatch, capsys, *_of(("captions.json", files[1])), *FAST, "--task", "both")
    assert "predictions hold nothing of task vqa" in error


def test_missing_predictions_stop_the_command_or_score_zero_beside_the_answered(
    files: tuple[str, str], monkeypatch, capsys
):
    part = _predictions(1.0)[:9]
    Path("part.json").write_text(json.dumps(part))
    error = _refused(monkeypatch, capsys, *_of(("part.json", files[1])), *FAST)
    assert "3 of 12 caption predictions are missing: film_009, film_010, film_011" in error
    assert "--missing zero" in error
    found = _json(*_of(("part.json", files[1])), *FAST, "--missing", "zero", "--out", "r")
    assert found["coverage"]["caption"] == {
        "items": 12,
        "clips": 12,
        "answered": 9,
        "empty": 0,
        "missing": 3,
        "failed": 0,
        "extra": 0,
    }
    scores = found["tasks"]["caption"]["paper"]
    assert scores["valid"]["scores"]["rouge_l"] == 1.0
    assert scores["scores"]["rouge_l"] == 0.75
    assert scores["corpus"]["items"] == 12
    table = pq.read_table("r/tables/text_scores.parquet").to_pylist()
    assert {row["coverage"] for row in table} == {"all", "valid"}
    assert "3 missing" in _microg(*_of(("part.json", files[1])), *FAST, "--missing", "zero").output


def test_extra_predictions_are_refused_or_listed(files: tuple[str, str], monkeypatch, capsys):
    more = [*_predictions(0.5), {"video_id": "other_000", "caption": "x", "qa_pairs": []}]
    Path("more.json").write_text(json.dumps(more))
    assert "other_000" in _refused(monkeypatch, capsys, *_of(("more.json", files[1])), *FAST)
    found = _json(*_of(("more.json", files[1])), *FAST, "--allow-extra")
    assert found["extra"] == {"caption": ["other_000"]}


def test_scores_the_run_of_a_model_against_its_dataset(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = make_dataset(tmp_path / "d", videos=False)
    rows = [
        {
            "clip_id": row["clip_id"],
            "task": "vqa",
            "qa_index": row["qa_index"],
            "prompt_id": "v1",
            "model": "tiny",
            "text": row["answer"],
            "status": "ok",
        }
        for row in dataset.table("qa").to_pylist()
    ]
    rows[3] |= {"text": None, "status": "error", "error": "TimeoutError: slow"}
    storage.write_parquet("run/tables/generations/a.parquet", schema.from_rows("generations", rows))
    storage.write_json("run/run.json", {"command": "vlm generate", "full_config": {"dataset": dataset.root}})
    found = _json("--run", "run", *FAST, "--missing", "zero", "--out", "r")
    assert found["model"] == "tiny"
    assert found["notes"][0] == "1 generations failed: they have no text"
    assert found["coverage"]["vqa"]["failed"] == 1
    assert found["tasks"]["vqa"]["paper"]["valid"]["scores"]["exact_match"] == 1.0
    assert {"origin/movie", "origin/real"} <= set(found["tasks"]["vqa"]["paper"]["slices"])
    states = pq.read_table("r/tables/text_pairs.parquet")["status"].to_pylist()
    assert states.count("failed") == 1


def test_models_are_compared_on_the_same_clips(files: tuple[str, str], monkeypatch, capsys):
    settings = (*CHEAP, "--resamples", "200", "--no-plots")
    Path("good.json").write_text(json.dumps(_predictions(0.95, 1)))
    Path("bad.json").write_text(json.dumps(_predictions(0.1, 2)))
    _json(*_of(("bad.json", files[1])), *settings, "--out", "bad")
    _json(*_of(files), *settings, "--out", "middle")
    found = _json(*_of(("good.json", files[1])), *settings, "--out", "good", "--compare", "bad", "middle")
    rows = {(row["run"], row["task"], row["metric"]): row for row in found["comparisons"]}
    assert {key[0] for key in rows} == {"bad", "middle"}
    row = rows["bad", "vqa", "exact_match"]
    assert row["difference"] == pytest.approx(row["here"] - row["there"])
    assert row["p_better"] > 0.99
    assert 0 < row["low"] < row["difference"] < row["high"]
    shown = _microg(*_of(files), *settings, "--out", "middle", "--compare", "good").output
    assert "P better" in shown
    error = _refused(monkeypatch, capsys, *_of(files), *CHEAP, "--resamples", "10", "--no-plots", "--compare", "good")
    assert "resamples 200, not 10" in error
    changed = _references()
    changed[0]["caption"] = "another"
    Path("changed.json").write_text(json.dumps(changed))
    assert "other references" in _refused(
        monkeypatch, capsys, *_of(("said.json", "changed.json")), *settings, "--compare", "good"
    )
    assert "no finished run" in _refused(monkeypatch, capsys, *_of(files), *settings, "--compare", ".")


def test_same_settings_resume_and_others_are_refused(files: tuple[str, str], monkeypatch, capsys):
    _json(*_of(files), *FAST, "--out", "r")
    Path("renamed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _predictions(0.6)))
    _json(*_of(("renamed.jsonl", files[1])), *FAST, "--out", "r")  # the same contents
    assert len(json.loads(Path("r/run.json").read_text())["resumes"]) == 1
    assert "score.seed" in _refused(monkeypatch, capsys, *_of(files), *FAST, "--out", "r", "--seed", "3")
    Path("said.json").write_text(json.dumps(_predictions(0.3)))
    assert "predictions_digest" in _refused(monkeypatch, capsys, *_of(files), *FAST, "--out", "r")


def test_metrics_that_cannot_be_had_are_named_and_an_error_only_when_asked_for(
    files: tuple[str, str], monkeypatch, capsys
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    few = {name: registry.METRICS[name] for name in ("cider", "bertscore")}  # loading others takes its time
    monkeypatch.setattr(registry, "METRICS", Registry("text metric", few))
    nowhere = ("--set", "settings.bertscore={model: /nowhere/roberta}", "--protocol", "paper", "--resamples", "0")
    error = _refused(monkeypatch, capsys, *_of(files), *nowhere, "--metrics", "cider,bertscore")
    assert "/nowhere/roberta" in error
    assert "there is no text metric 'bleurt'" in _refused(monkeypatch, capsys, *_of(files), "--metrics", "bleurt")
    plan = _json(*_of(files), *nowhere, "--dry-run")
    assert list(plan["skipped"]) == ["bertscore"]
    assert "/nowhere/roberta" in plan["skipped"]["bertscore"]
    assert plan["metrics"]["paper"] == ["cider"]


def test_a_score_of_another_encoder_is_never_in_the_papers_column():
    pairs = SimpleNamespace(task="vqa")
    scores = {"sbert[mine]": 0.9, "bertscore_f1[tiny-L2]": 0.8, "cider": 0.5, "bleu_4": float("nan")}
    report: Any = SimpleNamespace(pairs=pairs, scores=scores)
    rows = {row["column"]: row for row in beside_published(report, text_row("gpt_4o"))}
    assert (rows["CIDEr"]["ours"], rows["CIDEr"]["difference"]) == (50.0, 50.0 - 33.98)
    assert [rows[name]["ours"] for name in ("S-VQA", "BERTScore", "METEOR", "BLEU-4")] == [None] * 4
    scores["sbert"] = 0.4
    rows = {row["column"]: row for row in beside_published(report, text_row("gpt_4o"))}
    assert rows["S-VQA"]["ours"] == 40.0


def _verdicts(body: dict[str, Any]) -> str:
    text = prompt_of(body)
    item = json.JSONDecoder().raw_decode(text, text.index("{"))[0]
    if item["given_answer"] == "Four.":
        return "no idea"
    return json.dumps({"verdict": "correct" if item["given_answer"] == item["correct_answer"] else "incorrect"})


def test_a_judge_gives_verdicts_and_its_failures_are_counted_apart(files: tuple[str, str], monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-123456")
    with OpenAiServer(answer=_verdicts) as server:
        judge = ("--task", "vqa", "--judge", "judge-1", "--judge-url", server.url, *FAST)
        found = _json(*_of(files), *judge, "--out", "r", code=1)
        counts = found["judge"]["vqa"]
        assert counts["items"] == 48
        assert counts["judged"] + counts["failed"] == 48
        assert counts["failed"] > 0
        table = pq.read_table("r/tables/text_judgements.parquet").to_pylist()
        assert sum(row["status"] == "error" for row in table) == counts["failed"]
        assert {row["prompt_hash"] for row in table} == {counts["prompt_hash"]}
        asked = len(server.requests)
        again = _json(*_of(files), *judge, "--out", "r", code=1)  # asks only what it could not read
        assert again["judge"]["vqa"]["accuracy"] == counts["accuracy"]
        assert len(server.requests) - asked <= counts["failed"]
        shown = _microg(*_of(files), *judge, "--out", "r")
        assert shown.exit_code == 1
        assert "could not be judged" in shown.output
    kept = [path for path in Path().rglob("*") if path.is_file()]
    assert any(path.suffix == ".sqlite" for path in kept)
    assert not [path for path in kept if b"sk-secret" in path.read_bytes()]


def test_a_judge_that_cannot_work_ends_the_command_before_anything_is_scored(
    files: tuple[str, str], monkeypatch, capsys
):
    with OpenAiServer() as server:
        judge = (*FAST, "--out", "r", "--judge", "j", "--judge-url", server.url)
        assert "nothing to judge" in _refused(monkeypatch, capsys, *_of(files), *judge, "--task", "caption")
        prompt = ("--set", "judge.prompt=judge_caption_v1")
        assert "is for task caption, not vqa" in _refused(monkeypatch, capsys, *_of(files), *judge, *prompt)
        assert not server.requests
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    judge = (*FAST, "--out", "r", "--judge", "j", "--judge-url", "https://example.invalid/v1")
    assert "OPENAI_API_KEY is not set" in _refused(monkeypatch, capsys, *_of(files), *judge)
    assert not Path("r").exists()


def test_dry_run_scores_nothing(files: tuple[str, str]):
    plan = _json(*_of(files), *FAST, "--dry-run")
    assert plan["vqa"]["items"] == 48
    assert plan["metrics"] == {"paper": ["cider", "bleu", "rouge_l"]}
    assert "nothing was scored" in _microg(*_of(files), *FAST, "--dry-run").output
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give either --run or --predictions"),
        (("--predictions", "said.json", "--run", "r"), "give either --run or --predictions"),
        (("--predictions", "said.json"), "does not say what its answers are to"),
        (("--predictions", "gone.json", "--references", "true.json"), "predictions gone.json are not there"),
        (("--predictions", "said.json", "--references", "gone.json"), "references gone.json are not there"),
        (("--predictions", "said.json", "--references", "true.json", "--row", "gpt_9"), "no published row 'gpt_9'"),
        (("--predictions", "said.json", "--references", "true.json", "--protocol", "coco"), "protocol"),
        (("--predictions", "said.json", "--references", "true.json", "--missing", "skip"), "missing"),
        (("--predictions", "said.json", "--references", "true.json", "--set", "seeds=1"), "did you mean 'seed'"),
        (("--predictions", "said.json", "--references", "true.json", "r"), "unexpected argument 'r'"),
        (("--predictions", "said.json", "--references", "true.json", "--split", "test"), "it has no splits"),
        (
            ("--predictions", "said.json", "--references", "true.json", "--set", "settings.x={a: 1}"),
            "no text metric 'x'",
        ),
    ],
)
def test_bad_usage_is_one_line(files: tuple[str, str], monkeypatch, capsys, arguments: tuple[str, ...], said: str):
    assert said in _refused(monkeypatch, capsys, *arguments)


def test_one_clip_has_scores_and_no_intervals(files: tuple[str, str]):
    Path("one.json").write_text(json.dumps(_references(1)))
    found = _json("--predictions", "one.json", "--references", "one.json", *FAST, "--out", "r")
    assert found["tasks"]["vqa"]["paper"]["intervals"] == {}
    assert found["tasks"]["vqa"]["paper"]["scores"]["exact_match"] == 1.0


def test_the_oracle_under_both_protocols(oracles: Path, tmp_path: Path, monkeypatch):
    """Every number of microg_mini: corpus, items, and METEOR through the JVM."""
    monkeypatch.chdir(tmp_path)
    given = oracles / "text" / "microg_mini_input.json"
    expected = json.loads((oracles / "text" / "microg_mini_expected.json").read_text())
    metrics = "cider,bleu,meteor,rouge_l"
    found = _json(
        "--predictions",
        str(given),
        "--references",
        str(given),
        "--metrics",
        metrics,
        "--baselines",
        "none",
        "--resamples",
        "0",
        "--no-plots",
        "--out",
        "r",
    )
    names = {
        **{f"Bleu_{n}": f"bleu_{n}" for n in range(1, 5)},
        "METEOR": "meteor",
        "ROUGE_L": "rouge_l",
        "CIDEr": "cider",
    }
    items = pq.read_table("r/tables/text_items.parquet").to_pylist()
    order = {row["video_id"]: place for place, row in enumerate(json.loads(given.read_text())["captions"])}
    for task, section in (("caption", "captions"), ("vqa", "qa")):
        for protocol, key in (("paper", "paper_raw"), ("standard", "standard_ptb")):
            true, ours = expected[section][key], found["tasks"][task][protocol]["scores"]
            for theirs, name in names.items():
                assert ours[name] == pytest.approx(true["corpus"][theirs], abs=1e-9), (task, protocol, name)
            if task == "caption":
                for theirs, name in (
                    ("Bleu_4", "bleu_4"),
                    ("METEOR", "meteor"),
                    ("ROUGE_L", "rouge_l"),
                    ("CIDEr", "cider"),
                ):
                    rows = [
                        row for row in items if (row["task"], row["protocol"], row["metric"]) == (task, protocol, name)
                    ]
                    for row in rows:
                        assert row["value"] == pytest.approx(true["items"][theirs][order[row["clip_id"]]], abs=1e-9)
                    assert len(rows) == 12


def test_the_command_starts_quickly_and_shows_examples():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "microg.jobs.cli", "vlm", "score", "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert "microg vlm score --run runs/qwen" in " ".join(done.stdout.split())
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "ray", "transformers", "pandas", "openai", "pyarrow"}


def test_clean_answers_score_as_plain_ones_do_and_the_rule_is_told_wherever_scores_are(files: tuple[str, str]):
    wrapped = json.loads(Path(files[0]).read_text())
    around = ["<think>Two? No.</think>\n%s", "Answer: %s", "%s<|im_end|>", "**%s**", "```\n%s\n```"]
    for number, entry in enumerate(wrapped):
        entry["caption"] = json.dumps({"caption": entry["caption"]})
        for place, pair in enumerate(entry["qa_pairs"]):
            pair["A"] = around[(number + place) % len(around)] % pair["A"]
    Path("wrapped.json").write_text(json.dumps(wrapped))
    both = ("--metrics", "cider,bleu,rouge_l", "--resamples", "20", "--no-plots")
    plain = _json(*_of(files), *both, "--out", "plain")
    cleaned = _json(*_of(("wrapped.json", files[1])), *both, "--answers", "clean", "--out", "clean")
    raw = _json(*_of(("wrapped.json", files[1])), *both, "--out", "raw")
    assert cleaned["tasks"] == plain["tasks"]
    assert raw["tasks"] != plain["tasks"]
    assert (plain["answers"], plain["notes"]) == ({"rule": "raw", "wrapped": 0}, [])
    assert (raw["answers"], cleaned["answers"]) == ({"rule": "raw", "wrapped": 60}, {"rule": "clean", "wrapped": 60})
    assert "60 predictions hold more than an answer" in raw["notes"][0]
    assert raw["notes"][0].endswith("--answers clean leaves it out")
    assert cleaned["notes"][0].endswith("which was left out")
    for name in ("raw", "clean"):
        assert json.loads(Path(name, "run.json").read_text())["full_config"]["score"]["answers"] == name
    assert CliRunner().invoke(cli.app, ["report", "raw", "clean", "--out", "page.html"]).exit_code == 0
    page = Path("page.html").read_text()
    assert "60 texts hold more than an answer, which was left out" in page
    assert "60 texts hold more than an answer, all of which was scored (--answers raw)" in page
    assert "answers scored" in page
    assert page.count("only the answers in what the model wrote (--answers clean)") >= 2  # Tables 4 and 5
    board = CliRunner().invoke(cli.app, ["report", "--leaderboard", ".", "--out", "board.html"])
    assert board.exit_code == 0, board.output
    assert "(--answers clean)" in Path("board.html").read_text()
