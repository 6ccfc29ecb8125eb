"""`microg data adjudicate`: judgements accepted by a rule, what is open as a list, and a third person's decisions."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from microg.annotations.table import read_annotations
from microg.data.dataset import Dataset
from microg.errors import AnnotationError
from microg.jobs.cli import app
from tests.support.judged import PEOPLE, judged_dataset, judgement


def command(*words: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["data", "adjudicate", *words, "--json"])
    if isinstance(done.exception, Exception):
        raise done.exception
    assert done.exit_code == 0
    return json.loads(done.stdout)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict[str, str]], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8-sig") as file:  # as spreadsheets save it
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)  # noqa: TID251
        writer.writeheader()
        writer.writerows(rows)
    return path


def labels(root: str, clip: str, person: int) -> list[int]:
    rows = Dataset.open(root).table("actions").to_pylist()
    return sorted(row["action_id"] for row in rows if (row["clip_id"], row["person_id"]) == (clip, person))


def test_what_a_majority_settles_is_accepted_and_the_rest_is_a_list_for_a_third_person(tmp_path: Path) -> None:
    dataset = judged_dataset(tmp_path / "data")
    before, judged = dataset.fingerprint(), dataset.table("annotations")
    plan = command(dataset.root, "--dry-run", "--out", str(tmp_path / "plan.csv"))
    assert (plan["written"], Dataset.open(dataset.root).fingerprint()) == (False, before)
    assert dataset.table("annotations").equals(judged)
    report = command(dataset.root, "--out", str(tmp_path / "open.csv"))
    assert report["kinds"] == plan["kinds"]
    assert report["kinds"]["action"] == {"judged": 6, "settled": 3}
    assert report["kinds"]["screening"] == {"judged": 4, "settled": 3}
    assert report["open"] == 3 + 1 + 4
    found = rows_of(tmp_path / "open.csv")
    assert found == rows_of(tmp_path / "plan.csv")
    action = next(row for row in found if row["kind"] == "action")
    assert (action["said by anna"], action["said by ben"], action["decision"]) == (
        "12 stand; 17 carry/hold (an object)",
        "12 stand; 80 watch (a person)",
        "",
    )
    assert labels(dataset.root, *PEOPLE[1]) == [12, 17]


def test_decisions_of_a_third_person_settle_items_and_the_same_file_twice_adds_once(tmp_path: Path) -> None:
    dataset = judged_dataset(tmp_path / "data")
    command(dataset.root, "--out", str(tmp_path / "open.csv"))
    rows = rows_of(tmp_path / "open.csv")
    texts = {"action": "12 stand; 80", "screening": "drop: a title", "caption": "as ben"}
    for row in rows:
        row["decision"] = texts[row["kind"]]
    rows[0]["decision"] = ""
    path = write(tmp_path / "decided.csv", rows, ";")
    report = command(dataset.root, "--decisions", str(path), "--annotator", "cara")
    assert report["decisions"] == {"added": 7, "there_before": 0, "empty_rows": 1}
    assert report["open"] == 1
    opened = Dataset.open(dataset.root)
    assert labels(dataset.root, *PEOPLE[4]) == [12, 80]
    status = dict(zip(*(opened.table("clips")[name].to_pylist() for name in ("clip_id", "status")), strict=True))
    assert status["walkC_000"] == "rejected"
    assert set(opened.table("captions")["caption"].to_pylist()) == {"A woman floats."}
    decided = [each for each in read_annotations(opened) if each.adjudicated]
    assert {(each.annotator, each.source) for each in decided} == {("cara", "import")}
    again = command(dataset.root, "--decisions", str(path), "--annotator", "cara")
    assert again["decisions"]["there_before"] == 7
    assert Dataset.open(dataset.root).table("annotations").equals(opened.table("annotations"))
    next(row for row in rows if row["kind"] == "screening")["decision"] = "keep"
    changed = write(tmp_path / "changed.csv", rows)
    assert command(dataset.root, "--decisions", str(changed), "--annotator", "cara")["decisions"]["added"] == 1
    assert "rejected" not in Dataset.open(dataset.root).table("clips")["status"].to_pylist()
    # and back again, though it says what the first file said
    assert command(dataset.root, "--decisions", str(path), "--annotator", "cara")["decisions"]["added"] == 1
    assert "rejected" in Dataset.open(dataset.root).table("clips")["status"].to_pylist()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "action", "person_id": "1", "decision": "999 fly"}, "is not one of the 50 actions"),
        ({"kind": "action", "person_id": "77", "decision": "none"}, "has no action of walkC_000, person 77"),
        ({"kind": "action", "person_id": "", "decision": "none"}, "is no whole number"),
        ({"clip_id": "../../etc/passwd", "decision": "keep"}, "has no screening of ../../etc/passwd"),
        ({"decision": "perhaps"}, "'perhaps' is no decision"),
        ({"kind": "dance", "decision": "keep"}, "there is no kind 'dance'"),
        ({"kind": "action", "person_id": "1", "decision": "1;3;5;6;7;8"}, "at most 5"),
        ({"kind": "qa", "item": "0", "decision": "A cup."}, "does not say which question"),
    ],
)
def test_a_decision_that_cannot_be_is_refused_with_its_line_and_nothing_is_written(
    tmp_path: Path, change: dict[str, str], says: str
) -> None:
    dataset = judged_dataset(tmp_path / "data")
    row = {"kind": "screening", "clip_id": "walkC_000", "person_id": "", "item": "", "decision": "keep"}
    path = write(tmp_path / "bad.csv", [{**row, "clip_id": "filmA_000"}, {**row, **change}])
    before = dataset.table("annotations")
    with pytest.raises(AnnotationError) as error:
        command(dataset.root, "--decisions", str(path), "--annotator", "cara")
    assert says in str(error.value)
    assert dataset.table("annotations").equals(before)


def test_one_item_decided_twice_and_a_file_without_a_decider_are_refused(tmp_path: Path) -> None:
    dataset = judged_dataset(tmp_path / "data")
    row = {"kind": "screening", "clip_id": "walkC_000", "decision": "keep"}
    path = write(tmp_path / "twice.csv", [row, row])
    with pytest.raises(AnnotationError, match="line 3: screening of walkC_000 is decided twice"):
        command(dataset.root, "--decisions", str(path), "--annotator", "cara")
    with pytest.raises(AnnotationError, match="belong together"):
        command(dataset.root, "--decisions", str(path))


def test_texts_of_annotators_are_no_formulas_in_the_list(tmp_path: Path) -> None:
    evil = judgement("caption", {"verdict": "edit", "caption": "=HYPERLINK(1)"}, "=mallory", "filmA_000")
    dataset = judged_dataset(tmp_path / "data", [evil])
    command(dataset.root, "--out", str(tmp_path / "open.csv"))
    row = next(
        row for row in rows_of(tmp_path / "open.csv") if row["clip_id"] == "filmA_000" and row["kind"] == "caption"
    )
    assert row["said by =mallory"] == "'=HYPERLINK(1)"


def test_the_rule_is_recorded_and_taken_the_next_time_with_the_kinds_that_were_not_accepted_now(tmp_path: Path) -> None:
    dataset = judged_dataset(tmp_path / "data")
    report = command(dataset.root, "--rule", "single")
    assert report["open"] == 0
    assert command(dataset.root, "--kinds", "screening", "--dry-run")["rule"] == "single"
    command(dataset.root, "--kinds", "screening", "--rule", "adjudicated", "--least", "2")
    stored = Dataset.open(dataset.root).info["acceptance"]
    assert (stored["rule"], stored["least"], stored["annotators"]) == ("adjudicated", 2, ["anna", "ben"])
    assert stored["kinds"]["action"] == {"judged": 6, "settled": 6, "rule": "single", "least": 1, "unreviewed": False}
    assert stored["kinds"]["screening"]["rule"] == "adjudicated"


def test_the_words_say_what_is_open_and_how_to_decide_it(tmp_path: Path) -> None:
    dataset = judged_dataset(tmp_path / "data")
    done = CliRunner().invoke(app, ["data", "adjudicate", dataset.root])
    assert "action: 6 judged, 3 settled" in done.stdout
    assert "open: action of filmA_000, person 1: half of the annotators said 17 carry/hold" in done.stdout
    assert f"microg review {dataset.root}" in done.stdout


def test_unknown_kinds_and_datasets_that_nobody_judged_are_refused(tmp_path: Path) -> None:
    dataset = judged_dataset(tmp_path / "data")
    with pytest.raises(AnnotationError, match="there is no kind 'dance'"):
        command(dataset.root, "--kinds", "dance")
    with pytest.raises(AnnotationError, match="nobody judged qa"):
        command(dataset.root, "--kinds", "qa")
    with pytest.raises(AnnotationError, match="there is no rule 'loudest'"):
        command(dataset.root, "--rule", "loudest")


def test_statistics_and_the_page_of_a_dataset_say_how_it_was_accepted(tmp_path: Path) -> None:
    dataset = judged_dataset(tmp_path / "data")
    assert json.loads(CliRunner().invoke(app, ["data", "stats", dataset.root, "--json"]).stdout)["acceptance"] == []
    command(dataset.root)
    said = ["judged by anna, ben; accepted by the rule majority", "action: 6 judged, 3 settled, 3 open"]
    report = json.loads(CliRunner().invoke(app, ["data", "stats", dataset.root, "--json"]).stdout)
    assert [line for line in report["acceptance"] if line in said] == said
    shown = CliRunner().invoke(app, ["data", "stats", dataset.root]).stdout
    assert all(line in shown for line in said)
    page = tmp_path / "page.html"
    assert CliRunner().invoke(app, ["data", "page", dataset.root, str(page), "--max-clips", "0"]).exit_code == 0
    assert all(line in page.read_text() for line in said)
