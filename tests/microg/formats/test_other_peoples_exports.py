"""Exports of other people's projects and machines: the cases that failed once, and their kinds."""

from __future__ import annotations

import copy
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from microg import formats
from microg.data import schema
from microg.errors import ConfigError, FormatError
from microg.formats.base import FormatResult, new_clips
from microg.formats.coco_document import first_frame_id
from microg.formats.merging import merge
from tests.support.helpers import moving_scene, write_video


def said(result: FormatResult) -> tuple[list[str], int, list[tuple[int, int]]]:
    """Return the clips, the number of boxes, and (person, action)."""
    actions = result.tables["actions"]
    pairs = zip(actions["person_id"].to_pylist(), actions["action_id"].to_pylist(), strict=True)
    return result.tables["clips"]["clip_id"].to_pylist(), result.tables["boxes"].num_rows, list(pairs)


# --- the cases ---


@pytest.mark.parametrize("name", ["zip_macosx/task.zip", "zip_macosx", "label_Person/a.xml", "upper_source/a.xml"])
def test_cvat_exports_that_failed_are_read(cases: Path, name: str) -> None:
    clips, boxes, actions = said(formats.read("cvat", str(cases / "cvat" / name)))
    assert (clips, actions) == (["a_000"], [(1, 12)])
    assert boxes > 0


def test_a_job_export_is_read_as_a_task_export_is(cases: Path, tmp_path: Path) -> None:
    job = cases / "cvat" / "job_export_zip_name" / "annotations.xml"
    with zipfile.ZipFile(tmp_path / "a_000.zip", "w") as archive:
        archive.write(job, "annotations.xml")
    (tmp_path / "folder" / "a_000").mkdir(parents=True)
    shutil.copy(job, tmp_path / "folder" / "a_000")
    options: list[tuple[Path, dict[str, Any]]] = [
        (tmp_path / "a_000.zip", {}),
        (tmp_path / "folder", {}),
        (job, {"clip_id": "a_000"}),
    ]
    for path, option in options:
        result = formats.read("cvat", str(path), **option)
        clips, boxes, actions = said(result)
        assert (clips, actions) == (["a_000"], [(1, 12)])
        row = result.tables["clips"].to_pylist()[0]
        assert (row["num_frames"], row["width"], row["height"]) == (90, 640, 480)
        assert result.tables["boxes"]["frame"].to_pylist()[-1] == boxes == 31
    with pytest.raises(FormatError, match="--clip-id"):
        formats.read("cvat", str(job))


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("relation", "1 relations between regions were passed over"),
        ("uploaded_hash", "1 clips were named without the prefix"),
        ("video_dict", ""),
        ("frame_count", "1 regions were counted at 25 frames a second, not the clip's 30: converted by time"),
    ],
)
def test_label_studio_exports_that_failed_are_read(cases: Path, name: str, note: str) -> None:
    result = formats.read("labelstudio", str(cases / "labelstudio" / name / "in.json"))
    clips, boxes, actions = said(result)
    assert clips == ["a_000"]
    assert boxes >= 42
    assert [action for _, action in actions] == [12]
    assert note in "\n".join(result.notes)
    if name == "frame_count":
        assert result.tables["boxes"]["frame"].to_pylist() == list(range(1, 91))


def test_label_studio_takes_sizes_from_the_videos(cases: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "plain_000.mp4", moving_scene(1, frames=90))
    path = str(cases / "labelstudio" / "no_size_with_videos" / "in.json")
    result = formats.read("labelstudio", path, videos=str(tmp_path))
    first = result.tables["boxes"].to_pylist()[0]
    assert [first[name] for name in ("x1", "y1", "x2", "y2")] == pytest.approx([9.6, 6.4, 28.8, 19.2])
    with pytest.raises(FormatError, match="--videos"):
        formats.read("labelstudio", path)


def test_coco_frames_numbered_from_1_are_read_so(cases: Path) -> None:
    result = formats.read("coco", str(cases / "coco" / "frame_ids_from_1.json"))
    assert result.tables["boxes"]["frame"].to_pylist() == [1, 2]
    assert "frame_ids count from 1" in "\n".join(result.notes)


# --- CVAT ---


