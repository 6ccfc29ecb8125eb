"""Key frames as rows: grouping of samples, what is refused, and both sources they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from microg import formats, storage
from microg.data import schema
from microg.data.key_frames import check_labels, key_frame_rows, label_matrix
from microg.data.label_space import MICROG_50
from microg.errors import DatasetError, FormatError
from microg.formats.key_frame_sources import read_key_frames
from tests.support.helpers import FRAMES, make_dataset


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    return table.to_pylist()


def test_a_key_frame_has_all_its_people_with_all_their_labels(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, videos=False)
    rows = rows_of(key_frame_rows(dataset, "train", "source"))
    assert [row["key"] for row in rows] == ["filmA_000:6", "filmA_001:6"]
    assert rows[1] == {
        "key": "filmA_001:6",
        "clip_id": "filmA_001",
        "frame": 6,
        "uri": str(tmp_path / "videos/filmA_001.mp4"),
        "num_frames": FRAMES,
        "person_id": [1, 2],
        "boxes": [0.2, 0.3, 0.5, 0.7] * 2,
        "labels": [[12, 17], [12, 80]],
    }


def test_all_takes_every_sample_whatever_the_splits(tmp_path: Path) -> None:
    def drop_splits(rows: dict[str, list]) -> None:
        rows["splits"].clear()

    dataset = make_dataset(tmp_path, drop_splits, videos=False)
    assert key_frame_rows(dataset, "all").num_rows == 4
    with pytest.raises(DatasetError, match=r"no test split of scheme 'published'.*microg data split"):
        key_frame_rows(dataset, "test")


def test_another_scheme_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="schemes there are source"):
        key_frame_rows(make_dataset(tmp_path, videos=False), "test", "published")


def test_unlabelled_people_stay_unless_only_labelled_ones_are_asked_for(tmp_path: Path) -> None:
    def unlabel(rows: dict[str, list]) -> None:
        rows["samples"] = [
            row | {"action_id": None} if row["person_id"] == 2 or row["clip_id"] == "walkC_000" else row
            for row in rows["samples"]
        ]

    dataset = make_dataset(tmp_path, unlabel, videos=False)
    everyone = rows_of(key_frame_rows(dataset, "train", "source"))
    assert [row["labels"] for row in everyone] == [[[12, 17]], [[12, 17], []]]
    labelled = rows_of(key_frame_rows(dataset, "train", "source", labelled=True))
    assert [row["person_id"] for row in labelled] == [[1], [1]]
    with pytest.raises(DatasetError, match="no labelled key frames"):
        key_frame_rows(dataset, "test", "source", labelled=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x2": 0.2}, "without area"),
        ({"x1": float("nan")}, "not finite"),
        ({"y2": None}, "no box"),
        ({"x2": 52.0}, "are these pixels"),
    ],
)
def test_a_broken_box_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    dataset = make_dataset(tmp_path, lambda rows: rows["samples"][0].update(change), videos=False)
    with pytest.raises(DatasetError, match=f"person 1 in frame 6 of filmA_000.*{message}"):
        key_frame_rows(dataset, "train", "source")


def test_two_boxes_of_one_person_are_refused(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, lambda rows: rows["samples"][0].update(x1=0.1), videos=False)
    with pytest.raises(DatasetError, match="person 1 has two boxes in key frame filmA_000:6"):
        key_frame_rows(dataset, "train", "source")


def test_a_repeated_label_counts_once_and_labels_become_a_matrix(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, lambda rows: rows["samples"].append(dict(rows["samples"][0])), videos=False)
    row = rows_of(key_frame_rows(dataset, "train", "source"))[0]
    assert row["labels"] == [[12, 17]]
    matrix = label_matrix([*row["labels"], []], MICROG_50)
    assert matrix.shape == (2, 50)
    assert [np.flatnonzero(part).tolist() for part in matrix] == [[9, 11], []]
    assert matrix.dtype == np.float32


def test_an_action_outside_the_label_space_is_named(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, lambda rows: rows["samples"][1].update(action_id=2), videos=False)
    rows = key_frame_rows(dataset, "train", "source")
    with pytest.raises(DatasetError, match="filmA_000:6 has action id 2, which label space microg50 has not"):
        check_labels(rows, MICROG_50)


def test_a_clip_without_a_video_has_no_uri(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, lambda rows: rows["clips"][0].pop("uri"), videos=False)
    assert rows_of(key_frame_rows(dataset, "train", "source"))[0]["uri"] is None


def test_a_train_ready_folder_gives_the_same_key_frames_from_its_frames(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "set")
    formats.write("ava", dataset, str(tmp_path / "ava"), split="source", frames=True)
    expected = read_key_frames(str(tmp_path / "set"), "train", "source")
    found = read_key_frames(str(tmp_path / "ava"), "train")
    assert found.rows.drop_columns(["uri"]) == expected.rows.drop_columns(["uri"])
    assert rows_of(found.rows)[0]["uri"] == f"{tmp_path}/ava/frames/filmA_000/"
    assert storage.exists(rows_of(found.rows)[0]["uri"])
    assert read_key_frames(str(tmp_path / "ava"), "all").rows.num_rows == 4
    assert found.fingerprint != read_key_frames(str(tmp_path / "ava"), "val").fingerprint


def test_a_folder_that_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="neither a dataset"):
        read_key_frames(str(tmp_path), "test")
    (tmp_path / "annotations").mkdir()
    with pytest.raises(FormatError, match="has no annotations"):
        read_key_frames(str(tmp_path), "test")


def test_the_reference_split_has_its_counts(oracles: Path) -> None:
    import pandas as pd

    from microg.data.key_frames import group_samples

    truth = pd.read_csv(oracles / "har_scores/gt_test.csv.gz").rename(columns={"video_id": "clip_id"})
    samples = schema.conform(
        "samples", pa.Table.from_pandas(truth, preserve_index=False).select(schema.TABLES["samples"].names)
    )
    rows = group_samples(samples, {}, {})
    assert rows.num_rows == 1091
    assert sum(len(people) for people in rows["person_id"].to_pylist()) == 1136
    assert len(set(rows["clip_id"].to_pylist())) == 953
