from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microg import storage
from microg.data import schema
from microg.data.dataset import Dataset
from microg.errors import DatasetError, IdError


def boxes(*frames: int) -> pa.Table:
    return schema.from_rows(
        "boxes",
        [{"clip_id": "a_001", "frame": f, "person_id": 1, "x1": 0.5, "y1": 1, "x2": 9, "y2": 9.25} for f in frames],
    )


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset.create(str(tmp_path / "d"), "test")


def test_dataset_opens_as_it_was_created(dataset: Dataset):
    dataset.write("boxes", boxes(1, 2))
    again = Dataset.open(dataset.root)
    assert again == dataset
    assert again.table("boxes").equals(boxes(1, 2))
    assert again.has("boxes")
    assert not again.has("qa")
    assert again.table("qa").num_rows == 0
    assert Dataset.create(dataset.root, "other name") == dataset


def test_dataset_lives_on_any_filesystem():
    dataset = Dataset.create("memory://test-dataset/d", "remote")
    dataset.write("boxes", boxes(3))
    assert Dataset.open("memory://test-dataset/d").table("boxes").equals(boxes(3))


@pytest.mark.parametrize("content", [None, "[]", '{"format": "microg-dataset/99"}', "{"])
def test_what_is_not_a_dataset_is_refused(tmp_path: Path, content: str | None):
    if content is not None:
        (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(DatasetError, match="dataset"):
        Dataset.open(str(tmp_path))


def test_unknown_table_column_and_misfit_value_are_named(dataset: Dataset):
    with pytest.raises(DatasetError, match="no table 'persons'"):
        dataset.table("persons")
    with pytest.raises(DatasetError, match="unknown columns \\['colour'\\]"):
        dataset.write("actions", pa.table({"clip_id": ["a"], "colour": ["red"]}))
    with pytest.raises(DatasetError, match="column 'person_id'"):
        dataset.write("actions", pa.table({"clip_id": ["a"], "person_id": ["first"]}))


def test_table_of_an_older_version_gets_null_columns(dataset: Dataset):
    storage.write_parquet(dataset.table_path("captions"), pa.table({"clip_id": ["a_001"]}))
    assert dataset.table("captions").to_pylist() == [{"clip_id": "a_001", "caption": None}]


def test_video_stays_inside_the_dataset(dataset: Dataset):
    assert dataset.video_uri("a_001") == f"{dataset.root}/videos/a_001.mp4"
    with pytest.raises(IdError):
        dataset.video_uri("../a_001")
    assert dataset.resolve("videos/a_001.mp4") == f"{dataset.root}/videos/a_001.mp4"
    assert dataset.resolve("videos/a..mp4") == f"{dataset.root}/videos/a..mp4"
    assert dataset.resolve(f"{dataset.root}/videos/a.mp4") == f"{dataset.root}/videos/a.mp4"
    for uri in ("../a.mp4", "videos/../../a.mp4", ""):
        with pytest.raises(DatasetError):
            dataset.resolve(uri)


def test_only_good_clips_are_kept(dataset: Dataset):
    rows = [{"clip_id": f"a_{i:03d}", "status": s} for i, s in enumerate(["ok", "rejected", "error", None])]
    dataset.write("clips", schema.from_rows("clips", rows))
    assert dataset.kept_clips()["clip_id"].to_pylist() == ["a_000"]


def test_fingerprint_is_of_the_rows_and_not_of_the_file(dataset: Dataset):
    dataset.write("boxes", boxes(1, 2, 3))
    before = dataset.fingerprint()
    dataset.write("boxes", boxes(3, 1, 2))
    assert dataset.fingerprint() == before
    pq.write_table(boxes(2, 3, 1), dataset.table_path("boxes"), compression="none", row_group_size=1)
    assert dataset.fingerprint() == before
    dataset.write("qa", schema.empty("qa"))
    assert dataset.fingerprint() == before


def test_fingerprint_tells_nulls_values_and_tables_apart(dataset: Dataset):
    def of(name: str, rows: list[dict]) -> str:
        dataset.write(name, schema.from_rows(name, rows))
        found = dataset.fingerprint()
        dataset.write(name, schema.empty(name))
        return found

    variants = [
        of("captions", [{"clip_id": "a", "caption": "bc"}]),
        of("captions", [{"clip_id": "ab", "caption": "c"}]),
        of("captions", [{"clip_id": "a", "caption": None}]),
        of("captions", [{"clip_id": "a", "caption": ""}]),
        of("captions", [{"clip_id": "a", "caption": "bc"}] * 2),
        of("actions", [{"clip_id": "a", "person_id": 0}]),
        of("actions", [{"clip_id": "a", "person_id": None}]),
        of("decisions", [{"clip_id": "a", "keep": False}]),
        of("decisions", [{"clip_id": "a", "keep": None}]),
    ]
    assert len(set(variants)) == len(variants)


TEXT = st.one_of(st.none(), st.text("ab\u00e9\U0001f680", max_size=3))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_fingerprint_ignores_any_order(dataset: Dataset, rows: list[tuple], random):
    def fingerprint(ordered: list[tuple]) -> str:
        dataset.write("qa", schema.from_rows("qa", [{"question": a, "answer": b} for a, b in ordered]))
        return dataset.fingerprint()

    shuffled = random.sample(rows, len(rows))
    assert fingerprint(rows) == fingerprint(shuffled)
    assert fingerprint(rows) != fingerprint([*rows[1:], ("another", "row")])
