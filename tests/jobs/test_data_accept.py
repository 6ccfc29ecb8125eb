"""`microg data accept`: what models made waits for people, and comes in when they accept it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from microg import storage
from microg.annotations.rows import Annotation
from microg.annotations.table import add_annotations, current, read_annotations
from microg.config import Config
from microg.data import schema
from microg.data.dataset import Dataset
from microg.errors import AnnotationError
from microg.jobs.cli import app
from microg.jobs.commands.data_make_qa import _write
from microg.models.vlm.qa import Candidate
from microg.runs import Run
from tests.support.helpers import make_dataset
from tests.support.judged import judgement
from tests.support.scored_runs import generate_run, predict_run


def command(*words: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["data", "accept", *words, "--json"])
    if isinstance(done.exception, Exception):
        raise done.exception
    assert done.exit_code == 0
    return json.loads(done.stdout)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return make_dataset(tmp_path / "data", videos=False)


def captions(dataset: Dataset) -> dict[str, str]:
    return {row["clip_id"]: row["caption"] for row in Dataset.open(dataset.root).table("captions").to_pylist()}


def proposals(dataset: Dataset, kind: str) -> list[Annotation]:
    found = current(read_annotations(Dataset.open(dataset.root)))
    return [each for each in found if each.source == "model" and each.kind == kind]


def generated(root: Path, dataset: Dataset, caption: str, **texts: str) -> Path:
    """Write a run that says `caption` of each clip but those of `texts`."""
    rows = [
        {
            "clip_id": clip,
            "task": "caption",
            "prompt_id": "caption-v1",
            "text": texts.get(clip, caption),
            "status": "ok",
        }
        for clip in dataset.table("clips")["clip_id"].to_pylist()
    ]
    run = Run.start(str(root), "vlm generate", Config(), dataset=dataset.fingerprint())
    run.write_table("generations", schema.from_rows("generations", rows))
    return root


def test_proposals_wait_for_people_and_what_they_accept_comes_in(tmp_path: Path, dataset: Dataset) -> None:
    run = generated(tmp_path / "qwen", dataset, "A model's caption.")
    before = captions(dataset)
    report = command(str(run), dataset.root)
    assert (report["proposed"], report["added"], report["waiting"]) == ({"caption": 4}, 4, {"caption": 4})
    assert captions(dataset) == before
    accepted = {"verdict": "accept", "caption": "A model's caption."}
    rejected = {"verdict": "reject", "caption": ""}
    said = [judgement("caption", accepted, "anna", "filmA_000"), judgement("caption", rejected, "anna", "tourB_000")]
    add_annotations(dataset, said)
    again = command(str(run), dataset.root)
    assert (again["added"], again["there_before"], again["waiting"]) == (0, 4, {"caption": 2})
    assert captions(dataset)["filmA_000"] == "A model's caption."
    assert "tourB_000" not in captions(dataset)
    assert captions(dataset)["walkC_000"] == before["walkC_000"]
    command(str(run), dataset.root, "--unreviewed")
    assert captions(dataset)["walkC_000"] == "A model's caption."
    assert "tourB_000" not in captions(dataset)


def test_a_run_that_says_something_else_now_replaces_what_it_said(tmp_path: Path, dataset: Dataset) -> None:
    first = generated(tmp_path / "a" / "qwen", dataset, "One.")
    second = generated(tmp_path / "b" / "qwen", dataset, "One.", walkC_000="Two.", filmA_000=" ")
    command(str(first), dataset.root)
    report = command(str(second), dataset.root)
    assert (report["added"], report["there_before"], report["replaced"], report["withdrawn"]) == (0, 2, 1, 1)
    assert sorted(each.value["caption"] for each in proposals(dataset, "caption")) == ["One.", "One.", "Two."]
    back = command(str(first), dataset.root)
    assert (back["added"], back["replaced"], back["there_before"]) == (1, 1, 2)
    assert sorted(each.value["caption"] for each in proposals(dataset, "caption")) == ["One."] * 4
    assert command(str(first), dataset.root)["there_before"] == 4


def test_a_plan_and_a_limit_write_nothing_or_the_first_clips(tmp_path: Path, dataset: Dataset) -> None:
    run = generated(tmp_path / "qwen", dataset, "One.")
    assert command(str(run), dataset.root, "--dry-run", "--unreviewed")["written"] is False
    assert not dataset.has("annotations")
    assert command(str(run), dataset.root, "--limit", "1")["added"] == 1
    assert [each.clip_id for each in proposals(dataset, "caption")] == ["filmA_000"]


def test_actions_above_a_threshold_are_proposed_at_most_five_a_person(tmp_path: Path, dataset: Dataset) -> None:
    run = predict_run(tmp_path / "i3d", dataset, seed=0, skill=12.0)
    report = command(str(run), dataset.root, "--threshold", "0.9")
    assert report["proposed"] == {"action": 6}
    truth: dict = {}
    for row in dataset.table("actions").to_pylist():
        truth.setdefault((row["clip_id"], row["person_id"]), []).append(row["action_id"])
    assert {(each.clip_id, each.person_id): each.value["actions"] for each in proposals(dataset, "action")} == {
        key: sorted(ids) for key, ids in truth.items()
    }
    command(str(run), dataset.root, "--threshold", "0.0")
    assert {len(each.value["actions"]) for each in proposals(dataset, "action")} == {5}


def test_answers_are_about_the_datasets_own_questions_only(tmp_path: Path, dataset: Dataset) -> None:
    run = generate_run(tmp_path / "qwen", dataset, 1.0, seed=0)
    report = command(str(run), dataset.root, "--kinds", "qa")
    assert report["proposed"] == {"qa": 23}  # one of 24 failed
    assert {each.item for each in proposals(dataset, "qa")} == set(range(6))
    rows = dataset.table("qa").to_pylist()
    rows[0]["question"] = "Another one?"
    dataset.write("qa", schema.from_rows("qa", rows))
    changed = command(str(run), dataset.root, "--kinds", "qa", "--dry-run")
    assert any("answer another question" in note for note in changed["notes"])


def made_questions(root: Path, dataset: Dataset) -> Path:
    """Write a run of `data make-qa` with two questions of a clip, one of them flagged, and one of another clip."""
    candidates = [
        Candidate(
            "filmA_000", 0, "what", "What floats?", "A cup.", chosen=0, review="from the caption alone: Nothing."
        ),
        Candidate("filmA_000", 1, "who", "Who is there?", "A man.", chosen=1, review="from the caption alone: No one."),
        Candidate("walkC_000", 0, "who", "Who waves?", "=1+1", chosen=0, review="odd"),
    ]
    run = Run.start(str(root), "data make-qa", Config(), dataset=dataset.fingerprint())
    _write(run.root, candidates, {})
    return root


def reviewed_list(path: Path, *rows: dict[str, str]) -> None:
    with path.open(newline="") as file:
        found = list(csv.DictReader(file))
    for row, change in zip(found, rows, strict=True):
        row.update(change)
    heads = list(dict.fromkeys(name for row in found for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, heads)  # noqa: TID251
        writer.writeheader()
        writer.writerows(found)


def questions(dataset: Dataset, clip: str) -> dict[int, str]:
    rows = Dataset.open(dataset.root).table("qa").to_pylist()
    return {row["qa_index"]: row["answer"] for row in rows if row["clip_id"] == clip}


def test_new_questions_come_after_the_datasets_own_and_a_reviewed_list_is_that_persons_word(
    tmp_path: Path, dataset: Dataset
) -> None:
    run = made_questions(tmp_path / "qa", dataset)
    before = questions(dataset, "filmA_000")
    assert command(str(run), dataset.root)["waiting"] == {"qa": 3}
    assert questions(dataset, "filmA_000") == before
    reviewed_list(run / "review.csv", {"accept": "yes"}, {"answer": "A woman."}, {})
    report = command(str(run), dataset.root, "--annotator", "anna")
    assert report["reviewed"] == {"annotator": "anna", "added": 2, "there_before": 0, "not_judged": 1}
    assert report["waiting"] == {"qa": 1}
    assert questions(dataset, "filmA_000") == before | {6: "A cup.", 7: "A woman."}
    assert set(questions(dataset, "walkC_000")) == set(range(6))
    said = {each.item: each.value["verdict"] for each in read_annotations(dataset) if each.annotator == "anna"}
    assert said == {6: "accept", 7: "edit"}
    again = command(str(run), dataset.root, "--annotator", "anna")
    assert (again["added"], again["there_before"], again["reviewed"]["there_before"]) == (0, 3, 2)
    reviewed_list(run / "review.csv", {"accept": "no"}, {}, {})
    command(str(run), dataset.root, "--annotator", "anna", "--unreviewed")
    assert questions(dataset, "filmA_000") == before | {7: "A woman."}
    assert questions(dataset, "walkC_000")[6] == "=1+1"  # as it was made, not as the list shows it


def test_a_list_that_was_changed_beyond_use_is_refused_with_its_line(tmp_path: Path, dataset: Dataset) -> None:
    run = made_questions(tmp_path / "qa", dataset)
    for change, says in (
        ({"accept": "maybe"}, "line 2: accept is 'maybe'"),
        ({"qa_index": "9"}, "line 2: question filmA_000:9 is not among the run's"),
        ({"qa_index": "one"}, "is no whole number"),
    ):
        (run / "review.csv").unlink()
        made_questions(tmp_path / "qa", dataset)
        reviewed_list(run / "review.csv", change, {}, {})
        with pytest.raises(AnnotationError) as error:
            command(str(run), dataset.root, "--annotator", "anna")
        assert says in str(error.value)
    assert not dataset.has("annotations")


def test_screenings_come_in_as_a_models_and_drop_nothing_by_themselves(tmp_path: Path, dataset: Dataset) -> None:
    replies = ['{"weightless": "yes", "reason": ""}', '{"weightless": "no", "reason": "a title"}', "what?", None]
    clips = dataset.table("clips")["clip_id"].to_pylist()
    rows = [
        {"clip_id": clip, "task": "screening", "prompt_id": "screening-v1", "text": text, "status": "ok"}
        for clip, text in zip(clips, replies, strict=True)
    ]
    run = Run.start(str(tmp_path / "screen"), "vlm generate", Config(), dataset=dataset.fingerprint())
    run.write_table("generations", schema.from_rows("generations", rows))
    report = command(run.root, dataset.root)
    assert report["proposed"] == {"screening": 2}
    assert len(report["notes"]) == 2
    assert set(Dataset.open(dataset.root).table("clips")["status"].to_pylist()) == {"ok"}


def test_a_run_of_another_dataset_or_none_is_refused_by_name(tmp_path: Path, dataset: Dataset) -> None:
    run = generated(tmp_path / "qwen", dataset, "One.")

    def renamed(rows: dict[str, list[dict[str, Any]]]) -> None:
        for each in rows.values():
            for row in each:
                if "clip_id" in row:
                    row["clip_id"] = f"other_{row['clip_id']}"

    other = make_dataset(tmp_path / "other", renamed, videos=False)
    with pytest.raises(AnnotationError, match=r"is of another dataset.*none of its 4 clips, such as filmA_000"):
        command(str(run), other.root)
    with pytest.raises(AnnotationError, match="is no run folder"):
        command(str(tmp_path), dataset.root)
    storage.write_json(str(tmp_path / "score" / "run.json"), {"command": "har score"})
    with pytest.raises(AnnotationError, match="run of 'har score', which proposes nothing"):
        command(str(tmp_path / "score"), dataset.root)
    with pytest.raises(AnnotationError, match="has no list to review"):
        command(str(run), dataset.root, "--annotator", "anna")
    add_annotations(dataset, [judgement("screening", {"keep": True}, "qwen", "filmA_000")])
    with pytest.raises(AnnotationError, match="'qwen' is a person in this dataset already"):
        command(str(run), dataset.root)
    assert command(str(run), dataset.root, "--name", "qwen-vl")["added"] == 4


def test_the_words_say_what_waits_and_how_people_judge_it(tmp_path: Path, dataset: Dataset) -> None:
    run = generated(tmp_path / "qwen", dataset, "One.")
    done = CliRunner().invoke(app, ["data", "accept", str(run), dataset.root])
    assert "qwen proposes 4 of kind caption" in done.stdout
    assert f"wait for people: 4 of kind caption; 'microg review {dataset.root} --proposals {run}'" in done.stdout
