"""Action files as spreadsheets, pandas and AVA-Kinetics write them mean what the plain file means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from microg.actions.predictions import read_predictions
from microg.actions.truth import read_truth
from microg.data.label_space import MICROG_50
from microg.errors import FormatError
from microg.formats.base import read_csv
from microg.formats.microg4m import read as read_published
from tests.support.har_cases import LEFT, RIGHT, write_csv

TRUTH = [("a_001", 46, *LEFT, 12, 1), ("b_002", 7, *RIGHT, 80, 2)]
PREDICTIONS = [("a_001", 46, *LEFT, 12, -1.5), ("b_002", 7, *RIGHT, 80, 2.25)]
HEADER = "video_id,frame_stamp,xmin,ymin,xmax,ymax,action_id"


def text(rows: list[tuple], header: str = "") -> str:
    return "\n".join([header] * bool(header) + [",".join(map(str, row)) for row in rows]) + "\n"


def semicolons(plain: str) -> str:
    return plain.replace(",", ";").replace(".", ",")


@pytest.mark.parametrize("header", ["", f"{HEADER},score"])
@pytest.mark.parametrize(
    "write",
    [
        pytest.param(semicolons, id="semicolons and decimal commas"),
        pytest.param(
            lambda plain: semicolons(plain.replace(",46,", ",46.0,").replace(",12,", ",12.0,")), id="all decimal"
        ),
        pytest.param(lambda plain: plain.replace(",", ";"), id="semicolons"),
        pytest.param(lambda plain: plain.replace(",", "\t"), id="tabs"),
        pytest.param(lambda plain: plain.replace(",46,", ",46.0,").replace(",12,", ",12.0,"), id="46.0"),
        pytest.param(lambda plain: plain.replace("a_001", "/data/clips/a_001.MOV"), id="paths"),
    ],
)
def test_predictions_mean_the_same_however_they_are_written(
    tmp_path: Path, header: str, write: Callable[[str], str]
) -> None:
    expected = read_predictions(str(write_csv(tmp_path / "plain.csv", PREDICTIONS, header or None))).rows
    (tmp_path / "theirs.csv").write_text(write(text(PREDICTIONS, header)))
    found = read_predictions(str(tmp_path / "theirs.csv")).rows
    assert found.to_pylist() == expected.to_pylist()


@pytest.mark.parametrize("header", ["", f"{HEADER},person_id"])
@pytest.mark.parametrize("negative", ["a_001,0048", "a_001,48.0,,,,,,"])
def test_rows_without_a_box_are_negative_key_frames(tmp_path: Path, header: str, negative: str) -> None:
    lines = text(TRUTH, header).splitlines()
    lines.insert(len(lines) - 2, negative)
    (tmp_path / "t.csv").write_text("\n".join(lines))
    truth = read_truth(str(tmp_path / "t.csv"), MICROG_50)
    assert [tuple(row.values())[1:] for row in truth.rows.to_pylist()] == TRUTH
    assert truth.notes == ("1 key frames of the truth have no box: what is predicted there is false",)
    (tmp_path / "t.csv").write_text("\n".join([*lines, "a_001,49,0.5,0.1,0.4,0.9,12,1"]))
    with pytest.raises(FormatError, match=f"line {len(lines) + 1}: box with x2"):  # lines are counted as they stand
        read_truth(str(tmp_path / "t.csv"), MICROG_50)


def test_a_file_of_negative_key_frames_alone_holds_no_truth(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a_001,0902.0,,,,,,\n")
    with pytest.raises(FormatError, match="holds no truth"):
        read_truth(str(tmp_path / "t.csv"), MICROG_50)


def test_decimal_timestamps_without_a_header_are_no_header(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text([("a_001", "0902.0", *LEFT, "12.0", 1), *TRUTH]))
    rows = read_truth(str(tmp_path / "t.csv"), MICROG_50).rows
    assert rows["frame"].to_pylist() == [902, 46, 7]
    (tmp_path / "t.csv").write_text(text([("a_001", "902.5", *LEFT, 12, 1)]))
    with pytest.raises(FormatError, match=r"line 1: frame '902.5' is not a whole number"):
        read_truth(str(tmp_path / "t.csv"), MICROG_50)


def test_published_tables_are_read_with_semicolons_and_whole_numbers_as_decimals(tmp_path: Path) -> None:
    (tmp_path / "actions.csv").write_text("video_id;movie_or_real;person_id;action\nclips/a_001.MOV;m;1.0;12.0\n")
    actions = read_published(str(tmp_path)).tables["actions"].to_pylist()
    assert actions == [{"clip_id": "a_001", "person_id": 1, "action_id": 12}]


def test_spreadsheets_are_refused_by_name_with_advice(tmp_path: Path) -> None:
    for name, read in (("p.xlsx", read_predictions), ("t.xls", lambda path: read_truth(path, MICROG_50))):
        (tmp_path / name).write_bytes(b"PK\x03\x04")
        with pytest.raises(FormatError, match=r"is a spreadsheet.*save the sheet as CSV"):
            read(str(tmp_path / name))
    (tmp_path / "p.csv").write_bytes(b"PK\x03\x04 what a spreadsheet is packed in")
    with pytest.raises(FormatError, match=r"is a spreadsheet or an archive.*save the sheet as CSV"):
        read_predictions(str(tmp_path / "p.csv"))
    with pytest.raises(FormatError, match="is a spreadsheet or an archive"):
        read_csv(str(tmp_path / "p.csv"), pa.schema([("video_id", pa.string())]))
