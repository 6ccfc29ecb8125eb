"""JHMDB's published folder: masks to boxes, splits, names, videos and pictures, and what is refused."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from microg import formats
from microg.data.dataset import Dataset
from microg.data.taxonomy import JHMDB_21
from microg.errors import ConfigError, FormatError
from microg.formats.base import FormatResult
from microg.formats.jhmdb import mask_boxes, read_mask
from microg.formats.key_frame_sources import read_key_frames
from microg.validation import validate
from microg.video import decode_frames
from tests.support import footage
from tests.support.helpers import make_dataset
from tests.support.jhmdb import FRAMES, HEIGHT, WIDTH, box_of, video_name, write_jhmdb
from tests.support.processes import microg


def rows_of(result: FormatResult, table: str) -> list[dict[str, Any]]:
    return result.tables[table].to_pylist()


def test_every_frame_of_a_mask_becomes_the_box_of_its_pixels(tmp_path: Path) -> None:
    tests = write_jhmdb(tmp_path, {"catch": 1, "walk": 1}, train=1)
    result = formats.read("jhmdb", str(tmp_path))
    assert result.label_space == "jhmdb21"
    boxes = {(row["clip_id"], row["frame"]): row for row in rows_of(result, "boxes")}
    assert len(boxes) == 4 * FRAMES
    for name, (action, number) in tests.items():
        clip_id = f"Film{number}_{action}_{number % 4:03d}"
        assert name == video_name(action, number)
        for frame in range(FRAMES):
            row = boxes[clip_id, frame + 1]
            assert tuple(row[side] for side in ("x1", "y1", "x2", "y2")) == box_of(number, frame)
    samples = rows_of(result, "samples")
    assert len(samples) == len(boxes)
    for row in samples:
        whole = boxes[row["clip_id"], row["frame"]]
        assert (row["x1"], row["y2"]) == (whole["x1"] / WIDTH, whole["y2"] / HEIGHT)
        assert JHMDB_21[row["action_id"] - 1] in row["clip_id"]
    splits = {(row["clip_id"], row["scheme"]): row["split"] for row in rows_of(result, "splits")}
    assert {scheme for _, scheme in splits} == {"published", "split2"}
    assert splits["Film0_catch_000", "published"] == "test"
    assert splits["Film1_catch_001", "published"] == "train"
    assert any("19 of the 21 actions" in note for note in result.notes)
    middle = rows_of(formats.read("jhmdb", str(tmp_path), key_frames="middle"), "samples")
    assert [row["frame"] for row in middle] == [FRAMES // 2 + 1] * 4


def test_boxes_are_those_that_a_loop_over_pixels_finds() -> None:
    draw = np.random.default_rng(0)
    mask = (draw.random((9, 11, 40)) < 0.03).astype(np.uint8) * 7
    boxes, size, empty = mask_boxes(mask)
    expected = []
    for frame in range(mask.shape[2]):
        rows, columns = np.where(mask[:, :, frame] > 0)
        if len(rows):
            expected.append([frame + 1, columns.min(), rows.min(), columns.max(), rows.max()])
    assert boxes.tolist() == expected
    assert (size, empty) == ((11, 9), 40 - len(expected))
    assert empty


def test_an_imported_folder_is_a_dataset_with_its_own_label_space(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jhmdb(tmp_path / "JHMDB", {"pour": 1})
    assert microg("data", "import", "jhmdb", tmp_path / "JHMDB", tmp_path / "set", "--json") == 0
    assert json.loads(capsys.readouterr().out)["failed"] == 0
    dataset = Dataset.open(str(tmp_path / "set"))
    assert dataset.label_space.name == "jhmdb21"
    assert [row["num_frames"] for row in dataset.table("clips").to_pylist()] == [FRAMES]
    found = read_key_frames(dataset.root, "test")
    assert found.rows.num_rows == FRAMES
    assert found.rows["labels"][0].as_py() == [[JHMDB_21.index("pour") + 1]]
    assert [item for item in validate(dataset, videos=False).findings if item.severity == "error"] == []
    assert microg("data", "stats", dataset.root, "--json") == 0
    stats = json.loads(capsys.readouterr().out)["tables"]["labels_per_action"]
    assert (len(stats), stats[0]["action"], stats[0]["all"]) == (21, "pour", 1)
    assert microg("data", "export", "cvat", dataset.root, tmp_path / "cvat") == 0
    assert f"{JHMDB_21.index('pour') + 1} pour" in (tmp_path / "cvat" / "labels.json").read_text()
    make_dataset(tmp_path / "ours", videos=False)
    assert microg("data", "import", "jhmdb", tmp_path / "JHMDB", tmp_path / "ours", "--merge") == 2
    assert "a dataset of its own" in capsys.readouterr().err


def test_pictures_are_packed_into_a_video_pixel_by_pixel(tmp_path: Path) -> None:
    write_jhmdb(tmp_path / "JHMDB", {"run": 1}, pictures=True)
    result = formats.read("jhmdb", str(tmp_path / "JHMDB"), dataset_root=str(tmp_path / "set"))
    (clip,) = rows_of(result, "clips")
    assert (clip["num_frames"], clip["fps"], clip["width"], clip["status"]) == (FRAMES, 30.0, WIDTH, "ok")
    assert clip["uri"] == "videos/Film0_run_000.mp4"
    for number, frame in enumerate(decode_frames(str(tmp_path / "set" / clip["uri"]))):
        assert np.array_equal(frame, footage.numbered(number, WIDTH, HEIGHT))
    assert any("will be packed" in note for note in formats.read("jhmdb", str(tmp_path / "JHMDB")).notes)


def test_empty_and_thin_masks_and_missing_ones_are_counted(tmp_path: Path) -> None:
    tests = write_jhmdb(tmp_path, {"sit": 3})
    files = [tmp_path / "puppet_mask" / "sit" / name / "puppet_mask.mat" for name in tests]
    mask = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    mask[4, 5:9, 0] = 1
    mask[4:7, 5:9, 2] = 1
    savemat(files[0], {"part_mask": mask})
    files[1].unlink()
    result = formats.read("jhmdb", str(tmp_path))
    first = [row["frame"] for row in rows_of(result, "boxes") if row["clip_id"] == "Film0_sit_000"]
    assert first == [3]
    told = "; ".join(result.notes)
    assert "1 videos have no puppet mask" in told
    assert "1 frames have an empty mask" in told
    assert "1 masks of one row or column" in told


def test_names_that_no_path_may_have_stay_apart(tmp_path: Path) -> None:
    names = [f"{film}_run_{body}_cm_np1_fr_med_3" for film, body in (("a b", "f"), ("a&b", "f"), ("a-b", "u"))]
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "run_test_split1.txt").write_text("".join(f"{name}.avi 2\n" for name in [*names, "odd"]))
    for name in [*names, "odd"]:
        folder = tmp_path / "puppet_mask" / "run" / name
        folder.mkdir(parents=True)
        savemat(folder / "puppet_mask.mat", {"part_mask": np.ones((4, 4, 1), np.uint8)})
    with pytest.raises(
        FormatError, match="would both be clip"
    ):  # "a b" and "a&b" differ in nothing that a path may hold
        formats.read("jhmdb", str(tmp_path))
    (tmp_path / "splits" / "run_test_split1.txt").write_text("".join(f"{name}.avi 2\n" for name in [*names[1:], "odd"]))
    ids = {row["clip_id"] for row in rows_of(formats.read("jhmdb", str(tmp_path)), "clips")}
    assert ids == {"run-a-b_run_f_cm_np1_fr_med_003", "run-a-b_run_u_cm_np1_fr_med_003", "odd_run_000"}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("../../etc/passwd.avi 2", "line 1"),
        ("a_run_f_cm_np1_fr_med_0.avi 3", "1 \\(train\\) or 2"),
        ("x.avi 1\nx.avi 2", "in both parts"),
    ],
)
def test_lines_of_splits_that_cannot_be_are_refused(tmp_path: Path, line: str, problem: str) -> None:
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "run_test_split1.txt").write_text(line + "\n")
    with pytest.raises(FormatError, match=problem):
        formats.read("jhmdb", str(tmp_path))


def test_other_forms_of_jhmdb_are_named(tmp_path: Path) -> None:
    (tmp_path / "JHMDB-GT.pkl").write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(FormatError, match="pickle"):
        formats.read("jhmdb", str(tmp_path))
    write_jhmdb(tmp_path, {"jump": 1})
    (mat,) = (tmp_path / "puppet_mask").rglob("*.mat")
    whole = mat.read_bytes()
    mat.write_bytes(b"MATLAB 7.3 MAT-file" + whole[19:])
    with pytest.raises(FormatError, match="HDF5"):
        formats.read("jhmdb", str(tmp_path))
    savemat(mat, {"other": np.ones(3)})
    with pytest.raises(FormatError, match="no part_mask"):
        formats.read("jhmdb", str(tmp_path))
    savemat(mat, {"part_mask": np.array(["text"], object)})
    with pytest.raises(FormatError, match="not \\(height, width, frames\\)"):
        formats.read("jhmdb", str(tmp_path))
    mat.write_bytes(whole[:200])
    with pytest.raises(FormatError, match="cannot be read"):
        formats.read("jhmdb", str(tmp_path))
    mat.write_bytes(whole)
    with pytest.raises(ConfigError, match="--videos"):
        formats.read("jhmdb", str(tmp_path), videos=str(tmp_path))


def test_a_mask_that_unpacks_out_of_proportion_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "puppet_mask.mat"
    savemat(path, {"part_mask": np.ones((4, 4, 1), np.uint8)})
    squeeze = zlib.compressobj(9)
    packed = squeeze.compress(bytes(8)) + squeeze.compress(bytes(96 << 20)) + squeeze.flush()
    path.write_bytes(path.read_bytes()[:128] + np.array([15, len(packed)], "<u4").tobytes() + packed)
    with pytest.raises(FormatError, match="out of proportion"):
        read_mask(str(path))


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MICROG_ALLOW_EXTERNAL", raising=False)
    write_jhmdb(tmp_path / "JHMDB", {"run": 1})
    (video,) = (tmp_path / "JHMDB" / "ReCompress_Videos").rglob("*.avi")
    video.rename(tmp_path / "secret.avi")
    video.symlink_to(tmp_path / "secret.avi")
    with pytest.raises(FormatError, match="is a link out of"):
        formats.read("jhmdb", str(tmp_path / "JHMDB"))
