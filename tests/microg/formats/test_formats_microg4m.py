"""The published layout: read from CSV, JSON or Parquet, written byte-stably, videos and archives taken over safely."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from microg import formats
from microg.data import schema
from microg.data.taxonomy import ACTIONS
from microg.errors import ConfigError, FormatError, MicrogError
from microg.formats.base import new_clips
from microg.formats.labelmap import label_map_text, parse_action, parse_label_map
from microg.formats.video_files import unpack_zip, video_columns
from tests.support.annotations import rows, small_tables
from tests.support.helpers import FPS, FRAMES, HEIGHT, WIDTH, moving_scene, write_video

ACTIONS_CSV = (
    "video_id,movie_or_real,person_id,action\nApollo13_032,m,1,12\nApollo13_032,m,1,80\nab-c_d_359.mp4,r,2,9\n"
)
BOXES_CSV = (
    "video_id,frame_id,person_id,xmin,ymin,xmax,ymax\nApollo13_032,3,1,10,20,110,220\nab-c_d_359.mp4,90,2,0,0,5,479\n"
)
VQA = [
    {
        "video_id": "Apollo13_032",
        "caption": "Two “crew” float.",
        "qa_pairs": [{"Q": f"q{i}?", "A": "Å"} for i in range(6)],
    }
]


def published(root: Path) -> Path:
    folder = root / "annotation_files"
    folder.mkdir(parents=True)
    (folder / "actions.csv").write_text(ACTIONS_CSV)
    (folder / "bounding_boxes.csv").write_text(BOXES_CSV)
    (folder / "vqa.json").write_text(json.dumps(VQA))
    return root


def test_the_published_csv_and_json_are_read(tmp_path: Path) -> None:
    result = formats.read("microg4m", str(published(tmp_path)))
    clips = {row["clip_id"]: row for row in result.tables["clips"].to_pylist()}
    assert list(clips) == ["Apollo13_032", "ab-c_d_359"]
    assert [clips[c]["origin"] for c in clips] == ["movie", "real"]
    assert (clips["ab-c_d_359"]["source_id"], clips["ab-c_d_359"]["sequence"]) == ("ab-c_d", 359)
    assert result.tables["boxes"].to_pylist()[1] == {
        "clip_id": "ab-c_d_359",
        "frame": 90,
        "person_id": 2,
        "x1": 0.0,
        "y1": 0.0,
        "x2": 5.0,
        "y2": 479.0,
        "confidence": None,
    }
    assert result.tables["actions"]["action_id"].to_pylist() == [12, 80, 9]
    assert result.tables["captions"].to_pylist() == [{"clip_id": "Apollo13_032", "caption": "Two “crew” float."}]
    assert result.tables["qa"]["qa_index"].to_pylist() == list(range(6))


def test_tables_survive_csv_and_parquet(tmp_path: Path) -> None:
    tables = small_tables()
    notes = formats.write("microg4m", tables, str(tmp_path))
    by_csv = formats.read("microg4m", str(tmp_path)).tables
    shutil.rmtree(tmp_path / "annotation_files")
    by_parquet = formats.read("microg4m", str(tmp_path)).tables
    for name in ("boxes", "actions", "captions", "qa"):
        assert by_csv[name].equals(tables[name]), name
        assert by_parquet[name].equals(tables[name]), name
    assert any("Tour_012" in note for note in notes)  # a clip without annotations is nowhere in these files


def test_writing_what_was_read_gives_the_same_bytes(tmp_path: Path) -> None:
    formats.write("microg4m", small_tables(), str(tmp_path / "one"))
    again = formats.read("microg4m", str(tmp_path / "one"))
    formats.write("microg4m", again.tables, str(tmp_path / "two"))
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 7
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_the_published_files_come_back_byte_for_byte(tmp_path: Path) -> None:
    published(tmp_path / "in")
    formats.write("microg4m", formats.read("microg4m", str(tmp_path / "in")).tables, str(tmp_path / "out"))
    out = tmp_path / "out/annotation_files"
    assert (out / "actions.csv").read_text() == ACTIONS_CSV.replace(".mp4", "")
    assert (out / "bounding_boxes.csv").read_text() == BOXES_CSV.replace(".mp4", "")
    assert json.loads((out / "vqa_and_captioning.json").read_text()) == VQA
    assert pq.read_schema(tmp_path / "out/parquet_format/bounding_boxes.parquet").field("xmin").type == pa.int64()


def test_the_reference_boxes_come_back_byte_for_byte(oracles: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, source in (("actions", "actions_final"), ("bounding_boxes", "bounding_boxes")):
        shutil.copyfile(oracles / f"curation/ava/{source}.csv", tmp_path / "in" / f"{name}.csv")
    formats.write("microg4m", formats.read("microg4m", str(tmp_path / "in")).tables, str(tmp_path / "out"))
    for name in ("actions", "bounding_boxes"):
        assert (tmp_path / f"out/annotation_files/{name}.csv").read_bytes() == (
            tmp_path / f"in/{name}.csv"
        ).read_bytes()


def test_notes_say_what_the_layout_cannot_hold(tmp_path: Path) -> None:
    tables = small_tables()
    boxes = tables["boxes"].set_column(7, "confidence", pa.array([0.5] * tables["boxes"].num_rows, pa.float32()))
    clips = tables["clips"].set_column(4, "origin", pa.array(["movie", None, "real"]))
    qa = tables["qa"].slice(1)
    splits = schema.from_rows("splits", [{"clip_id": "Tour_000", "split": "val", "scheme": "source"}])
    notes = formats.write(
        "microg4m", tables | {"boxes": boxes, "clips": clips, "qa": qa, "splits": splits}, str(tmp_path)
    )
    text = "\n".join(notes)
    for part in ("'splits': 1 rows", f"{boxes.num_rows} values", "1 clips have no origin", "not numbered 0, 1, 2"):
        assert part in text


def test_rejected_clips_are_left_out_with_their_rows(tmp_path: Path) -> None:
    tables = small_tables()
    clips = tables["clips"].set_column(11, "status", pa.array(["rejected", "ok", "ok"]))
    notes = formats.write("microg4m", tables | {"clips": clips}, str(tmp_path))
    assert set(formats.read("microg4m", str(tmp_path)).tables["boxes"]["clip_id"].to_pylist()) == {"Tour_000"}
    assert "1 clips with status rejected" in notes[0]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("actions.csv", "video_id,person_id\na_000,1\n", "movie_or_real"),
        ("actions.csv", "", "empty"),
        ("actions.csv", ACTIONS_CSV + "a_000,x,1,1\n", "'x'"),
        ("actions.csv", ACTIONS_CSV + "Apollo13_032,r,1,1\n", "both movie and real"),
        ("actions.csv", ACTIONS_CSV + "etc..000,r,1,1\n", "etc..000"),
        ("actions.csv", ACTIONS_CSV + "noseq,r,1,1\n", "noseq"),
        ("actions.csv", ACTIONS_CSV + "a_000,r,,1\n", "person_id.*row 4"),
        ("bounding_boxes.csv", BOXES_CSV + "a_000,1,1,left,0,0,0\n", "left"),
        ("bounding_boxes.csv", BOXES_CSV + "a_000,1,1\n", "bounding_boxes.csv"),
        ("vqa.json", "[{", "not valid JSON"),
        ("vqa.json", json.dumps(VQA * 2), "twice"),
        ("vqa.json", json.dumps([{"video_id": "a_000", "qa_pairs": [{"Q": "?"}]}]), "not .Q, A."),
        ("more.json", json.dumps(VQA), "several files"),
    ],
)
def test_a_bad_file_is_named_in_the_error(tmp_path: Path, file: str, text: str, message: str) -> None:
    folder = published(tmp_path) / "annotation_files"
    (folder / file).write_text(text)
    with pytest.raises(MicrogError, match=message):
        formats.read("microg4m", str(tmp_path))


def test_captions_by_clip_id_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "captions.json").write_text(json.dumps({"a_000": "One floats.", "a_001": "Nobody."}))
    assert formats.read("microg4m", str(tmp_path)).tables["captions"]["caption"].to_pylist() == [
        "One floats.",
        "Nobody.",
    ]


def test_questions_as_json_text_in_parquet_are_read(tmp_path: Path) -> None:
    (tmp_path / "parquet_format").mkdir()
    table = pa.table({"video_id": ["a_000"], "caption": ["c"], "qa_pairs": [json.dumps([{"Q": "q", "A": "a"}])]})
    pq.write_table(table, tmp_path / "parquet_format/vqa_and_captioning.parquet")
    assert formats.read("microg4m", str(tmp_path)).tables["qa"]["answer"].to_pylist() == ["a"]


def test_an_empty_folder_and_a_missing_one_are_errors(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FormatError):
            formats.read("microg4m", str(path))


def with_videos(root: Path) -> Path:
    write_video(published(root) / "videos/movie/Apollo13/Apollo13_032.mp4", moving_scene(0))
    write_video(root / "videos/real/quiet/quiet_000.mp4", moving_scene(1))
    (root / "videos/real/ab-c_d").mkdir()
    (root / "videos/real/ab-c_d/ab-c_d_359.mp4").write_bytes(b"not a video")
    return root


def test_videos_give_size_rate_length_and_origin_and_a_broken_one_is_a_row(tmp_path: Path) -> None:
    result = formats.read("microg4m", str(with_videos(tmp_path)))
    clips = {row["clip_id"]: row for row in result.tables["clips"].to_pylist()}
    good = clips["Apollo13_032"]
    assert (good["width"], good["height"], good["num_frames"], good["fps"]) == (WIDTH, HEIGHT, FRAMES, FPS)
    assert good["duration_s"] == pytest.approx(FRAMES / FPS)
    path = tmp_path / "videos/movie/Apollo13/Apollo13_032.mp4"
    assert good["uri"] == str(path.resolve())
    assert good["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert clips["quiet_000"]["origin"] == "real"  # not annotated: the folder tells
    assert clips["ab-c_d_359"]["status"] == "error"
    assert "VideoError" in clips["ab-c_d_359"]["error"]
    assert any("cannot be read" in note for note in result.notes)


def test_videos_are_copied_into_the_dataset_and_out_again_in_the_published_folders(tmp_path: Path) -> None:
    root = str(tmp_path / "data")
    result = formats.read("microg4m", str(with_videos(tmp_path / "in")), dataset_root=root, copy_videos=True)
    clips = {row["clip_id"]: row["uri"] for row in result.tables["clips"].to_pylist()}
    assert clips["Apollo13_032"] == "videos/Apollo13_032.mp4"
    assert (tmp_path / "data/videos/quiet_000.mp4").is_file()
    from microg.data.dataset import Dataset

    dataset = Dataset.create(root, "copied")
    for name, table in result.tables.items():
        dataset.write(name, table)
    formats.write("microg4m", dataset, str(tmp_path / "out"), copy_videos=True)
    for path in ("movie/Apollo13/Apollo13_032.mp4", "real/quiet/quiet_000.mp4"):
        assert (tmp_path / "out/videos" / path).read_bytes() == (tmp_path / "in/videos" / path).read_bytes()


def test_an_archive_is_unpacked_into_the_dataset_and_only_once(tmp_path: Path) -> None:
    source = with_videos(tmp_path / "in")
    with zipfile.ZipFile(source / "videos.zip", "w") as bundle:
        for path in sorted((source / "videos").rglob("*.mp4")):
            bundle.write(path, path.relative_to(source))
        bundle.writestr("videos/README.txt", "no video")
    shutil.rmtree(source / "videos")
    assert any("was not unpacked" in note for note in formats.read("microg4m", str(source)).notes)
    clips = formats.read("microg4m", str(source), dataset_root=str(tmp_path / "data")).tables["clips"]
    assert clips["uri"].to_pylist()[0] == "videos/Apollo13_032.mp4"
    assert clips["origin"].to_pylist()[2] == "real"
    unpacked = tmp_path / "data/videos/Apollo13_032.mp4"
    before = unpacked.stat().st_mtime_ns
    formats.read("microg4m", str(source), dataset_root=str(tmp_path / "data"))
    assert unpacked.stat().st_mtime_ns == before
    assert sorted(path.name for path in (tmp_path / "data/videos").iterdir()) == [
        "Apollo13_032.mp4",
        "ab-c_d_359.mp4",
        "quiet_000.mp4",
    ]


def link(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (["../a_000.mp4"], "outside"),
        (["/tmp/a_000.mp4"], "outside"),
        (["videos\\..\\..\\a_000.mp4"], "outside"),
        (["C:/a_000.mp4"], "outside"),
        ([link("a_000.mp4")], "link"),
        (["x/a_000.mp4", "y/a_000.mp4"], "twice"),
    ],
)
def test_a_hostile_archive_is_refused_before_anything_is_written(
    tmp_path: Path, members: list[str | zipfile.ZipInfo], message: str
) -> None:
    with zipfile.ZipFile(tmp_path / "v.zip", "w") as bundle:
        bundle.writestr("good_000.mp4", b"x")
        for member in members:
            bundle.writestr(member, b"/etc/passwd")
    with pytest.raises(FormatError, match=message):
        unpack_zip(str(tmp_path / "v.zip"), str(tmp_path / "out"))
    assert [path.name for path in tmp_path.rglob("*")] == ["v.zip"]


def test_a_torn_archive_is_an_error(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "v.zip", "w") as bundle:
        bundle.writestr("a_000.mp4", bytes(1000))
    data = bytearray((tmp_path / "v.zip").read_bytes())
    data[500] ^= 1
    (tmp_path / "v.zip").write_bytes(data)
    with pytest.raises(FormatError, match="sound zip"):
        unpack_zip(str(tmp_path / "v.zip"), str(tmp_path / "out"))


def test_two_videos_of_one_clip_are_refused(tmp_path: Path) -> None:
    published(tmp_path)
    for folder in ("movie", "real"):
        (tmp_path / "videos" / folder).mkdir(parents=True)
        (tmp_path / "videos" / folder / "a_000.mp4").write_bytes(b"")
    with pytest.raises(FormatError, match="two videos"):
        formats.read("microg4m", str(tmp_path))


def test_a_turned_video_has_its_displayed_size(videos: Path) -> None:
    columns = video_columns(str(videos / "made_portrait_rot.mp4"))
    assert (columns["width"], columns["height"]) == (280, 496)


def test_the_label_map_is_the_published_one() -> None:
    text = label_map_text()
    # SHA-256 of the published training/csv_files/annotations/label_map.pbtxt (3,912 bytes, no line end at the end).
    assert hashlib.sha256(text.encode()).hexdigest() == (
        "f3b018d92a6a8e73f58820249f7da05a94362c8d692fa7c5b33beb15eec593dc"
    )
    assert parse_label_map(text, "here") == {action.id: action.name for action in ACTIONS}


def test_a_label_map_that_gives_ids_another_meaning_is_noted(tmp_path: Path) -> None:
    published(tmp_path)
    (tmp_path / "label_map").mkdir()
    (tmp_path / "label_map/label_map.pbtxt").write_text('item {\n name: "swim"\n id: 12\n}\nitem { name: "x" id: 99 }')
    notes = "\n".join(formats.read("microg4m", str(tmp_path)).notes)
    assert "'swim'" in notes
    assert "[99]" in notes


@pytest.mark.parametrize("text", ["12 stand", "12", "Stand", " stand "])
def test_an_action_is_understood_by_id_or_name(text: str) -> None:
    assert parse_action(text, "here") == 12
    for wrong in ("2 crawl", "fly", ""):
        with pytest.raises(FormatError, match="here"):
            parse_action(wrong, "here")


def test_unknown_formats_and_options_are_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="microg4m, ava, coco"):
        formats.read("voc", str(tmp_path))
    with pytest.raises(ConfigError, match=r"--predictions.*import 'cvat'"):
        formats.read("cvat", str(tmp_path), predictions=True)
    with pytest.raises(ConfigError, match=r"--frames.*export 'coco'"):
        formats.write("coco", {}, str(tmp_path), frames=True)


def test_annotated_clips_that_the_clips_table_lacks_are_written_and_noted(tmp_path: Path) -> None:
    tables = small_tables()
    notes = formats.write("microg4m", tables | {"clips": new_clips(["my_film-2_007"])}, str(tmp_path))
    assert any("missing from table 'clips'" in note for note in notes)
    assert rows(formats.read("microg4m", str(tmp_path)).tables["boxes"]) == rows(tables["boxes"])
