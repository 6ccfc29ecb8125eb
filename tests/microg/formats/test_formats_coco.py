"""COCO video boxes: exact round trips, and files that other tools wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from microg import formats
from microg.data import schema
from microg.errors import DatasetError, FormatError
from tests.support.annotations import rows, small_tables, tracked_tables


def test_everything_but_the_sidelined_tables_survives(tmp_path: Path) -> None:
    tables = small_tables()
    assert formats.write("coco", tables, str(tmp_path)) == []
    result = formats.read("coco", str(tmp_path))
    for name in ("boxes", "captions", "qa"):
        assert result.tables[name].equals(tables[name]), name
    assert rows(result.tables["actions"]) == rows(tables["actions"])
    assert result.tables["clips"].drop_columns("uri").equals(tables["clips"].drop_columns("uri"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables=tracked_tables())
def test_boxes_survive_to_the_last_bit(tmp_path: Path, tables: dict[str, Any]) -> None:
    formats.write("coco", tables, str(tmp_path))
    result = formats.read("coco", str(tmp_path))
    assert result.tables["boxes"].equals(tables["boxes"])
    assert rows(result.tables["actions"]) == rows(tables["actions"])


def test_the_document_is_what_coco_video_tools_expect(tmp_path: Path) -> None:
    formats.write("coco", small_tables(), str(tmp_path / "out.json"))
    document = json.loads((tmp_path / "out.json").read_text())
    first = document["annotations"][0]
    assert first["bbox"] == [10.0, 20.0, 100.0, 200.0]
    assert first["area"] == 20000.0
    assert first["attributes"] == {
        "person_id": 1,
        "actions": ["12 stand", "61 watch (e.g., TV)/any unspecified action"],
    }
    image = next(image for image in document["images"] if image["id"] == first["image_id"])
    assert image["frame_id"] == 4  # our frame 5: COCO-VID counts from 0
    assert image["file_name"] == "my_film-2_007/my_film-2_007_000005.jpg"
    for name in ("videos", "images", "tracks", "annotations"):
        ids = [item["id"] for item in document[name]]
        assert ids == list(range(1, len(ids) + 1))


def foreign() -> dict[str, Any]:
    return {
        "categories": [{"id": 7, "name": "person"}, {"id": 8, "name": "dog"}],
        "videos": [{"id": 1, "file_name": "some/folder/x_000.mp4"}],
        "images": [{"id": 10, "video_id": 1, "frame_id": 0}],
        "annotations": [
            {
                "id": 1,
                "image_id": 10,
                "category_id": 7,
                "instance_id": 501,
                "bbox": [1, 2, 3, 4],
                "attributes": {"actions": ["stand", "9"]},
            },
            {"id": 2, "image_id": 10, "category_id": 7, "instance_id": 300, "bbox": [5, 6, 7, 8]},
            {"id": 3, "image_id": 10, "category_id": 8, "instance_id": 9, "bbox": [5, 6, 7, 8]},
            {"id": 4, "image_id": 10, "category_id": 7, "instance_id": 9, "iscrowd": 1, "bbox": [5, 6, 7, 8]},
        ],
    }


def test_a_foreign_file_gets_person_ids_by_first_appearance_and_notes(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(foreign()))
    result = formats.read("coco", str(tmp_path / "a.json"))
    assert result.tables["boxes"].select(["clip_id", "frame", "person_id", "x2", "y2"]).to_pylist() == [
        {"clip_id": "x_000", "frame": 1, "person_id": 1, "x2": 4.0, "y2": 6.0},
        {"clip_id": "x_000", "frame": 1, "person_id": 2, "x2": 12.0, "y2": 14.0},
    ]
    assert result.tables["actions"]["action_id"].to_pylist() == [12, 9]
    assert [note for note in result.notes if "other categories" in note or "crowd" in note] == [
        "1 annotations of other categories than 'person' were left out",
        "1 crowd annotations were left out: they are no single person",
    ]


def test_an_edited_bbox_wins_over_stale_exact_corners(tmp_path: Path) -> None:
    document = foreign()
    document["annotations"][0]["corners"] = [1.0, 2.0, 900.0, 900.0]
    (tmp_path / "a.json").write_text(json.dumps(document))
    assert formats.read("coco", str(tmp_path / "a.json")).tables["boxes"]["x2"].to_pylist()[0] == 4.0


def broken(key: str, value: Any) -> dict[str, Any]:
    document = foreign()
    document["annotations"][0][key] = value
    return document


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "not COCO video JSON"),
        ({"images": [], "annotations": []}, "not COCO video JSON"),
        (broken("image_id", 99), "99"),
        (broken("bbox", [1, 2, 3]), "malformed"),
        (broken("bbox", [1, 2, 3, "wide"]), "malformed"),
        (broken("instance_id", None), "instance_id"),
        (broken("attributes", {"actions": ["moonwalk"]}), "moonwalk"),
        ({**foreign(), "videos": [{"id": 1, "file_name": "no sequence.mp4"}]}, "no sequence"),
    ],
)
def test_a_broken_document_is_named_in_the_error(tmp_path: Path, document: Any, message: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps(document))
    with pytest.raises(FormatError, match=message):
        formats.read("coco", str(tmp_path / "a.json"))


def test_coordinates_that_json_cannot_say_are_an_error(tmp_path: Path) -> None:
    boxes = [{"clip_id": "a_000", "frame": 1, "person_id": 1, "x1": float("nan"), "y1": 0.0, "x2": 1.0, "y2": 1.0}]
    with pytest.raises(DatasetError, match="finite"):
        formats.write("coco", {"boxes": schema.from_rows("boxes", boxes)}, str(tmp_path))