def cvat(folder: Path, *labels: str, name: str = "a_000.mp4", boxes: str = "", attribute: str = "action_1") -> str:
    box = (
        '<box frame="0" outside="0" xtl="1" ytl="2" xbr="30" ybr="40">'
        f'<attribute name="{attribute}">12 stand</attribute></box><box frame="1" outside="1" xtl="1" ytl="2" '
        'xbr="30" ybr="40"/>'
    )
    tracks = "".join(f'<track id="{n}" label="{label}">{boxes or box}</track>' for n, label in enumerate(labels))
    meta = f"<meta><task><size>9</size><source>{name}</source></task></meta>"
    (folder / "task.xml").write_text(f"<annotations>{meta}{tracks}</annotations>")
    return str(folder / "task.xml")


def test_the_last_box_of_a_job_is_held_to_its_end(tmp_path: Path) -> None:
    path = Path(cvat(tmp_path, "person", boxes='<box frame="3" outside="0" xtl="1" ytl="2" xbr="30" ybr="40"/>'))
    size = "<size>9</size><original_size><width>64</width><height>48</height></original_size>"
    path.write_text(path.read_text().replace("task>", "job>").replace("<size>9</size>", size))
    result = formats.read("cvat", str(path))
    assert result.tables["boxes"]["frame"].to_pylist() == [4, 5, 6, 7, 8, 9]
    assert result.tables["clips"].select(["width", "height"]).to_pylist() == [{"width": 64, "height": 48}]


def test_labels_mean_what_the_user_says(tmp_path: Path) -> None:
    path = cvat(tmp_path, "Astronaut", "hatch")
    assert said(formats.read("cvat", path, label=["astronaut=person"]))[2] == [(1, 12)]
    with pytest.raises(
        FormatError, match=r"all its regions would be left out.*'Astronaut' \(1\), 'hatch' \(1\)"
    ) as lost:
        formats.read("cvat", path)
    assert "--label 'Astronaut=person'" in str(lost.value.fix)
    with pytest.raises(FormatError, match="'Astronaut'"):
        formats.read("cvat", path, label=["hatch=other"])
    assert said(formats.read("cvat", path, label=["hatch=other", "Astronaut=other"])) == (["a_000"], 0, [])
    with pytest.raises(ConfigError, match="NAME=person or NAME=other"):
        formats.read("cvat", path, label=["Astronaut"])


def test_people_drawn_as_polygons_alone_are_not_left_out_in_silence(tmp_path: Path) -> None:
    path = cvat(tmp_path, "person", boxes='<polygon frame="0" outside="0" points="1,2;3,4"/>')
    with pytest.raises(FormatError, match="person drawn as polygon"):
        formats.read("cvat", path)


def test_attributes_of_other_names_are_named(tmp_path: Path) -> None:
    assert said(formats.read("cvat", cvat(tmp_path, "person", attribute="Action_1")))[2] == [(1, 12)]
    result = formats.read("cvat", cvat(tmp_path, "person", attribute="activity"))
    assert "a_000: attributes of other names were left out: activity" in result.notes


def test_a_known_clip_counts_more_than_other_names_of_a_task(tmp_path: Path) -> None:
    path = cvat(tmp_path, "person", name="batch_001.mp4").replace("task.xml", "a_000.xml")
    (tmp_path / "task.xml").rename(path)
    assert said(formats.read("cvat", path))[0] == ["batch_001"]
    assert said(formats.read("cvat", path, existing=new_clips(["a_000"])))[0] == ["a_000"]


def test_what_macos_leaves_behind_is_passed_over_everywhere(tmp_path: Path) -> None:
    cvat(tmp_path, "person")
    (tmp_path / "actions.csv").write_text("video_id,movie_or_real,person_id,action\na_000,m,1,12\n")
    (tmp_path / "__MACOSX").mkdir()
    for name in ("._task.xml", "._vqa.json", "__MACOSX/task.xml"):
        (tmp_path / name).write_bytes(b"\0\x05\x16\x07 not what its name says")
    assert said(formats.read("cvat", str(tmp_path)))[1] == 1
    assert said(formats.read("microg4m", str(tmp_path)))[2] == [(1, 12)]


# --- Label Studio ---


def key(frame: int, enabled: bool = True, **more: Any) -> dict[str, Any]:
    return {"frame": frame, "enabled": enabled, "x": 10, "y": 10, "width": 20, "height": 20, **more}


def region(name: str, *sequence: dict[str, Any], label: str = "person", **value: Any) -> dict[str, Any]:
    about = {"sequence": list(sequence), "labels": [label], **value}
    return {"id": name, "type": "videorectangle", "from_name": "box", "value": about}


