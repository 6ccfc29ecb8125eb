"""`microg data agreement`: numbers, run folder and page, of people and of models that join them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from microg import storage
from microg.errors import AnnotationError
from microg.jobs.cli import app
from tests.support.browser import look
from tests.support.judged import PEOPLE, judged_dataset, judgement
from tests.support.scored_runs import EVIL, generate_run, predict_run


def command(*words: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["data", "agreement", *words, "--resamples", "100", "--json"])
    if isinstance(done.exception, Exception):
        raise done.exception
    return json.loads(done.stdout)


def of(report: dict[str, Any], kind: str, **wanted: Any) -> Any:
    wanted = {"slice_kind": "all", "annotator": None, "other": None} | wanted
    rows = [each for each in report["kinds"][kind]["scores"] if all(each[key] == wanted[key] for key in wanted)]
    assert len(rows) == 1, wanted
    return rows[0]["value"]


def test_numbers_of_all_kinds_are_printed_and_written_with_who_said_what(tmp_path: Path) -> None:
    dataset = judged_dataset(tmp_path / "data")
    report = command(dataset.root, "--run", str(tmp_path / "run"))
    assert set(report["kinds"]) == {"screening", "action", "caption", "box"}
    assert of(report, "action", metric="observed") == 0.5
    assert of(report, "action", metric="jaccard") == pytest.approx((3 + 3 / 3) / 6)
    assert of(report, "screening", metric="observed", annotator="anna", other="ben") == 0.75
    assert of(report, "box", metric="people_f1") == 1
    assert report["kinds"]["action"]["confusions"][0] == {
        "first": "17 carry/hold (an object)",
        "second": "80 watch (a person)",
        "count": 3,
        "examples": [{"clip_id": clip, "person_id": person} for clip, person in PEOPLE[::2]],
    }
    rows = storage.read_parquet(str(tmp_path / "run" / "tables" / "agreement.parquet")).to_pylist()
    assert len(rows) == sum(len(each["scores"]) for each in report["kinds"].values())
    apart = storage.read_parquet(str(tmp_path / "run" / "tables" / "disagreements.parquet")).to_pylist()
    assert {(row["clip_id"], row["person_id"]) for row in apart if row["kind"] == "action"} == set(PEOPLE[::2])
    assert [json.loads(row["value"]) for row in apart if row["kind"] == "screening"] == [
        {"keep": True},
        {"keep": False, "reason": "a title"},
    ]
    assert storage.read_json(str(tmp_path / "run" / "run.json"))["command"] == "data agreement"


def test_the_words_for_people_name_annotators_pairs_and_what_is_undefined(tmp_path: Path) -> None:
    dataset = judged_dataset(tmp_path / "data")
    done = CliRunner().invoke(app, ["data", "agreement", dataset.root, "--kinds", "action", "--resamples", "0"])
    assert done.exit_code == 0
    assert "action: 6 judged by two or more, 0 by one; anna 6, ben 6" in done.stdout
    assert "undefined" in done.stdout
    assert "17 carry/hold (an object) where another said 80 watch (a person)" in done.stdout


def test_models_join_as_annotators_under_the_names_of_their_runs(tmp_path: Path) -> None:
    dataset = judged_dataset(tmp_path / "data")
    har = predict_run(tmp_path / "i3d", dataset, seed=0, skill=12.0)
    said = generate_run(tmp_path / "qwen", dataset, 1.0, seed=1)
    report = command(dataset.root, "--with", str(har), "--with", str(said), "--annotators", "anna,ben")
    assert set(report["kinds"]["action"]["annotators"]) == {"anna", "ben", "i3d"}
    assert of(report, "action", metric="observed", annotator="anna", other="i3d") is not None
    assert "qwen" in report["kinds"]["caption"]["annotators"]
    assert set(command(dataset.root)["kinds"]["action"]["annotators"]) == {"anna", "ben"}


def test_a_model_that_screens_has_its_errors_against_people(tmp_path: Path) -> None:
    clips = sorted({clip for clip, _ in PEOPLE})
    proposals = [judgement("screening", {"keep": clip != clips[0]}, "vlm", clip, source="model") for clip in clips]
    dataset = judged_dataset(tmp_path / "data", proposals)
    report = command(dataset.root, "--kinds", "screening", "--models")
    assert of(report, "screening", metric="false_drop", annotator="vlm") == pytest.approx(1 / 3)
    assert of(report, "screening", metric="false_keep", annotator="vlm") is None  # nobody's majority dropped a clip
    assert "vlm" not in command(dataset.root, "--kinds", "screening")["kinds"]["screening"]["annotators"]


def test_what_cannot_be_compared_is_refused_by_name(tmp_path: Path) -> None:
    dataset = judged_dataset(tmp_path / "data")
    with pytest.raises(AnnotationError, match=r"no judgements by 'cara'.*anna, ben"):
        command(dataset.root, "--annotators", "anna,cara")
    with pytest.raises(AnnotationError, match="nobody judged qa"):
        command(dataset.root, "--kinds", "qa")
    other = judged_dataset(tmp_path / "other")
    run = predict_run(tmp_path / "ben", other, seed=0)
    with pytest.raises(AnnotationError, match="has the name of the run"):
        command(dataset.root, "--with", str(run))
    with pytest.raises(AnnotationError, match="no run folder"):
        command(dataset.root, "--with", str(tmp_path))


def test_the_page_shows_numbers_pairs_and_examples_and_texts_as_text(tmp_path: Path) -> None:
    evil = [judgement("caption", {"verdict": "edit", "caption": EVIL}, "cara", "filmA_000")]
    dataset = judged_dataset(tmp_path / "data", evil, videos=True)
    command(dataset.root, "--run", str(tmp_path / "run"))
    page = (tmp_path / "run" / "agreement.html").read_text()
    for words in ("Krippendorff", "anna", "ben", "watch (a person)", "drop: a title", "undefined"):
        assert words in page
    assert "<script" not in page
    assert page.count("<img") > 8
    seen = look(tmp_path / "run" / "agreement.html", tmp_path)
    assert seen["needed"] <= seen["width"] == 390
    assert (seen["blank"], seen["fetched"], seen["console"]) == ([], [], [])
