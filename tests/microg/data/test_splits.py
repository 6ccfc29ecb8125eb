"""The published split, exactly, and the split without leakage."""

from __future__ import annotations

import csv
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microg.data import schema, taxonomy
from microg.data.ids import split_clip_id
from microg.data.splits import describe_split, greedy_cover, make_samples, make_split, published_split, source_split
from microg.errors import DatasetError
from tests.support.annotations import many_samples, oracle_tables


def homes(splits: pa.Table) -> dict[str, str]:
    return dict(zip(splits["clip_id"].to_pylist(), splits["split"].to_pylist(), strict=True))


def test_the_published_split_is_the_reference_split(oracles: Path) -> None:
    tables = oracle_tables(oracles)
    found = homes(published_split(make_samples(tables["boxes"], tables["clips"], tables["actions"])))
    expected = {}
    for split in schema.SPLITS:
        with (oracles / f"curation/ava/output/ava_dataset/ava_{split}.csv").open(newline="") as file:
            expected |= {row[0]: split for row in csv.reader(file)}
    assert found == expected


def test_the_published_sizes_come_out_for_the_published_number_of_clips() -> None:
    samples, clips = many_samples({f"s{number}": 80 for number in range(59)} | {"rest": 39}, actions=50)
    facts = describe_split(published_split(samples), samples, clips)
    assert facts["clips"] == {"train": 3331, "val": 475, "test": 953}
    assert facts["absent_actions"]["train"] == []
    assert facts["leaking_sources"] > 50


def test_covering_takes_the_largest_gain_then_the_first_in_order() -> None:
    assert greedy_cover({"a": [1, 2], "b": [3, 4], "c": [1, 2, 3], "d": [4]}) == ["c", "b"]
    assert greedy_cover({"b": [1], "a": [1]}) == ["b"]
    assert greedy_cover({"big": [1], "small": [1]}, {"big": 9, "small": 2}) == ["small"]
    assert greedy_cover({"a": []}) == []


def test_the_seed_changes_the_shuffle_and_nothing_else_does() -> None:
    samples, clips = many_samples({f"s{number}": 5 for number in range(12)}, actions=8)
    shuffled = samples.take(list(reversed(range(samples.num_rows))))
    for scheme in ("published", "source"):
        first = make_split(scheme, samples, clips, seed=42)
        assert first.equals(make_split(scheme, shuffled, clips, seed=42))
        assert not first.equals(make_split(scheme, samples, clips, seed=43))


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.sampled_from([f"s{n}" for n in range(14)]), st.integers(1, 9), min_size=1),
    st.integers(2, 12),
    st.integers(0, 1000),
)
def test_a_source_split_never_leaks_and_covers_every_action_in_train_where_sources_allow(
    sources: dict[str, int], actions: int, seed: int
) -> None:
    samples, clips = many_samples(sources, actions, seed)
    split = source_split(samples, clips, seed=seed)
    by_source: dict[str, set[str]] = {}
    for clip_id, home in homes(split).items():
        by_source.setdefault(split_clip_id(clip_id)[0], set()).add(home)
    assert all(len(found) == 1 for found in by_source.values())
    assert set(homes(split)) == set(samples["clip_id"].to_pylist())
    facts = describe_split(split, samples, clips)
    outside_train = sum(found != {"train"} for found in by_source.values())
    assert facts["absent_actions"]["train"] == [] or outside_train == 2  # val and test hold one source each
    assert facts["leaking_sources"] == 0


def test_a_source_split_of_many_uneven_sources_is_close_to_70_10_20() -> None:
    samples, clips = many_samples({f"s{number}": 4 + number**2 // 8 for number in range(48)}, actions=50)
    facts = describe_split(source_split(samples, clips), samples, clips)
    for split, wanted in zip(schema.SPLITS, (0.7, 0.1, 0.2), strict=True):
        assert facts["share"][split] == pytest.approx(wanted, abs=0.02)


def test_an_action_of_one_source_only_pulls_that_source_into_train() -> None:
    rows = [("rare_000", 5), *((f"s{n}_000", 1) for n in range(9))]
    samples = schema.from_rows("samples", [{"clip_id": c, "person_id": 1, "action_id": a} for c, a in rows])
    for seed in range(5):
        assert homes(source_split(samples, schema.empty("clips"), seed=seed))["rare_000"] == "train"


def test_the_source_comes_from_the_clips_table_where_it_says_more_than_the_id() -> None:
    samples, clips = many_samples({f"s{n}": 1 for n in range(10)}, actions=3)
    joined = clips.set_column(1, "source_id", pa.array(["one"] * 5 + ["two"] * 5))
    assert len(set(list(homes(source_split(samples, joined)).values())[:5])) == 1


def test_unlabelled_clips_are_in_no_split_unless_nothing_is_labelled() -> None:
    rows = [{"clip_id": f"s_{n:03d}", "person_id": 1, "action_id": 1 if n < 6 else None} for n in range(10)]
    assert len(homes(published_split(schema.from_rows("samples", rows)))) == 6
    bare = [{**row, "action_id": None} for row in rows]
    assert len(homes(published_split(schema.from_rows("samples", bare)))) == 10


def test_nothing_to_split_and_unknown_schemes_are_errors() -> None:
    with pytest.raises(DatasetError, match="nothing to split"):
        published_split(schema.empty("samples"))
    with pytest.raises(DatasetError, match="random"):
        make_split("random", schema.empty("samples"), schema.empty("clips"))


@pytest.mark.parametrize("sources", [3, 4, 7])
def test_source_split_leaves_no_split_empty_though_every_source_has_an_action_of_its_own(sources: int) -> None:
    rows = [
        {"clip_id": f"s{source}_{k:03d}", "frame": 45, "person_id": 1, "action_id": taxonomy.ACTION_IDS[source]}
        for source in range(sources)
        for k in range(4)
    ]
    clips = [{"clip_id": row["clip_id"], "source_id": row["clip_id"][:2]} for row in rows]
    split = source_split(schema.from_rows("samples", rows), schema.from_rows("clips", clips))
    homes = {(clip[:2], name) for clip, name in zip(*(split[c].to_pylist() for c in ("clip_id", "split")), strict=True)}
    assert len(homes) == sources
    assert {name for _, name in homes} == {"train", "val", "test"}
