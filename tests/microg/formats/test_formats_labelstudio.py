"""Label Studio: pre-annotated tasks out, the annotators' export in."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings

from microg import formats
from microg.data.taxonomy import ACTIONS
from microg.errors import DatasetError, FormatError
from tests.support.annotations import FRAMES, HEIGHT, WIDTH, rows, small_tables, tracked_tables
from tests.support.helpers import make_dataset


def test_a_round_trip_keeps_everything(tmp_path: Path) -> None:
    tables = small_tables()
    assert formats.write("labelstudio", tables, str(tmp_path)) == []
    result = formats.read("labelstudio", str(tmp_path), predictions=True)
    for name in ("boxes", "actions", "captions", "qa"):
        assert rows(result.tables[name]) == rows(tables[name]), name
    assert result.tables["clips"].equals(tables["clips"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables=tracked_tables())
def test_boxes_come_back_within_a_millionth_of_a_pixel_and_whole_pixels_exactly(
    tmp_path: Path, tables: dict[str, Any]
) -> None:
    formats.write("labelstudio", tables, str(tmp_path))
    result = formats.read("labelstudio", str(tmp_path), predictions=True)
    names = ("clip_id", "person_id", "frame")
    order = [(name, "ascending") for name in names]
    ours, theirs = tables["boxes"].sort_by(order), result.tables["boxes"].sort_by(order)
    assert ours.select(names).equals(theirs.select(names))
    for name in ("x1", "y1", "x2", "y2"):
        for before, after in zip(ours[name].to_pylist(), theirs[name].to_pylist(), strict=True):
            assert after == pytest.approx(before, abs=6e-7)
            if before == int(before):
                assert after == before
    assert rows(result.tables["actions"]) == rows(tables["actions"])


def test_held_boxes_become_two_key_frames_and_gaps_are_disabled(tmp_path: Path) -> None:
    formats.write("labelstudio", small_tables(), str(tmp_path))
    task = json.loads((tmp_path / "tasks.json").read_text())[0]
    region = task["predictions"][0]["result"][0]
    stated = [(item["frame"], item["enabled"]) for item in region["value"]["sequence"]]
    assert stated == [(5, True), (14, False), (20, True), (22, False)]
    first = region["value"]["sequence"][0]
    assert first["x"] == pytest.approx(100 * 10 / WIDTH)
    assert first["height"] == pytest.approx(100 * 200 / HEIGHT)
    assert first["time"] == pytest.approx(5 / 30)


def test_every_result_names_a_control_of_the_labeling_config(tmp_path: Path) -> None:
    formats.write("labelstudio", small_tables(), str(tmp_path))
    config = ET.parse(tmp_path / "labeling_config.xml").getroot()
    controls = {element.get("name"): element for element in config.iter() if element.get("name")}
    assert all(element.get("toName") in (None, "video") for element in config.iter())
    kinds = {"videorectangle": "VideoRectangle", "taxonomy": "Taxonomy", "number": "Number", "textarea": "TextArea"}
    for task in json.loads((tmp_path / "tasks.json").read_text()):
        for item in task["predictions"][0]["result"]:
            assert controls[item["from_name"]].tag == kinds[item["type"]]
            assert item["to_name"] == "video"
    choices = [choice.get("value") for choice in config.iter("Choice")]
    assert len(choices) == len(ACTIONS) + 3
    assert "38 open (e.g., a window, a car door)" in choices


def task(sequence: list[dict[str, Any]], *more: dict[str, Any], **fields: Any) -> dict[str, Any]:
    region = {
        "id": "xYz12",
        "from_name": "box",
        "to_name": "video",
        "type": "videorectangle",
        "origin": "manual",
        "value": {"framesCount": FRAMES, "duration": 1.0, "sequence": sequence, "labels": ["person"]},
    }
    return {
        "id": 4,
        "data": {"video": "/data/upload/1/a_000.mp4", "width": 200, "height": 100},
        "annotations": [{"id": 1, "was_cancelled": False, "result": [region, *more]}],
        **fields,
    }


def key(frame: int, x: float, enabled: bool = True, rotation: float = 0) -> dict[str, Any]:
    return {"frame": frame, "x": x, "y": 10, "width": 10, "height": 20, "enabled": enabled, "rotation": rotation}


def read(tmp_path: Path, *tasks: Any, **options: Any) -> formats.FormatResult:  # type: ignore[name-defined]
    (tmp_path / "export.json").write_text(json.dumps(list(tasks)))
    return formats.read("labelstudio", str(tmp_path / "export.json"), **options)


def test_frames_between_enabled_key_frames_are_interpolated_and_disabled_ones_end_a_stretch(tmp_path: Path) -> None:
    found = read(tmp_path, task([key(10, 50), key(2, 0), key(6, 40, enabled=False)])).tables["boxes"]
    x1 = dict(zip(found["frame"].to_pylist(), found["x1"].to_pylist(), strict=True))
    assert {frame: x1[frame] for frame in range(2, 7)} == {2: 0.0, 3: 20.0, 4: 40.0, 5: 60.0, 6: 80.0}
    assert 7 not in x1
    assert [x1[frame] for frame in range(10, FRAMES + 1)] == [100.0] * (FRAMES - 9)  # held until the last frame
    assert found["x2"].to_pylist()[0] == 20.0


def test_the_newest_finished_annotation_counts_and_unfinished_tasks_are_left_out(tmp_path: Path) -> None:
    finished = task([key(1, 0, enabled=False)])
    newer = {"updated_at": "2026-02-01", "result": task([key(1, 50, enabled=False)])["annotations"][0]["result"]}
    cancelled = {"updated_at": "2027-01-01", "was_cancelled": True, "result": []}
    finished["annotations"] = [newer, {**finished["annotations"][0], "updated_at": "2026-01-01"}, cancelled]
    pending = {"data": {"video": "b_000.mp4"}, "annotations": [], "predictions": [{"result": []}]}
    result = read(tmp_path, finished, pending)
    assert result.tables["boxes"]["x1"].to_pylist() == [100.0]
    assert result.tables["clips"]["clip_id"].to_pylist() == ["a_000"]
    assert "1 tasks have no annotation" in "\n".join(result.notes)
    assert "1 tasks have several annotations" in "\n".join(result.notes)


def test_new_regions_get_the_next_free_person_id_and_choices_count_as_actions(tmp_path: Path) -> None:
    common = {"id": "xYz12", "from_name": "actions", "to_name": "video"}
    second = {**task([key(3, 5, enabled=False)])["annotations"][0]["result"][0], "id": "other"}
    number = {"id": "other", "from_name": "person_id", "to_name": "video", "type": "number", "value": {"number": 1}}
    choices = {**common, "type": "choices", "value": {"choices": ["12 stand", "9"]}}
    result = read(tmp_path, task([key(1, 0, enabled=False)], second, number, choices))
    assert result.tables["boxes"].select(["frame", "person_id"]).to_pylist() == [
        {"frame": 1, "person_id": 2},
        {"frame": 3, "person_id": 1},
    ]
    assert [row["action_id"] for row in result.tables["actions"].to_pylist() if row["person_id"] == 2] == [12, 9]


def test_a_turned_rectangle_becomes_the_upright_box_around_it(tmp_path: Path) -> None:
    result = read(tmp_path, task([key(1, 50, enabled=False, rotation=90)]))
    box = result.tables["boxes"].to_pylist()[0]
    # 20 x 20 pixels at (100, 10), a quarter turn about its top left corner.
    assert (box["x1"], box["y1"], box["x2"], box["y2"]) == (80.0, 10.0, 100.0, 30.0)
    assert "1 turned key frames" in "\n".join(result.notes)


def test_half_a_question_is_left_out_with_a_note(tmp_path: Path) -> None:
    def text(name: str, value: Any) -> dict[str, Any]:
        return {"id": name, "from_name": name, "to_name": "video", "type": "textarea", "value": {"text": value}}

    more = [
        text("question_2", ["Who?"]),
        text("answer_2", "Me"),
        text("question_1", ["Why?"]),
        text("caption", ["a", "b"]),
    ]
    result = read(tmp_path, task([key(1, 0)], *more))
    assert result.tables["qa"].to_pylist() == [{"clip_id": "a_000", "qa_index": 0, "question": "Who?", "answer": "Me"}]
    assert result.tables["captions"]["caption"].to_pylist() == ["a\nb"]
    assert "1 question slots" in "\n".join(result.notes)


def without_size() -> dict[str, Any]:
    broken = task([key(1, 0)])
    del broken["data"]["width"]
    return broken


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([{"video": "a_000.mp4", "box": []}], "export the project as JSON"),
        ([without_size()], "frame size"),
        ([task([key(1, 0)]), task([key(1, 0)])], "another task"),
        ([{**task([]), "data": {"video": "holiday.mp4"}}], "holiday"),
        ([task([{"frame": 1}])], "task 4"),
    ],
)
def test_an_unusable_export_is_named_in_the_error(tmp_path: Path, tasks: list[Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read(tmp_path, *tasks)


def test_boxes_without_a_frame_size_cannot_be_written(tmp_path: Path) -> None:
    tables = small_tables()
    clips = tables["clips"].set_column(7, "width", pa.nulls(3, pa.int32()))
    with pytest.raises(DatasetError, match="frame size"):
        formats.write("labelstudio", tables | {"clips": clips}, str(tmp_path))


def test_notes_say_what_is_dropped(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", lambda tables: tables["boxes"].append(tables["boxes"][0]), videos=False)
    actions = [*dataset.table("actions").to_pylist(), {"clip_id": "walkC_000", "person_id": 7, "action_id": 12}]
    dataset.write("actions", pa.Table.from_pylist(actions))
    notes = "\n".join(formats.write("labelstudio", dataset, str(tmp_path / "out")))
    for part in ("'samples'", "'splits'", "'decisions'", "no box confidence: 73", "1 boxes of a person", "1 persons"):
        assert part in notes


def test_the_video_is_named_by_prefix_or_copied_or_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset(tmp_path / "data")

    def first_video(folder: str, **options: Any) -> str:
        formats.write("labelstudio", dataset, str(tmp_path / folder), **options)
        return json.loads((tmp_path / folder / "tasks.json").read_text())[0]["data"]["video"]

    assert first_video("a") == str(tmp_path / "data/videos/filmA_000.mp4")
    assert first_video("b", copy_videos=True) == str(tmp_path / "b/videos/filmA_000.mp4")
    assert first_video("c", video_prefix="https://host/x?d=") == "https://host/x?d=filmA_000.mp4"
    untrusted = formats.read("labelstudio", str(tmp_path / "a"), predictions=True)
    assert untrusted.tables["clips"]["uri"].null_count == untrusted.tables["clips"].num_rows
    assert any("were left out: give --videos, or --allow-external" in note for note in untrusted.notes)
    monkeypatch.setenv("MICROG_ALLOW_EXTERNAL", "1")
    uris = formats.read("labelstudio", str(tmp_path / "a"), predictions=True).tables["clips"]["uri"].to_pylist()
    assert uris[0] == str(tmp_path / "data/videos/filmA_000.mp4")
    again = formats.read("labelstudio", str(tmp_path / "c"), predictions=True, videos=str(tmp_path / "data/videos"))
    assert again.tables["clips"]["sha256"].to_pylist()[0] is not None
