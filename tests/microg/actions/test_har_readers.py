"""Readers of predictions and truth: every form gives the same rows, and bad input is refused with its place."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from microg import storage
from microg.actions.predictions import read_predictions, sample_id
from microg.actions.truth import read_truth
from microg.data import schema
from microg.data.label_space import AVA_80_SPACE, LABEL_SPACES, MICROG_50, label_space
from microg.data.taxonomy import ACTION_IDS
from microg.errors import ConfigError, FormatError
from tests.support.har_cases import LEFT, RIGHT, write_csv
from tests.support.helpers import make_dataset

PREDICTIONS = [
    ("Apollo13_032", 52, *LEFT, 1, -1.5),
    ("Apollo13_032", 52, *LEFT, 3, 2.25),
    ("a_b-c_001", 7, *RIGHT, 80, 0.5),
]
TRUTH = [("Apollo13_032", 52, *LEFT, 1), ("a_b-c_001", 7, *RIGHT, 80)]
HEADER = "video_id,frame,x1,y1,x2,y2,action_id,"


def _rows(table: pa.Table) -> list[tuple]:
    return [tuple(row.values())[1:] for row in table.to_pylist()]


def _wide(**changes: Any) -> dict[str, Any]:
    row = {
        "sample_id": sample_id("a_001", 5, 1),
        "clip_id": "a_001",
        "frame": 5,
        "person_id": 1,
        "x1": 0.1,
        "y1": 0.1,
        "x2": 0.4,
        "y2": 0.9,
        "scores": np.linspace(-2, 2, 50).tolist(),
        "score_kind": "logit",
        "label_space": "microg50",
        "model": "tiny",
        "status": "ok",
    }
    return row | changes


def _write_wide(path: Path, *rows: dict[str, Any]) -> str:
    storage.write_parquet(path, schema.from_rows("har_predictions", list(rows)))
    return str(path)


@pytest.mark.parametrize("header", [None, f"{HEADER}score", "clip_id,frame_stamp,xmin,ymin,xmax,ymax,action_id,score"])
def test_csv_with_and_without_header(tmp_path: Path, header: str | None):
    read = read_predictions(str(write_csv(tmp_path / "p.csv", PREDICTIONS, header)))
    assert _rows(read.rows) == PREDICTIONS
    assert read.rows["row"].to_pylist() == [0, 1, 2]
    assert (read.score_kind, read.space) == ("logit", MICROG_50)


def test_frame_with_leading_zeros_crlf_bom_extension_and_gzip(tmp_path: Path):
    lines = "".join(f"{r[0]}.mp4,{r[1]:04d},{','.join(map(str, r[2:]))}\r\n" for r in PREDICTIONS)
    path = tmp_path / "p.csv.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + lines.encode()))
    assert _rows(read_predictions(str(path)).rows) == PREDICTIONS


def test_one_clip_spelled_with_and_without_extension_is_one_clip(tmp_path: Path):
    rows = [("a_001.mp4", *PREDICTIONS[0][1:]), ("a_001", *PREDICTIONS[1][1:])]
    read = read_predictions(str(write_csv(tmp_path / "p.csv", rows)))
    assert read.rows["clip_id"].to_pylist() == ["a_001", "a_001"]
    assert read.rows["clip_id"].chunk(0).dictionary.to_pylist() == ["a_001"]


def test_parquet_long_with_dictionary_ids_and_narrow_types(tmp_path: Path):
    names = ["video_id", "frame", "x1", "y1", "x2", "y2", "action_id", "score"]
    columns = dict(zip(names, (list(column) for column in zip(*PREDICTIONS, strict=True)), strict=True))
    table = pa.table(columns)
    table = table.set_column(0, "video_id", table["video_id"].dictionary_encode())
    table = table.set_column(6, "action_id", table["action_id"].cast(pa.int16()))
    table = table.set_column(7, "score", table["score"].cast(pa.float32()))
    storage.write_parquet(tmp_path / "p.parquet", table)
    assert _rows(read_predictions(str(tmp_path / "p.parquet")).rows) == PREDICTIONS


def test_wide_table_in_a_run_folder_says_itself_what_its_scores_are(tmp_path: Path):
    likely = np.linspace(0, 1, 80).tolist()
    _write_wide(
        tmp_path / "run" / "tables" / "har_predictions.parquet",
        _wide(scores=likely, score_kind="probability", label_space="ava80"),
    )
    read = read_predictions(str(tmp_path / "run"))
    assert (read.score_kind, read.space) == ("probability", AVA_80_SPACE)
    assert read.rows["action_id"].to_pylist() == list(range(1, 81))
    np.testing.assert_array_equal(read.rows["score"].to_numpy(), np.array(likely, np.float32))


def test_wide_parts_in_a_folder_are_read_together_and_failed_samples_are_noted(tmp_path: Path):
    _write_wide(tmp_path / "run" / "har_predictions" / "0.parquet", _wide())
    failed = _wide(sample_id="b_001:5:1", clip_id="b_001", scores=None, status="error", error="VideoError: torn")
    _write_wide(tmp_path / "run" / "har_predictions" / "1.parquet", failed)
    read = read_predictions(str(tmp_path / "run"))
    assert set(read.rows["clip_id"].to_pylist()) == {"a_001"}
    assert read.rows.num_rows == 50
    assert "1 samples failed" in read.notes[0]


def test_scores_named_in_the_header_are_what_the_header_says(tmp_path: Path):
    rows = [(*row[:7], 0.25) for row in PREDICTIONS]
    path = str(write_csv(tmp_path / "p.csv", rows, f"{HEADER}probability"))
    assert read_predictions(path).score_kind == "probability"
    with pytest.raises(ConfigError, match="declares score kind 'probability', but 'logit'"):
        read_predictions(path, score_kind="logit")


def test_undeclared_scores_that_may_be_probabilities_are_not_guessed(tmp_path: Path):
    path = str(write_csv(tmp_path / "p.csv", [(*row[:7], 0.25) for row in PREDICTIONS]))
    with pytest.raises(FormatError, match="all lie between 0 and 1") as caught:
        read_predictions(path)
    assert "--scores" in str(caught.value.fix)
    assert read_predictions(path, score_kind="logit").score_kind == "logit"
    assert read_predictions(path, score_kind="probability").score_kind == "probability"


def test_ava_label_space_takes_80_classes_and_is_not_assumed(tmp_path: Path):
    path = str(write_csv(tmp_path / "p.csv", [("a_001", 5, *LEFT, 2, -1.0)]))
    assert read_predictions(path, space="ava80").space is AVA_80_SPACE
    with pytest.raises(FormatError, match=r"line 1: unknown action id 2$|line 1: unknown action id 2 ") as caught:
        read_predictions(path)
    assert "--label-space ava80" in str(caught.value.fix)


BAD_PREDICTIONS = {
    "too few columns": ([*PREDICTIONS[:2], ("a_001", 5, 0.1)], "line 3: 3 columns instead of 8"),
    "too many columns": ([PREDICTIONS[0], (*PREDICTIONS[1], "more", 3)], "line 2: 10 columns instead of 8"),
    "unknown action": ([PREDICTIONS[0], (*PREDICTIONS[1][:6], 4, 1.0)], "line 2: unknown action id 4"),
    "negative action": ([PREDICTIONS[0], (*PREDICTIONS[1][:6], -1, 1.0)], "line 2: unknown action id -1"),
    "huge action": ([PREDICTIONS[0], (*PREDICTIONS[1][:6], 999, 1.0)], "line 2: unknown action id 999"),
    "nan": ([*PREDICTIONS, (*PREDICTIONS[0][:7], "nan")], "line 4: score is nan"),
    "infinite": ([*PREDICTIONS, (*PREDICTIONS[0][:7], "-inf")], "line 4: score is -inf"),
    "no number": ([*PREDICTIONS, (*PREDICTIONS[0][:7], "high")], "line 4: score 'high' is not a number"),
    "no whole frame": ([*PREDICTIONS, ("a_001", "5.5", *LEFT, 1, 1.0)], "line 4: frame '5.5' is not a whole number"),
    "negative frame": ([("a_001", -5, *LEFT, 1, 1.0)], "line 1: frame -5"),
    "x2 <= x1": ([PREDICTIONS[0], ("a_001", 5, 0.4, 0.1, 0.4, 0.9, 1, 1.0)], "line 2: box with x2 0.4 <= x1 0.4"),
    "y2 < y1": ([PREDICTIONS[0], ("a_001", 5, 0.1, 0.9, 0.4, 0.1, 1, 1.0)], "line 2: box with y2 0.1 <= y1 0.9"),
    "nan box": ([PREDICTIONS[0], ("a_001", 5, "nan", 0.1, 0.4, 0.9, 1, 1.0)], "line 2: x1 is nan"),
    "empty value": ([PREDICTIONS[0], ("a_001", 5, *LEFT, 1, "")], "line 2: score is empty"),
    "clip id": ([("a..001", 5, *LEFT, 1, 1.0)], r"a\.\.001"),
}


@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize("case", BAD_PREDICTIONS)
def test_bad_predictions_are_refused_with_their_line(tmp_path: Path, case: str, header: bool):
    rows, message = BAD_PREDICTIONS[case]
    path = tmp_path / "p.csv"
    lines = [f"{HEADER}score"] if header else []
    path.write_text("\n".join([*lines, *(",".join(map(str, row)) for row in rows)]) + "\n")
    if header and message.startswith("line"):
        number = int(message.split()[1].rstrip(":"))
        message = message.replace(f"line {number}", f"line {number + 1}", 1)
    with pytest.raises(FormatError, match=message) as caught:
        read_predictions(str(path))
    assert "\n" not in str(caught.value)


def test_line_numbers_hold_after_an_empty_line(tmp_path: Path):
    path = tmp_path / "p.csv"
    path.write_text("a_001,5,.1,.1,.4,.9,1,1.0\n\na_001,5,.1,.1,.4,.9,3,1.0\n")
    with pytest.raises(FormatError, match="line 2: "):
        read_predictions(str(path))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (f"{HEADER}confidence", "line 1: the header .* lacks score"),
        ("video_id,frame,x1,y1,x2,y2,score", "lacks action_id"),
        (f"{HEADER}score,logit", "column score is there twice"),
    ],
)
def test_header_with_missing_or_double_columns_is_refused(tmp_path: Path, header: str, message: str):
    with pytest.raises(FormatError, match=message):
        read_predictions(str(write_csv(tmp_path / "p.csv", PREDICTIONS, header)))


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\x1f\x8bnot gzip"])
def test_empty_and_torn_files_are_refused(tmp_path: Path, data: bytes):
    path = tmp_path / "p.csv"
    path.write_bytes(data)
    with pytest.raises(FormatError):
        read_predictions(str(path))


def test_missing_file_and_folder_without_table_are_refused(tmp_path: Path):
    with pytest.raises(FormatError, match="are not there"):
        read_predictions(str(tmp_path / "none.csv"))
    with pytest.raises(FormatError, match="holds no table har_predictions"):
        read_predictions(str(tmp_path))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([_wide(), _wide()], "row 2: duplicate sample id a_001:5:1"),
        ([_wide(), _wide(sample_id=None)], "row 2: sample_id is empty"),
        ([_wide(scores=[0.1] * 49)], "sample a_001:5:1: 49 scores instead of 50"),
        ([_wide(scores=None)], "sample a_001:5:1: 0 scores instead of 50"),
        ([_wide(scores=[float("nan"), *[0.0] * 49])], "sample a_001:5:1: score is nan"),
        ([_wide(), _wide(sample_id="b", score_kind="probability")], "mixes score_kinds"),
        ([_wide(score_kind="percent")], "score_kind 'percent' is unknown"),
        ([_wide(score_kind="probability")], "probability -2 is not between 0 and 1"),
    ],
)
def test_bad_wide_tables_are_refused_with_the_sample(tmp_path: Path, rows: list[dict], message: str):
    with pytest.raises(FormatError, match=message):
        read_predictions(_write_wide(tmp_path / "p.parquet", *rows))


def test_long_parquet_refuses_with_the_row(tmp_path: Path):
    names = ["video_id", "frame", "x1", "y1", "x2", "y2", "action_id", "score"]
    rows = [PREDICTIONS[0], (*PREDICTIONS[1][:7], float("inf"))]
    columns = dict(zip(names, (list(column) for column in zip(*rows, strict=True)), strict=True))
    storage.write_parquet(tmp_path / "p.parquet", pa.table(columns))
    with pytest.raises(FormatError, match="row 2: score is inf"):
        read_predictions(str(tmp_path / "p.parquet"))
    storage.write_parquet(tmp_path / "q.parquet", pa.table(columns).drop_columns(["score"]))
    with pytest.raises(FormatError, match="has no column score"):
        read_predictions(str(tmp_path / "q.parquet"))


@pytest.mark.parametrize("header", [None, f"{HEADER}person_id", f"{HEADER}person_id,origin"])
def test_truth_csv_with_person_ids_and_origins(tmp_path: Path, header: str | None):
    last = "1,movie" if header and "origin" in header else 1
    truth = read_truth(str(write_csv(tmp_path / "t.csv", TRUTH, header, last)), MICROG_50)
    assert [row[:-1] for row in _rows(truth.rows)] == TRUTH
    assert truth.origins == ({"Apollo13_032": "movie", "a_b-c_001": "movie"} if "," in str(last) else {})


def test_truth_without_person_ids_has_seven_columns(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in TRUTH))
    assert _rows(read_truth(str(path), MICROG_50).rows) == [(*row, None) for row in TRUTH]


def test_one_person_with_two_boxes_in_a_key_frame_is_a_duplicate_id(tmp_path: Path):
    rows = [("a_001", 5, *LEFT, 1), ("a_001", 5, *LEFT, 3), ("a_001", 5, *RIGHT, 1)]
    with pytest.raises(FormatError, match="line 3: person id 1 is there twice in this key frame") as caught:
        read_truth(str(write_csv(tmp_path / "t.csv", rows)), MICROG_50)
    assert "ids must be unique" in str(caught.value.fix)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("a_001", 5, *LEFT, 2), "line 2: unknown action id 2"),
        (("a_001", 5, 0.5, 0.1, 0.4, 0.9, 1), "line 2: box with x2"),
        (("a", 5, *LEFT, 1), "'a'"),
    ],
)
def test_bad_truth_is_refused_with_its_line(tmp_path: Path, row: tuple, message: str):
    with pytest.raises(FormatError, match=message):
        read_truth(str(write_csv(tmp_path / "t.csv", [TRUTH[0], row])), MICROG_50)


def test_truth_of_a_dataset_is_its_split_with_origins(tmp_path: Path):
    dataset = make_dataset(tmp_path / "data", videos=False)
    truth = read_truth(str(tmp_path / "data"), MICROG_50, split="train", scheme="source")
    assert set(truth.rows["clip_id"].to_pylist()) == {"filmA_000", "filmA_001"}
    assert truth.origins["filmA_000"] == "movie"
    assert truth.origins["tourB_000"] == "real"
    with pytest.raises(Exception, match="no test split of scheme 'published'"):
        read_truth(str(tmp_path / "data"), MICROG_50)
    everyone = read_truth(str(tmp_path / "data"), MICROG_50, split="all")
    assert everyone.rows.num_rows == dataset.table("samples").num_rows > truth.rows.num_rows


def test_samples_table_as_parquet_keeps_people_without_labels(tmp_path: Path):
    place = {"clip_id": "a_001", "frame": 5, "y1": 0.1, "y2": 0.9}
    rows = [
        {**place, "person_id": 1, "x1": 0.1, "x2": 0.3, "action_id": 12},
        {**place, "person_id": 2, "x1": 0.5, "x2": 0.7, "action_id": None},
    ]
    storage.write_parquet(tmp_path / "t.parquet", schema.from_rows("samples", rows))
    assert read_truth(str(tmp_path / "t.parquet"), MICROG_50).rows["action_id"].to_pylist() == [12, None]


def test_label_spaces_have_their_ids_in_order():
    assert {name: len(space) for name, space in LABEL_SPACES.items()} == {"microg50": 50, "ava80": 80, "jhmdb21": 21}
    assert MICROG_50.ids == ACTION_IDS
    assert AVA_80_SPACE.ids == tuple(range(1, 81))
    ids = np.arange(-2, 90)
    assert [int(i) for i, c in zip(ids, MICROG_50.index(ids), strict=True) if c >= 0] == list(ACTION_IDS)
    with pytest.raises(ConfigError, match="no label space 'kinetics'"):
        label_space("kinetics")