def choices(name: str, *chosen: str, control: str = "actions") -> dict[str, Any]:
    return {"id": name, "type": "choices", "from_name": control, "value": {"choices": list(chosen)}}


def studio(folder: Path, *result: dict[str, Any], **data: Any) -> str:
    task = {
        "id": 7,
        "data": {"video": "a_000.mp4", "width": 200, "height": 100, **data},
        "annotations": [{"result": result}],
    }
    (folder / "tasks.json").write_text(json.dumps([task]))
    return str(folder)


BOX = region("r1", key(1), key(9, enabled=False))


def test_choices_are_actions_of_their_region_or_of_the_only_person(tmp_path: Path) -> None:
    for name in ("r1", "of the clip"):
        assert said(formats.read("labelstudio", studio(tmp_path, BOX, choices(name, "stand", "8 sleep"))))[2] == [
            (1, 12),
            (1, 8),
        ]


def test_choices_that_are_no_actions_or_nobodys_are_refused_by_name(tmp_path: Path) -> None:
    two = [BOX, {**copy.deepcopy(BOX), "id": "r2"}]
    path = studio(tmp_path, *two, choices("of the clip", "stand"))
    with pytest.raises(
        FormatError, match=r"task 7: control 'actions' says stand of the whole clip, which has 2 people"
    ):
        formats.read("labelstudio", path)
    path = studio(tmp_path, BOX, choices("r1", "blurred", control="quality"))
    with pytest.raises(
        FormatError, match=r"task 7, control 'quality': 'blurred' is not one of the 50 actions"
    ) as refused:
        formats.read("labelstudio", path)
    assert "--label 'quality=other'" in str(refused.value.fix)
    result = formats.read("labelstudio", path, label=["quality=other"])
    assert said(result)[2] == []
    assert "1 values of the control 'quality' were left out" in result.notes


def test_a_task_whose_regions_are_all_of_other_labels_or_kinds_is_refused(tmp_path: Path) -> None:
    brush = {"id": "b", "type": "timelinelabels", "from_name": "t", "value": {"ranges": []}}
    path = studio(tmp_path, region("r1", key(1), label="Crew"), brush)
    with pytest.raises(
        FormatError, match=r"task 7: all its regions would be left out.*'Crew' \(1\), 'timelinelabels' \(1\)"
    ):
        formats.read("labelstudio", path)
    result = formats.read("labelstudio", path, label=["crew=person"])
    assert "1 regions of other kinds than boxes in videos were left out" in result.notes


@pytest.mark.parametrize(
    ("video", "known", "clip_id"),
    [
        ("/data/upload/1/3fa2b1c0-a_000.mp4", [], "a_000"),
        ("/data/upload/1/3fa2b1c0-a_000.mp4", ["3fa2b1c0-a_000"], "3fa2b1c0-a_000"),
        ("videos/3fa2b1c0-a_000.mp4", [], "3fa2b1c0-a_000"),
        ("videos/3fa2b1c0-a_000.mp4", ["a_000"], "a_000"),
        ("/data/local-files/?d=clips/a_000.MOV", [], "a_000"),
        ("https://host/clips/a_000.mp4?X-Signature=b_001/c_002", [], "a_000"),
        ({"url": "s3://bucket/a_000.mp4"}, [], "a_000"),
    ],
)
def test_the_clip_is_found_in_what_tasks_call_their_video(
    tmp_path: Path, video: Any, known: list[str], clip_id: str
) -> None:
    existing = new_clips(known) if known else None
    for data in ({"video": video}, {"video": None, "film": video}):
        if isinstance(video, dict) or str(video).lower().endswith((".mp4", ".mov")) or data["video"]:
            assert said(formats.read("labelstudio", studio(tmp_path, BOX, **data), existing=existing))[0] == [clip_id]


