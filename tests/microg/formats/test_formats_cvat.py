"""CVAT for video 1.1: round trips, CVAT's own exports, and XML from strangers."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from microg import formats
from microg.errors import FormatError
from tests.support.annotations import FRAMES, rows, small_tables, tracked_tables


def test_a_round_trip_keeps_boxes_people_and_actions_and_notes_the_texts(tmp_path: Path) -> None:
    tables = small_tables()
    notes = formats.write("cvat", tables, str(tmp_path))
    result = formats.read("cvat", str(tmp_path))
    for name in ("boxes", "actions"):
        assert rows(result.tables[name]) == rows(tables[name]), name
    assert notes == [
        "cvat cannot express table 'captions': 1 rows were not written",
        "cvat cannot express table 'qa': 6 rows were not written",
    ]
    kept = ["clip_id", "source_id", "num_frames", "width", "height"]
    assert rows(result.tables["clips"].select(kept)) == rows(tables["clips"].select(kept))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables=tracked_tables())
def test_boxes_confidences_and_any_number_of_actions_survive_to_the_last_bit(
    tmp_path: Path, tables: dict[str, Any]
) -> None:
    formats.write("cvat", tables, str(tmp_path))
    result = formats.read("cvat", str(tmp_path))
    assert rows(result.tables["boxes"]) == rows(tables["boxes"])
    assert rows(result.tables["actions"]) == rows(tables["actions"])


def test_held_boxes_become_two_key_frames_and_gaps_go_outside(tmp_path: Path) -> None:
    formats.write("cvat", small_tables(), str(tmp_path))
    root = ET.parse(tmp_path / "annotations/my_film-2_007.xml").getroot()
    first, second = root.findall("track")
    stated = [(box.get("frame"), box.get("outside")) for box in first.findall("box")]
    assert stated == [("4", "0"), ("13", "0"), ("14", "1"), ("19", "0"), ("21", "0"), ("22", "1")]
    assert [box.get("outside") for box in second.findall("box")] == ["0"] * FRAMES  # visible to the very end
    assert root.findtext("meta/task/source") == "my_film-2_007.mp4"


def test_the_label_spec_offers_all_actions_in_enough_slots(tmp_path: Path) -> None:
    formats.write("cvat", small_tables(), str(tmp_path))
    (label,) = json.loads((tmp_path / "labels.json").read_text())
    slots = [attribute for attribute in label["attributes"] if attribute["name"].startswith("action_")]
    assert len(slots) == 5
    assert len(slots[0]["values"]) == 51
    root = ET.parse(tmp_path / "annotations/Tour_000.xml").getroot()
    assert len(root.findall("meta/task/labels/label/attributes/attribute")) == 7


def document(tracks: str, meta: str = "<task><size>30</size><source>a_000.mp4</source></task>") -> str:
    return f'<?xml version="1.0"?><annotations><version>1.1</version><meta>{meta}</meta>{tracks}</annotations>'


def box(frame: int, x: float, outside: int = 0, inner: str = "", **more: Any) -> str:
    extra = " ".join(f'{name}="{value}"' for name, value in more.items())
    return (
        f'<box frame="{frame}" keyframe="1" outside="{outside}" occluded="0" xtl="{x}" ytl="0" xbr="{x + 10}" ybr="20" '
        f"{extra}>{inner}</box>"
    )


def track(*boxes: str, label: str = "person", number: int = 0) -> str:
    return f'<track id="{number}" label="{label}">{"".join(boxes)}</track>'


def read(tmp_path: Path, text: str, name: str = "a_000.xml") -> formats.FormatResult:  # type: ignore[name-defined]
    (tmp_path / name).write_text(text)
    return formats.read("cvat", str(tmp_path / name))


def test_boxes_between_key_frames_are_interpolated_and_an_open_track_is_held_to_the_end(tmp_path: Path) -> None:
    found = read(tmp_path, document(track(box(0, 0), box(4, 40), box(6, 99, outside=1), box(28, 7)))).tables["boxes"]
    x1 = dict(zip(found["frame"].to_pylist(), found["x1"].to_pylist(), strict=True))
    assert x1 == {1: 0.0, 2: 10.0, 3: 20.0, 4: 30.0, 5: 40.0, 6: 40.0, 29: 7.0, 30: 7.0}


def test_stated_boxes_are_taken_as_they_are_though_not_key_frames(tmp_path: Path) -> None:
    stated = [box(frame, frame**2) for frame in range(4)] + [box(4, 0, outside=1)]
    text = document(track(*stated)).replace('keyframe="1"', 'keyframe="0"')
    assert read(tmp_path, text).tables["boxes"]["x1"].to_pylist() == [0.0, 1.0, 4.0, 9.0]


def test_new_tracks_get_the_next_free_person_id(tmp_path: Path) -> None:
    named = track(box(0, 0, inner='<attribute name="person_id">1</attribute>'), box(1, 0, outside=1), number=1)
    tracks = track(box(0, 5), box(1, 5, outside=1)) + named
    found = read(tmp_path, document(tracks)).tables["boxes"]
    assert found.select(["person_id", "x1"]).to_pylist() == [{"person_id": 2, "x1": 5.0}, {"person_id": 1, "x1": 0.0}]


def test_what_is_not_a_person_box_is_left_out_with_a_note(tmp_path: Path) -> None:
    tracks = track(box(0, 0), box(1, 0, outside=1)) + track(box(0, 0), label="hatch", number=1)
    tracks += '<track id="2" label="person"><polygon frame="0" outside="0" points="1,2;3,4"/></track>'
    result = read(tmp_path, document(tracks))
    assert result.tables["boxes"].num_rows == 1
    assert sorted(result.notes)[1:] == [
        "a_000: 1 shapes other than boxes were left out",
        "a_000: 1 tracks with the label 'hatch' were left out",
    ]


def test_a_turned_box_becomes_the_upright_box_around_it(tmp_path: Path) -> None:
    result = read(tmp_path, document(track(box(0, 0, rotation=90), box(1, 0, outside=1))))
    first = result.tables["boxes"].to_pylist()[0]
    assert [round(first[name], 9) for name in ("x1", "y1", "x2", "y2")] == [-5, 5, 15, 15]
    assert any("1 turned boxes" in note for note in result.notes)


def test_zip_files_as_cvat_makes_them_are_read(tmp_path: Path) -> None:
    for clip_id in ("a_000", "b_001"):
        text = document(track(box(0, 0)), f"<task><name>{clip_id}</name><size>1</size></task>")
        with zipfile.ZipFile(tmp_path / f"task {clip_id}.zip", "w") as bundle:
            bundle.writestr("annotations.xml", text)
    result = formats.read("cvat", str(tmp_path))
    assert result.tables["clips"]["clip_id"].to_pylist() == ["a_000", "b_001"]


def test_the_clip_is_named_by_the_file_when_the_task_says_nothing_useful(tmp_path: Path) -> None:
    text = document(track(box(0, 0)), "<task><name>my task</name></task>")
    assert read(tmp_path, text, "c_002.xml").tables["clips"]["clip_id"].to_pylist() == ["c_002"]


BOMB = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><annotations>&b;</annotations>'
THIEF = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotations>&a;</annotations>'
ATTRIBUTE = '<attribute name="{}">{}</attribute>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "DOCTYPE"),
        (THIEF, "DOCTYPE"),
        ("<annotations>", "not valid XML"),
        ("<annotations>&undeclared;</annotations>", "not valid XML"),
        ("<html/>", "root is <html>"),
        (document("<image id='0'/>"), "CVAT for images"),
        (document("", "<project/>"), "whole project"),
        (document(track(box(0, 0, inner=ATTRIBUTE.format("action_1", "moonwalk")))), "moonwalk"),
        (document(track(box(0, 0, inner=ATTRIBUTE.format("person_id", "Bob")))), "Bob"),
        (document(track(box(0, 0, inner=ATTRIBUTE.format("person_id", "1"))) * 2), "two tracks are person 1"),
        (document(track(box(0, 0).replace('xtl="0"', 'xtl="left"'))), "left"),
        (document(track(box(0, 0).replace('xtl="0"', ""))), "'xtl'"),
        (document(track(box(0, 0)), "<task><size>many</size><source>a_000.mp4</source></task>"), "many"),
    ],
)
def test_hostile_and_unusable_xml_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read(tmp_path, text)


def test_no_clip_id_anywhere_and_two_files_of_one_clip_are_errors(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="clip id"):
        read(tmp_path, document("", "<task><name>../../x</name></task>"), "notes.xml")
    (tmp_path / "notes.xml").unlink()
    for name in ("one.xml", "two.xml"):
        (tmp_path / name).write_text(document(""))
    with pytest.raises(FormatError, match="another file"):
        formats.read("cvat", str(tmp_path))


def test_an_empty_folder_and_a_broken_zip_are_errors(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no CVAT annotations"):
        formats.read("cvat", str(tmp_path))
    (tmp_path / "x.zip").write_bytes(b"PK no")
    with pytest.raises(FormatError, match="sound zip"):
        formats.read("cvat", str(tmp_path))
