"""Stored detections."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from microg.errors import FormatError, IdError
from microg.models.detection.base import PERSON, Detections
from microg.models.detection.replay import read_detections

HEADER = "frame,x1,y1,x2,y2,conf,cls\n"


def read(folder: Path, text: str, frames: int = 5) -> list[Detections]:
    (folder / "src_000.csv").write_text(text)
    return read_detections(str(folder), "src_000", frames)


def test_each_frame_gets_its_detections_by_descending_confidence(tmp_path: Path):
    rows = "3,1,2,3,4,0.5,0\n1,0.5,0,9,9,0.3,2\n3,5,6,7,8,0.9,7\n5,0,0,1,1,0.1,0\n3,0,0,2,2,0.5,1\n"
    found = read(tmp_path, HEADER + rows)
    assert [len(item) for item in found] == [1, 0, 3, 0, 1]
    assert found[2].to_array()[:, 4:].tolist() == pytest.approx(np.array([[0.9, 7], [0.5, 0], [0.5, 1]]))
    assert found[0].boxes.tolist() == [[0.5, 0, 9, 9]]
    assert (found[1].boxes.shape, found[1].boxes.dtype, found[1].class_id.dtype) == ((0, 4), np.float32, np.int32)


def test_parquet_with_full_names_is_read_too_and_wins(tmp_path: Path):
    columns = {"class_id": [PERSON], "confidence": [0.75], "x1": [1], "y1": [2], "x2": [3], "y2": [4], "frame": [2]}
    pq.write_table(pa.table(columns), tmp_path / "src_000.parquet")
    found = read(tmp_path, HEADER)
    assert [len(item) for item in found] == [0, 1, 0, 0, 0]
    assert found[1].to_array().tolist() == [[1, 2, 3, 4, 0.75, 0]]


def test_a_file_without_rows_means_nothing_was_found(tmp_path: Path):
    assert [len(item) for item in read(tmp_path, HEADER)] == [0] * 5


def test_detections_below_what_a_detector_gives_are_left_out(tmp_path: Path):
    assert [len(item) for item in read(tmp_path, HEADER + "1,0,0,1,1,0.09,0\n1,0,0,1,1,0.11,0\n")] == [1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frame,x1,y1,x2,y2,conf\n1,0,0,1,1,0.5\n", r"lack columns \['class_id'\]"),
        (HEADER + "0,0,0,1,1,0.5,0\n", "name frames 0 to 0"),
        (HEADER + "6,0,0,1,1,0.5,0\n", "name frames 6 to 6"),
        (HEADER + "1.5,0,0,1,1,0.5,0\n", "whole numbers"),
        (HEADER + "1,0,0,1,1,high,0\n", "no number"),
        (HEADER + "1,0,,1,1,0.5,0\n", "empty or infinite"),
        (HEADER + "1,0,nan,1,1,0.5,0\n", "empty or infinite"),
        (HEADER + "1,0,0\n", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_broken_files_are_refused_with_the_reason(tmp_path: Path, text: str, message: str):
    with pytest.raises(FormatError, match=message):
        read(tmp_path, text)


def test_a_clip_without_a_file_is_an_error_that_names_what_was_expected(tmp_path: Path):
    with pytest.raises(FormatError, match=r"src_000\.csv or \.parquet"):
        read_detections(str(tmp_path), "src_000", 5)


def test_a_clip_id_cannot_lead_out_of_the_folder(tmp_path: Path):
    (tmp_path / "secret.csv").write_text(HEADER)
    (tmp_path / "dets").mkdir()
    with pytest.raises(IdError):
        read_detections(str(tmp_path / "dets"), "../secret", 5)
