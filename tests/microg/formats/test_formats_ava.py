"""The train-ready AVA folder, byte for byte."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest

from microg import formats
from microg.data import schema
from microg.data.dataset import Dataset
from microg.data.splits import make_samples, published_split
from microg.errors import DatasetError, FormatError, VideoError
from microg.formats.base import new_clips
from tests.support.annotations import oracle_tables, rows
from tests.support.helpers import FRAMES, HEIGHT, WIDTH, make_dataset, moving_scene


def labelled(tmp_path: Path) -> Dataset:
    dataset = make_dataset(tmp_path / "data")
    dataset.write("splits", published_split(dataset.table("samples")))
    return dataset


def picture(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None
    return np.asarray(image)


def test_every_file_equals_the_reference_conversion_byte_for_byte(oracles: Path, tmp_path: Path) -> None:
    tables = oracle_tables(oracles)
    samples = make_samples(tables["boxes"], tables["clips"], tables["actions"])
    formats.write("ava", tables | {"samples": samples, "splits": published_split(samples)}, str(tmp_path))
    folders = {"annotations": "ava_dataset", "frame_lists": "new_frame_lists"}
    for ours, theirs in folders.items():
        expected = sorted((oracles / "curation/ava/output" / theirs).glob("*.csv"))
        assert len(expected) in (3, 6)
        for file in expected:
            assert (tmp_path / ours / file.name).read_bytes() == file.read_bytes(), file.name


def test_the_reference_files_are_read_back(oracles: Path, tmp_path: Path) -> None:
    tables = oracle_tables(oracles)
    lengths = pa.array([120] * tables["clips"].num_rows, pa.int32())  # as the boxes have it, not the oracle's lists
    tables["clips"] = tables["clips"].set_column(
        tables["clips"].column_names.index("num_frames"), "num_frames", lengths
    )
    samples = make_samples(tables["boxes"], tables["clips"], tables["actions"])
    formats.write("ava", tables | {"samples": samples, "splits": published_split(samples)}, str(tmp_path / "ava"))
    result = formats.read("ava", str(tmp_path / "ava"))
    assert rows(result.tables["samples"]) == rows(samples)
    assert result.tables["splits"].equals(published_split(samples))
    assert set(result.tables["clips"]["num_frames"].to_pylist()) == {120}
    assert rows(result.tables["actions"]) == rows(
        samples.select(["clip_id", "person_id", "action_id"])
        .group_by(["clip_id", "person_id", "action_id"])
        .aggregate([])
    )
    formats.write("ava", result.tables, str(tmp_path / "again"))
    for file in sorted((tmp_path / "ava").rglob("*.csv")):
        assert (tmp_path / "again" / file.relative_to(tmp_path / "ava")).read_bytes() == file.read_bytes()


def test_predicted_boxes_have_no_action_and_score_one(tmp_path: Path) -> None:
    formats.write("ava", labelled(tmp_path), str(tmp_path / "ava"))
    text = "".join((tmp_path / f"ava/annotations/ava_{s}_predicted_boxes.csv").read_text() for s in schema.SPLITS)
    assert text.count("\n") == 12
    assert all(line.endswith(",0.2,0.3,0.5,0.7,,1") for line in text.splitlines())


def test_all_frames_are_written_upright_in_order_and_named_from_one(tmp_path: Path) -> None:
    dataset = labelled(tmp_path)
    formats.write("ava", dataset, str(tmp_path / "ava"), frames=True)
    for number, clip_id in enumerate(["filmA_000", "filmA_001", "tourB_000", "walkC_000"]):
        files = sorted((tmp_path / "ava/frames" / clip_id).iterdir())
        assert [file.name for file in files] == [f"{clip_id}_{frame:06d}.jpg" for frame in range(1, FRAMES + 1)]
        for file, scene in zip(files, moving_scene(number), strict=True):
            image = picture(file)[..., ::-1]
            assert image.shape == (HEIGHT, WIDTH, 3)
            assert np.abs(image.astype(int) - scene).mean() < 8
    lists = [(tmp_path / f"ava/frame_lists/{split}.csv").read_text().splitlines()[1:] for split in schema.SPLITS]
    named = {line.split(" ")[3] for lines in lists for line in lines}
    assert named == {
        str(path.relative_to(tmp_path / "ava/frames")) for path in (tmp_path / "ava/frames").rglob("*.jpg")
    }


def test_sizes_and_lengths_come_back_from_frames_and_frame_lists(tmp_path: Path) -> None:
    formats.write("ava", labelled(tmp_path), str(tmp_path / "ava"), frames=True)
    clips = formats.read("ava", str(tmp_path / "ava")).tables["clips"].to_pylist()
    assert {(row["width"], row["height"], row["num_frames"]) for row in clips} == {(WIDTH, HEIGHT, FRAMES)}


def test_a_turned_video_gives_upright_frames(videos: Path, tmp_path: Path) -> None:
    clips = new_clips(["up_000"], uri=[str(videos / "made_portrait_rot.mp4")], num_frames=[149], fps=[25.0])
    samples = schema.from_rows("samples", [{"clip_id": "up_000", "frame": 1, "person_id": 1, "action_id": 12}])
    splits = schema.from_rows("splits", [{"clip_id": "up_000", "split": "train", "scheme": "published"}])
    notes = formats.write("ava", {"clips": clips, "samples": samples, "splits": splits}, str(tmp_path), frames=True)
    capture = cv2.VideoCapture(str(videos / "made_portrait_rot.mp4"))  # turns pictures as a player does
    _, expected = capture.read()
    image = picture(tmp_path / "frames/up_000/up_000_000001.jpg")
    assert image.shape == expected.shape == (496, 280, 3)
    assert np.abs(image.astype(int) - expected).mean() < 3
    assert any("not at 30 frames" in note for note in notes)


def test_frames_of_a_broken_video_fail_after_everything_else_was_written(tmp_path: Path) -> None:
    dataset = labelled(tmp_path)
    (tmp_path / "data/videos/filmA_000.mp4").write_bytes(b"broken")
    with pytest.raises(VideoError, match="filmA_000"):
        formats.write("ava", dataset, str(tmp_path / "ava"), frames=True)
    assert len(list((tmp_path / "ava/frames").iterdir())) == 3
    assert (tmp_path / "ava/annotations/label_map.pbtxt").is_file()


def test_a_dataset_without_samples_or_split_says_how_to_make_them(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", videos=False)
    with pytest.raises(DatasetError, match="data split DATASET --scheme published"):
        formats.write("ava", dataset, str(tmp_path / "ava"))
    dataset.write("samples", schema.empty("samples"))
    with pytest.raises(DatasetError, match="no labelled samples"):
        formats.write("ava", dataset, str(tmp_path / "ava"), split="source")


def test_a_clip_of_unknown_length_has_no_frame_list(tmp_path: Path) -> None:
    dataset = labelled(tmp_path)
    tables = {name: dataset.table(name) for name in ("samples", "splits")}
    with pytest.raises(DatasetError, match="no number of frames"):
        formats.write("ava", tables, str(tmp_path / "ava"))


def test_samples_outside_the_split_and_unlabelled_ones_are_noted(tmp_path: Path) -> None:
    dataset = labelled(tmp_path)
    bare = [{"clip_id": "walkC_000", "frame": 1, "person_id": 9, "x1": 0.0, "y1": 0.0, "x2": 1.0, "y2": 1.0}]
    dataset.write("samples", pa.concat_tables([dataset.table("samples"), schema.from_rows("samples", bare)]))
    dataset.write("splits", dataset.table("splits").slice(1))
    notes = "\n".join(formats.write("ava", dataset, str(tmp_path / "ava")))
    assert "1 samples without an action" in notes
    assert "1 clips are in no split of scheme 'published'" in notes


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("annotations/ava_train.csv", "a_000,1,0,0,1,1,x,1\n", "ava_train"),
        ("annotations/ava_train.csv", "a_000,1,0,0,1,1,,1\n", "line 1: action_id is empty"),
        ("annotations/ava_val.csv", "a_000,1,0,0,1,1,12,1\n", "train split as well"),
        ("annotations/ava_val.csv", "b..000,1,0,0,1,1,12,1\n", "not allowed"),
        ("frame_lists/train.csv", "a_000 a_000 1\n", "line 1"),
        ("frame_lists/train.csv", 'a_000 a_000 1 a_000/a_000_x.jpg ""\n', "frame number"),
    ],
)
def test_a_bad_row_is_named_in_the_error(tmp_path: Path, file: str, text: str, message: str) -> None:
    for folder in ("annotations", "frame_lists"):
        (tmp_path / folder).mkdir()
    (tmp_path / "annotations/ava_train.csv").write_text("a_000,1,0,0,1,1,12,1\n")
    (tmp_path / file).write_text(text)
    with pytest.raises(FormatError, match=message):
        formats.read("ava", str(tmp_path))
