"""`microg data import cvat|labelstudio` keeps all annotators: each is a vote, and nothing they said is lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from microg.annotations.apply import accept_into
from microg.annotations.rows import DATASET, Annotation
from microg.annotations.table import current, read_annotations
from microg.data.dataset import Dataset
from microg.errors import AnnotationError, ConfigError, FormatError
from microg.jobs.cli import app
from tests.support.annotations import rows
from tests.support.judged import judgement
from tests.support.vocabularies import crew_file

LATER = "2026-03-02 10:00:00+00:00"


def data(*words: object) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["data", *map(str, words), "--json"])
    if isinstance(done.exception, Exception):
        raise done.exception
    return json.loads(done.stdout)


def track(x: float, actions: list[str], person: int | None = None, **more: Any) -> str:
    stated = {f"action_{n}": name for n, name in enumerate(actions, 1)} | more
    if person is not None:
        stated["person_id"] = str(person)
    inner = "".join(f'<attribute name="{name}">{value}</attribute>' for name, value in stated.items())
    corners = f'xtl="{x}" ytl="10" xbr="{x + 40}" ybr="90"'
    return f'<track id="0" label="person"><box frame="0" outside="0" {corners}>{inner}</box></track>'


def cvat(path: Path, tracks: str, assignee: str = "", updated: str = "2026-03-01 10:00:00+00:00") -> Path:
    who = f"<assignee><username>{assignee}</username></assignee>" if assignee else ""
    size = "<original_size><width>200</width><height>100</height></original_size>"
    task = f"<task><size>10</size><source>a_000.mp4</source><updated>{updated}</updated>{who}{size}</task>"
    path.write_text(f"<annotations><version>1.1</version><meta>{task}</meta>{tracks}</annotations>")
    return path


def region(name: str, x: float, actions: list[str], frames: int = 10) -> list[dict[str, Any]]:
    key = {"frame": 1, "x": x, "y": 10, "width": 20, "height": 80, "enabled": True, "rotation": 0}
    value = {"framesCount": frames, "duration": frames / 30, "sequence": [key], "labels": ["person"]}
    common = {"id": name, "to_name": "video"}
    paths = [["group", action] for action in actions]
    return [
        {**common, "from_name": "box", "type": "videorectangle", "value": value},
        {**common, "from_name": "actions", "type": "taxonomy", "value": {"taxonomy": paths}},
    ]


def words(**texts: str) -> list[dict[str, Any]]:
    common = {"to_name": "video", "type": "textarea"}
    return [{**common, "id": name, "from_name": name, "value": {"text": [text]}} for name, text in texts.items()]


def by(who: Any, result: list[dict[str, Any]], day: int = 1) -> dict[str, Any]:
    return {"completed_by": who, "updated_at": f"2026-03-{day:02}T10:00:00Z", "result": result}


def studio(path: Path, *annotations: dict[str, Any], **fields: Any) -> Path:
    info = {"video": "a_000.mp4", "clip_id": "a_000", "width": 200, "height": 100, "fps": 30, "num_frames": 10}
    path.write_text(json.dumps([{"id": 4, "data": info, "annotations": list(annotations), **fields}]))
    return path


def votes(root: Path, kind: str) -> list[Annotation]:
    said = read_annotations(Dataset.open(str(root)))
    return [each for each in current(said) if each.kind == kind and each.annotator != DATASET]


def actions(root: Path) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for row in Dataset.open(str(root)).table("actions").to_pylist():
        found.setdefault(row["person_id"], []).append(row["action_id"])
    return found


def test_exports_of_two_people_from_cvat_are_both_there(tmp_path: Path) -> None:
    out = tmp_path / "set"
    both = track(10, ["12 stand"], 1) + track(120, ["80"], 2)
    data("import", "cvat", cvat(tmp_path / "ana.xml", both, assignee="ana"), out)
    other = track(12, ["12 stand", "17"], 1) + track(120, ["80"], 2)
    report = data(
        "import", "cvat", cvat(tmp_path / "x.xml", other, updated=LATER), out, "--merge", "--annotator", "ben"
    )
    assert report["judgements"]["annotators"] == {"ben": 4}
    assert {(v.annotator, v.person_id, *v.value["actions"]) for v in votes(out, "action")} == {
        ("ana", 1, 12),
        ("ana", 2, 80),
        ("ben", 1, 12, 17),
        ("ben", 2, 80),
    }
    assert {(v.annotator, v.source) for v in votes(out, "box")} == {("ana", "cvat"), ("ben", "cvat")}
    assert actions(out) == {1: [12], 2: [80]}  # 17 is half of the votes
    assert report["judgements"]["open"] == 1
    assert f"microg data adjudicate {out}" in " ".join(report["notes"])
    assert {row["x1"] for row in Dataset.open(str(out)).table("boxes").to_pylist()} == {12.0, 120.0}


def test_of_three_annotators_of_a_task_the_majority_decides_and_all_are_kept(tmp_path: Path) -> None:
    texts = {"question_1": "Who floats?", "answer_1": "Ana."}
    export = studio(
        tmp_path / "export.json",
        by({"id": 3, "email": "ana@lab.org"}, region("p", 10, ["12", "17"]) + words(caption="She stands.", **texts), 3),
        by({"id": 4, "email": "ben@lab.org"}, region("q", 11, ["12"]) + words(caption="She stands.", **texts), 2),
        by(5, region("r", 12, ["12", "80"]) + region("s", 60, ["80"]) + words(caption="A man."), 1),
        {**by(6, region("t", 0, ["1"]), 9), "was_cancelled": True},
    )
    report = data("import", "labelstudio", export, tmp_path / "set")
    assert set(report["judgements"]["annotators"]) == {"ana", "ben", "5"}
    assert actions(tmp_path / "set") == {1: [12], 2: [80]}
    assert {(v.annotator, *v.value["actions"]) for v in votes(tmp_path / "set", "action") if v.person_id == 1} == {
        ("ana", 12, 17),
        ("ben", 12),
        ("5", 12, 80),
    }
    dataset = Dataset.open(str(tmp_path / "set"))
    assert dataset.table("captions").to_pylist() == [{"clip_id": "a_000", "caption": "She stands."}]
    (question,) = dataset.table("qa").to_pylist()
    assert (question["qa_index"], question["question"], question["answer"]) == (0, "Who floats?", "Ana.")
    assert dataset.info["acceptance"]["rule"] == "majority"
    assert {v.time.day for v in votes(tmp_path / "set", "caption")} == {1, 2, 3}


def test_another_rule_is_recorded_and_leaves_open_what_differs(tmp_path: Path) -> None:
    export = studio(
        tmp_path / "export.json", by("ana", region("p", 10, ["12"])), by("ben", region("q", 10, ["12", "17"]), 2)
    )
    report = data("import", "labelstudio", export, tmp_path / "set", "--rule", "adjudicated")
    assert (report["judgements"]["open"], actions(tmp_path / "set")) == (1, {})
    assert Dataset.open(str(tmp_path / "set")).info["acceptance"]["rule"] == "adjudicated"
    report = data("import", "labelstudio", export, tmp_path / "set", "--merge")
    assert (report["judgements"]["rule"], report["judgements"]["added"]) == ("adjudicated", 0)


@pytest.mark.parametrize("dated", [True, False])
def test_the_same_file_again_adds_nothing_and_a_changed_one_supersedes(tmp_path: Path, dated: bool) -> None:
    def write(labels: list[str], day: int, second: bool) -> Path:
        result = region("p", 10, labels) + (region("s", 60, ["80"]) if second else [])
        made = by("ana", result, day)
        if not dated:
            del made["updated_at"]
        return studio(tmp_path / "export.json", made)

    out = tmp_path / "set"
    data("import", "labelstudio", write(["12"], 1, True), out)
    before = Dataset.open(str(out))
    again = data("import", "labelstudio", tmp_path / "export.json", out, "--merge")["judgements"]
    assert (again["added"], again["there_before"]) == (0, 4)
    assert Dataset.open(str(out)).fingerprint() == before.fingerprint()
    changed = data("import", "labelstudio", write(["17"], 2, False), out, "--merge")["judgements"]
    assert (changed["replaced"], changed["withdrawn"]) == (1, 2)  # the second person is gone
    assert actions(out) == {1: [17]}
    back = data("import", "labelstudio", write(["12"], 3, True), out, "--merge")["judgements"]
    assert (back["added"], back["withdrawn"]) == (3, 0)
    assert actions(out) == {1: [12], 2: [80]}
    assert data("import", "labelstudio", tmp_path / "export.json", out, "--merge")["judgements"]["added"] == 0
    if dated:  # an older export changes nothing
        assert data("import", "labelstudio", write(["17"], 2, False), out, "--merge")["judgements"]["added"] == 0
        assert actions(out) == {1: [12], 2: [80]}


def test_what_people_judged_in_the_application_stays(tmp_path: Path) -> None:
    out = tmp_path / "set"
    export = studio(tmp_path / "export.json", by("ana", region("p", 10, ["12"]) + words(caption="She stands.")))
    data("import", "labelstudio", export, out)
    said = [
        judgement("action", {"actions": [17]}, "ana", "a_000", person_id=1),
        judgement("caption", {"verdict": "edit", "caption": "She floats."}, "ana", "a_000"),
    ]
    said = [Annotation(**{**vars(each), "time": each.time.replace(month=6)}) for each in said]
    accept_into(Dataset.open(str(out)), added=said)
    assert actions(out) == {1: [17]}
    changed = studio(tmp_path / "new.json", by("ana", region("p", 10, ["80"]) + words(caption="A woman."), 2))
    data("import", "labelstudio", changed, out, "--merge")
    assert actions(out) == {1: [17]}
    assert Dataset.open(str(out)).table("captions")["caption"].to_pylist() == ["She floats."]
    assert {each.annotation_id for each in said} <= {
        each.annotation_id for each in read_annotations(Dataset.open(str(out)))
    }


def test_agreement_sees_imported_annotators(tmp_path: Path) -> None:
    export = studio(
        tmp_path / "export.json",
        by("ana", region("p", 10, ["12"]) + region("s", 60, ["80"])),
        by("ben", region("q", 10, ["12"]) + region("u", 60, ["17"]), 2),
    )
    data("import", "labelstudio", export, tmp_path / "set")
    report = data("agreement", tmp_path / "set", "--resamples", "10")
    scores = report["kinds"]["action"]["scores"]
    (observed,) = [
        each["value"]
        for each in scores
        if (each["metric"], each["slice_kind"], each["annotator"]) == ("observed", "all", None)
    ]
    assert observed == 0.5
    assert report["kinds"]["box"]


def test_own_actions_and_more_than_five_of_a_person_come_in(tmp_path: Path) -> None:
    export = studio(tmp_path / "export.json", by("ana", region("p", 10, ["hold a rail", "7"])))
    data("import", "labelstudio", export, tmp_path / "crew", "--vocabulary", crew_file(tmp_path / "crew.yaml"))
    assert actions(tmp_path / "crew") == {1: [2, 7]}
    six = ["1", "3", "5", "6", "7", "8"]
    many = cvat(tmp_path / "many.xml", track(10, six, 1))
    data("import", "cvat", many, tmp_path / "many")
    assert actions(tmp_path / "many") == {1: [1, 3, 5, 6, 7, 8]}
    judged = judgement("action", {"actions": [1, 3, 5, 6, 7, 8]}, "ana", "a_000", person_id=1)
    with pytest.raises(AnnotationError, match="at most 5"):
        accept_into(Dataset.open(str(tmp_path / "many")), added=[judged])


def test_people_without_a_number_are_recognised_by_their_boxes(tmp_path: Path) -> None:
    out = tmp_path / "set"
    first = track(120, ["80"], 4) + track(10, ["12"], 9)
    data("import", "cvat", cvat(tmp_path / "ana.xml", first), out, "--annotator", "ana")
    # in another order, moved a little, and one more person
    result = region("x", 6, ["12"]) + region("y", 61, ["17"]) + region("z", 35, ["1"])
    report = data("import", "labelstudio", studio(tmp_path / "e.json", by("ben", result)), out, "--merge")
    assert "2 people without a number were recognised by their boxes" in report["notes"]
    assert {(v.person_id, *v.value["actions"]) for v in votes(out, "action") if v.annotator == "ben"} == {
        (9, 12),
        (4, 17),
        (1, 1),
    }


def test_one_annotators_tables_are_those_of_the_file_in_its_order(tmp_path: Path) -> None:
    tracks = track(120, ["80", "12"], 4, confidence="0.1") + track(10, ["17"], 1, confidence="0.7")
    data("import", "cvat", cvat(tmp_path / "ana.xml", tracks), tmp_path / "set")
    dataset = Dataset.open(str(tmp_path / "set"))
    assert [(row["person_id"], row["action_id"]) for row in dataset.table("actions").to_pylist()] == [
        (4, 80),
        (4, 12),
        (1, 17),
    ]
    people = dataset.table("boxes")["person_id"].to_pylist()
    assert people == [4] * 10 + [1] * 10
    before = rows(dataset.table("boxes"))
    accept_into(dataset)
    assert rows(dataset.table("boxes")) == before


def test_what_a_dataset_held_and_no_annotator_left_is_removed_in_their_name(tmp_path: Path) -> None:
    out = tmp_path / "set"
    both = track(10, ["12"], 1) + track(120, ["80"], 2)
    data("import", "cvat", cvat(tmp_path / "one.xml", both), tmp_path / "made")
    shutil.copytree(tmp_path / "made", out)
    (out / "tables" / "annotations.parquet").unlink()  # as a dataset that nobody judged
    report = data("import", "cvat", cvat(tmp_path / "two.xml", track(10, ["12"], 1)), out, "--merge")
    assert report["judgements"]["removed"] == 2
    dataset = Dataset.open(str(out))
    assert set(dataset.table("boxes")["person_id"].to_pylist()) == {1}
    assert actions(out) == {1: [12]}
    # people draw the second one again: nothing of it was lost
    undone = [
        judgement("box", {"withdrawn": True}, "cvat", "a_000", person_id=2, supersedes=each.annotation_id)
        for each in votes(out, "box")
        if each.value["op"] == "delete"
    ]
    accept_into(dataset, added=undone)
    assert set(dataset.table("boxes")["person_id"].to_pylist()) == {1, 2}


def test_predictions_are_a_models_and_the_tables_hold_them(tmp_path: Path) -> None:
    stored = [{"model_version": "tracker-3", "result": region("p", 10, ["12"])}]
    export = studio(tmp_path / "export.json", predictions=stored)
    data("import", "labelstudio", export, tmp_path / "set", "--predictions")
    assert {(v.annotator, v.source) for v in votes(tmp_path / "set", "action")} == {("tracker-3", "model")}
    assert actions(tmp_path / "set") == {1: [12]}
    human = studio(tmp_path / "human.json", by("ana", region("p", 10, ["17"])))
    data("import", "labelstudio", human, tmp_path / "set", "--merge")
    assert actions(tmp_path / "set") == {1: [17]}


def test_what_cannot_be_taken_in_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "set"
    export = studio(tmp_path / "export.json", by("ana", region("p", 10, ["12"]) + words(caption="She stands.")))
    data("import", "labelstudio", export, out)
    before = {path: path.read_bytes() for path in (out / "tables").iterdir()}
    silent = studio(tmp_path / "silent.json", by("ben", region("p", 10, ["12"])))
    with pytest.raises(FormatError, match=r"1 of 1 clip .* in 'captions'"):
        data("import", "labelstudio", silent, out, "--merge")
    with pytest.raises(AnnotationError, match="stands for what a dataset held"):
        data("import", "cvat", cvat(tmp_path / "a.xml", track(0, [], 1)), out, "--merge", "--annotator", "dataset")
    with pytest.raises(ConfigError, match="--annotator does nothing"):
        data("import", "labelstudio", silent, out, "--merge", "--annotator", "ben")
    model = [{"model_version": "ana", "result": region("p", 10, ["12"]) + words(caption="x")}]
    with pytest.raises(AnnotationError, match="both a person and a model"):
        data("import", "labelstudio", studio(tmp_path / "m.json", predictions=model), out, "--merge", "--predictions")
    late = by("ben", region("p", 10, ["12"]) + words(caption="Hm."), 1)
    late["result"][0]["value"]["sequence"][0]["frame"] = 0
    broken = studio(tmp_path / "late.json", late, by("ana", region("p", 10, ["12"]) + words(caption="Hm."), 2))
    with pytest.raises(FormatError, match="frame 0, person"):
        data("import", "labelstudio", broken, out, "--merge")
    assert {path: path.read_bytes() for path in (out / "tables").iterdir()} == before


def test_two_people_whose_addresses_differ_behind_the_sign_are_two(tmp_path: Path) -> None:
    export = studio(
        tmp_path / "export.json",
        by({"email": "ana@one.org"}, region("p", 10, ["12"])),
        by({"email": "ana@two.org"}, region("p", 10, ["17"]), 2),
    )
    report = data("import", "labelstudio", export, tmp_path / "set")
    assert set(report["judgements"]["annotators"]) == {"ana@one.org", "ana@two.org"}


def test_a_dry_run_says_what_would_be_and_writes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "set"
    data("import", "cvat", cvat(tmp_path / "ana.xml", track(10, ["12"], 1)), out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    other = cvat(tmp_path / "ben.xml", track(10, ["12"], 1) + track(90, ["80"], 2))
    report = data("import", "cvat", other, out, "--merge", "--annotator", "ben", "--dry-run")
    assert (report["written"], report["judgements"]["added"], report["rows"]["boxes"]) == (False, 4, 20)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_the_same_file_again_adds_nothing_where_annotators_differ_in_everything(tmp_path: Path) -> None:
    def work(name: str, x: float, day: int) -> dict[str, Any]:
        texts = {"question_1": f"What does {name} do?", "answer_1": name, "question_2": "Who?", "answer_2": "Ana."}
        return by(name, region("p", x, ["12"]) + words(**texts), day)

    # the first overlaps both others by half and more, these hardly each other
    export = studio(tmp_path / "export.json", work("ana", 10, 1), work("ben", 4, 2), work("eve", 16, 3))
    out = tmp_path / "set"
    data("import", "labelstudio", export, out)
    assert {(v.annotator, v.person_id) for v in votes(out, "box")} == {("ana", 1), ("ben", 1), ("eve", 1)}
    assert Dataset.open(str(out)).table("qa")["qa_index"].to_pylist() == [1]  # nobody agrees on the first question
    before = Dataset.open(str(out)).table("annotations")
    assert data("import", "labelstudio", export, out, "--merge")["judgements"]["added"] == 0
    assert Dataset.open(str(out)).table("annotations").equals(before)


def test_an_older_export_does_not_bring_back_whom_its_annotator_took_away(tmp_path: Path) -> None:
    both = track(10, ["12"], 1) + track(120, ["80"], 2)
    older = cvat(tmp_path / "older.xml", both, assignee="ana", updated="2026-03-01 10:00:00+00:00")
    newer = cvat(tmp_path / "newer.xml", track(10, ["12"], 1), assignee="ana", updated="2026-03-05 10:00:00+00:00")
    data("import", "cvat", newer, tmp_path / "set")
    report = data("import", "cvat", older, tmp_path / "set", "--merge")
    assert (report["judgements"]["added"], report["judgements"]["older"]) == (0, 4)
    assert "4 judgements are older than what their annotators said last" in " ".join(report["notes"])
    assert actions(tmp_path / "set") == {1: [12]}


def test_questions_keep_their_index_when_some_were_rejected_since_the_task_was_made(tmp_path: Path) -> None:
    def asked(*numbers: int) -> list[dict[str, Any]]:
        parts = ("question", "answer")
        return words(**{f"{part}_{number}": f"{part} {number}" for number in numbers for part in parts})

    out = tmp_path / "set"
    start = studio(tmp_path / "start.json", by("start", region("person-1", 10, ["12"]) + asked(1, 2, 3)))
    data("import", "labelstudio", start, out)
    data("export", "labelstudio", out, tmp_path / "tasks")
    task = json.loads((tmp_path / "tasks/tasks.json").read_text())[0]
    rejected = {"verdict": "reject", "question": "", "answer": ""}
    accept_into(Dataset.open(str(out)), added=[judgement("qa", rejected, "zoe", "a_000", item=0, adjudicated=True)])
    assert Dataset.open(str(out)).table("qa")["qa_index"].to_pylist() == [1, 2]
    for day, (name, kept) in enumerate({"ana": (1, 2, 3), "ben": (2, 3), "eve": (1, 2, 3, 4)}.items(), 2):
        done = {**task, "annotations": [by(name, region("person-1", 10, ["12"]) + asked(*kept), day)]}
        (tmp_path / f"{name}.json").write_text(json.dumps([done]))
        for _ in range(2):
            data("import", "labelstudio", tmp_path / f"{name}.json", out, "--merge")
    said = {(v.item, v.value["question"]) for v in votes(out, "qa") if v.value["verdict"] == "edit"}
    assert said == {(0, "question 1"), (1, "question 2"), (2, "question 3"), (3, "question 4")}


def test_rows_of_a_format_without_annotators_come_under_what_people_said(tmp_path: Path) -> None:
    out = tmp_path / "set"
    exported = cvat(tmp_path / "a.xml", track(10, ["12"], 1) + track(120, ["80"], 2), assignee="ana")
    data("import", "cvat", exported, out)
    said = judgement("box", {"op": "delete"}, "zoe", "a_000", person_id=2)
    accept_into(Dataset.open(str(out)), added=[Annotation(**{**vars(said), "time": said.time.replace(month=6)})])
    data("export", "coco", out, tmp_path / "coco")
    file = tmp_path / "coco/annotations.json"
    document = json.loads(file.read_text())
    document["tracks"].append({**document["tracks"][0], "id": 7, "person_id": 7})
    for each in document["annotations"][:]:
        who = {"track_id": 7, "instance_id": 7, "attributes": {**each["attributes"], "person_id": 7}}
        document["annotations"].append({**each, **who, "id": 1000 + each["id"], "bbox": [60.0, *each["bbox"][1:]]})
        each["bbox"][0] += 5
    file.write_text(json.dumps(document))
    report = data("import", "coco", tmp_path / "coco", out, "--merge")
    assert "were judged before: what was said of them counts" in " ".join(report["notes"])

    def people() -> dict[int, float]:
        boxes = Dataset.open(str(out)).table("boxes").to_pylist()
        return {row["person_id"]: row["x1"] for row in boxes}

    there = people()
    assert there == {1: 10.0, 7: 60.0}  # ana drew the first, zoe removed the second; the import's new one is there
    accept_into(Dataset.open(str(out)))
    assert people() == there  # the next acceptance keeps them