def test_frames_are_converted_by_time_to_the_rate_of_the_dataset(tmp_path: Path) -> None:
    existing = new_clips(["a_000"], fps=[30.0], num_frames=[90], width=[200], height=[100], duration_s=[3.0])
    kept = region("r1", key(1), key(72, enabled=False), framesCount=72, duration=3.0)
    slow = formats.read("labelstudio", studio(tmp_path, kept), existing=existing)
    assert slow.tables["boxes"]["frame"].to_pylist()[-1] == 90
    fast = region("r1", key(60), key(61), key(180, enabled=False), framesCount=180, duration=3.0)
    frames = formats.read("labelstudio", studio(tmp_path, fast), existing=existing).tables["boxes"]["frame"].to_pylist()
    assert frames == list(range(30, 91))
    timed = region("r1", key(24, time=1.0), key(48, enabled=False, time=2.0))  # without a count: what key frames say
    frames = (
        formats.read("labelstudio", studio(tmp_path, timed), existing=existing).tables["boxes"]["frame"].to_pylist()
    )
    assert (frames[0], frames[-1]) == (30, 60)
    same = region("r1", key(5, enabled=False), framesCount=90, duration=3.01)
    result = formats.read("labelstudio", studio(tmp_path, same), existing=existing)
    assert result.tables["boxes"]["frame"].to_pylist() == [5]
    assert not any("converted" in note for note in result.notes)
    result = formats.read("labelstudio", studio(tmp_path, kept))
    assert any("unknown frame rate" in note for note in result.notes)


def test_numbers_of_tasks_that_came_from_a_table_are_texts(tmp_path: Path) -> None:
    row = formats.read("labelstudio", studio(tmp_path, BOX, width="200", height="100", fps="30.0")).tables["clips"]
    assert row.select(["width", "height", "fps"]).to_pylist() == [{"width": 200, "height": 100, "fps": 30.0}]
    with pytest.raises(FormatError, match="task 7"):
        formats.read("labelstudio", studio(tmp_path, BOX, width="wide"))


def test_a_result_that_lacks_something_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"task 7: it has no 'sequence'"):
        formats.read("labelstudio", studio(tmp_path, {**BOX, "value": {"labels": ["person"]}}))


# --- COCO ---


def coco(folder: Path, **changes: Any) -> str:
    document: dict[str, Any] = {
        "categories": [{"id": 7, "name": "Person"}, {"id": 8, "name": "dog"}],
        "videos": [{"id": 1, "name": "a_000", "num_frames": 9}],
        "images": [{"id": 10, "video_id": 1, "frame_id": 0}],
        "annotations": [{"id": 4, "image_id": 10, "category_id": 7, "instance_id": 5, "bbox": [1, 2, 3, 4]}],
    }
    for name, entry in changes.items():
        document[name][0] |= entry
    (folder / "a.json").write_text(json.dumps(document))
    return str(folder / "a.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": {"image_id": 99}}, "annotation 4: there is no image 99"),
        ({"images": {"video_id": 99}}, "image 10: there is no video 99"),
        ({"annotations": {"category_id": 8}}, r"all its regions would be left out.*'dog' \(1\)"),
        ({"annotations": {"bbox": [1, 2, 0, 4]}}, r"clip a_000, frame 1, person 1: a box of no size"),
        (
            {"images": {"frame_id": 9}, "videos": {"num_frames": 8}},
            r"frame 10, person 1: there is no such frame.*1 to 8",
        ),
        ({"images": {"frame_id": 1}}, "every clip begins with frame_id 1.*--first-frame"),
    ],
)
def test_what_is_wrong_with_a_coco_file_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        formats.read("coco", coco(tmp_path, **changes))


def test_missing_keys_of_a_coco_file_are_named_with_their_entry(tmp_path: Path) -> None:
    document = json.loads(Path(coco(tmp_path)).read_text())
    del document["annotations"][0]["bbox"]
    (tmp_path / "a.json").write_text(json.dumps(document))
    with pytest.raises(FormatError, match=r"annotation 4: it has no 'bbox'"):
        formats.read("coco", str(tmp_path / "a.json"))


def test_the_user_can_say_where_frames_begin(tmp_path: Path) -> None:
    path = coco(tmp_path, images={"frame_id": 1})
    frames = [formats.read("coco", path, first_frame=first).tables["boxes"]["frame"].to_pylist() for first in (0, 1)]
    assert frames == [[2], [1]]


@pytest.mark.parametrize(
    ("images", "lengths", "first", "note"),
    [
        ({"a_000": [(1, ""), (0, "")]}, {"a_000": 9}, 0, None),
        ({"a_000": [(1, ""), (9, "")]}, {"a_000": 9}, 1, "count from 1"),
        ({"a_000": [(1, ""), (8, "")], "b_000": [(1, ""), (9, "")]}, {"a_000": 9, "b_000": 9}, 1, "b_000 has one"),
        ({"a_000": [(1, "a_000_000002.jpg")]}, {"a_000": 9}, 0, None),  # as we write names: from 1
        ({"a_000": [(3, "")]}, {"a_000": None}, 0, "no frame_id is 0"),
        ({}, {}, 0, None),
    ],
)
def test_the_data_tell_where_frames_begin(
    images: dict[str, list[tuple[int, str]]], lengths: dict[str, int | None], first: int, note: str | None
) -> None:
    found, text = first_frame_id(images, lengths, "a.json")
    assert found == first
    assert (note is None) == (text is None)
    assert (note or "") in (text or "")


# --- every format ---


class Stated:
    """A format that says what it is told to."""

    TABLES = frozenset({"boxes", "samples"})

    def __init__(self, **row: Any) -> None:
        self.row = {"clip_id": "a_000", "frame": 5, "person_id": 3, "x1": 0.1, "y1": 0.1, "x2": 0.5, "y2": 0.5, **row}

    def read(self, path: str) -> FormatResult:
        tables = {name: schema.from_rows(name, [self.row]) for name in self.TABLES}
        return FormatResult({"clips": new_clips(["a_000"], num_frames=[9])} | tables, [], files={"a_000": "that.file"})

    def write(self, annotations: object, path: str) -> list[str]:
        return []


@pytest.mark.parametrize("table", ["boxes", "samples"])
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"frame": 10}, "there is no such frame"),
        ({"frame": 0}, "there is no such frame"),
        ({"x2": 0.1}, "a box of no size"),
        ({"y2": 0.05}, "a box of no size"),
        ({"x1": float("nan")}, "a box of no size"),
        ({"y2": float("inf")}, "a box of no size"),
    ],
)
def test_places_that_no_clip_has_are_refused_with_file_clip_and_frame(
    monkeypatch: pytest.MonkeyPatch, table: str, row: dict[str, Any], message: str
) -> None:
    stated = Stated(**row)
    stated.TABLES = frozenset({table})  # type: ignore[misc]
    monkeypatch.setitem(formats.FORMATS, "stated", stated)
    frame = row.get("frame", 5)
    with pytest.raises(FormatError, match=rf"that\.file: clip a_000, frame {frame}, person 3: {message}"):
        formats.read("stated", "x")


def test_the_videos_frames_count_where_a_file_claims_more(tmp_path: Path) -> None:
    write_video(tmp_path / "a_000.mp4", moving_scene(1, frames=6))
    path = cvat(tmp_path, "person", boxes='<box frame="0" outside="0" xtl="1" ytl="2" xbr="30" ybr="40"/>')
    held = formats.read("cvat", path, videos=str(tmp_path)).tables["boxes"]["frame"].to_pylist()
    assert held == [1, 2, 3, 4, 5, 6]
    path = cvat(tmp_path, "person", boxes='<box frame="7" outside="0" xtl="1" ytl="2" xbr="30" ybr="40"/>')
    with pytest.raises(FormatError, match=r"clip a_000, frame 8, person 1: there is no such frame.*frames 1 to 6"):
        formats.read("cvat", path, videos=str(tmp_path))


def test_key_frames_without_a_box_are_left_out_of_an_ava_folder_with_a_note(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/ava_train.csv").write_text("a_000,0046\na_000,46.0,.1,.1,.5,.5,12.0,1\na_000,47,,,,,,\n")
    result = formats.read("ava", str(tmp_path))
    assert result.tables["samples"].select(["frame", "action_id"]).to_pylist() == [{"frame": 46, "action_id": 12}]
    assert any("2 key frames without a box were left out" in note for note in result.notes)


def test_a_spreadsheet_in_the_published_folder_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "actions.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(FormatError, match=r"actions\.xlsx is a spreadsheet"):
        formats.read("microg4m", str(tmp_path))


def test_rows_of_clips_are_not_replaced_by_none_unless_their_table_is_named() -> None:
    boxes = schema.from_rows("boxes", [Stated().row, {**Stated().row, "clip_id": "b_000"}])
    old: dict[str, pa.Table] = {"clips": new_clips(["a_000", "b_000"]), "boxes": boxes}
    new = {"clips": new_clips(["a_000"]), "boxes": schema.empty("boxes")}
    with pytest.raises(FormatError, match=r"no rows in place of .*: 1 of 1 clip \(e.g. a_000\) in 'boxes'"):
        merge(old, new)
    assert merge(old, new, named=["boxes"])[0]["boxes"]["clip_id"].to_pylist() == ["b_000"]
