"""From tracked boxes to AVA samples, as the reference conversion does it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microg.data import schema
from microg.data.splits import key_boxes, make_samples
from microg.errors import DatasetError
from microg.formats.base import new_clips, write_csv
from tests.support.annotations import oracle_tables


def boxes(frames: list[int], clip_id: str = "a_000", person_id: int = 1) -> pa.Table:
    rows = [
        {"clip_id": clip_id, "frame": frame, "person_id": person_id, "x1": 1.0, "y1": 2.0, "x2": 3.0, "y2": 4.0}
        for frame in frames
    ]
    return schema.from_rows("boxes", rows)


def test_samples_equal_the_reference_conversion_byte_for_byte(oracles: Path, tmp_path: Path) -> None:
    tables = oracle_tables(oracles)
    samples = make_samples(tables["boxes"], tables["clips"], tables["actions"])
    columns = ["clip_id", "frame", "x1", "y1", "x2", "y2", "action_id", "person_id"]
    published = samples.select(columns).rename_columns(
        ["video_id", "frame_stamp", "xmin", "ymin", "xmax", "ymax", "action_id", "person_id"]
    )
    write_csv(str(tmp_path / "ava.csv"), published)
    assert (tmp_path / "ava.csv").read_bytes() == (oracles / "curation/ava/ava_with_head.csv").read_bytes()


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([7], [7]),
        (list(range(15, 91)), [52]),  # median 52.5: two frames are equally close, the first wins
        ([90, 10], [90]),  # the first in the table, not the smallest
        ([1, 2, 3, 80, 90], [3]),
        ([5, 9, 5, 9], [5, 5]),  # a frame stated twice keeps both rows
    ],
)
def test_the_key_frame_is_closest_to_the_median_and_first_on_a_tie(frames: list[int], expected: list[int]) -> None:
    assert key_boxes(boxes(frames))["frame"].to_pylist() == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 3), st.integers(1, 40)), min_size=1, max_size=40))
def test_key_boxes_equal_a_plain_loop_over_people(stated: list[tuple[str, int, int]]) -> None:
    rows = [{"clip_id": f"{clip}_000", "person_id": person, "frame": frame} for clip, person, frame in stated]
    frames_of: dict[tuple[str, int], list[int]] = {}
    for row in rows:
        frames_of.setdefault((row["clip_id"], row["person_id"]), []).append(row["frame"])
    key = {person: min(frames, key=lambda f: abs(f - float(np.median(frames)))) for person, frames in frames_of.items()}
    expected = [row for row in rows if row["frame"] == key[row["clip_id"], row["person_id"]]]
    found = key_boxes(schema.from_rows("boxes", rows)).select(["clip_id", "person_id", "frame"]).to_pylist()
    assert found == expected


def test_unlabelled_people_are_left_out_or_kept_with_a_null_action() -> None:
    both = pa.concat_tables([boxes([1, 2, 3]), boxes([4], person_id=2)])
    clips = new_clips(["a_000"], width=[10], height=[20])
    actions = schema.from_rows("actions", [{"clip_id": "a_000", "person_id": 2, "action_id": 12}])
    assert make_samples(both, clips, actions)["person_id"].to_pylist() == [2]
    kept = make_samples(both, clips, actions, keep_unlabelled=True)
    assert list(zip(kept["person_id"].to_pylist(), kept["action_id"].to_pylist(), strict=True)) == [(1, None), (2, 12)]
    assert kept.select(["x1", "y1", "x2", "y2"]).to_pylist()[0] == {"x1": 0.1, "y1": 0.1, "x2": 0.3, "y2": 0.2}


@pytest.mark.parametrize("size", [{}, {"width": [0], "height": [480]}])
def test_an_unknown_frame_size_is_an_error_that_names_the_clip(size: dict[str, list[int]]) -> None:
    actions = schema.from_rows("actions", [{"clip_id": "a_000", "person_id": 1, "action_id": 12}])
    with pytest.raises(DatasetError, match="a_000"):
        make_samples(boxes([1]), new_clips(["a_000"], **size), actions)


def test_no_boxes_make_no_samples() -> None:
    assert make_samples(schema.empty("boxes"), new_clips(["a_000"]), schema.empty("actions")).num_rows == 0


def cpu_seconds_of_samples(clips: int) -> float:
    frames = 82
    ids = [f"s_{number:04d}" for number in range(clips)]
    corner = np.linspace(0, 400, clips * frames)
    table = pa.table(
        {
            "clip_id": pa.array(ids).take(np.repeat(np.arange(clips), frames)),
            "frame": np.tile(np.arange(1, frames + 1), clips),
            "person_id": np.tile(np.repeat([1, 2], frames // 2), clips),
            **dict.fromkeys(("x1", "y1", "x2", "y2"), corner),
        }
    )
    actions = pa.table({"clip_id": ids, "person_id": [1] * clips, "action_id": [12] * clips})
    started = time.process_time()
    samples = make_samples(
        schema.conform("boxes", table),
        new_clips(ids, width=[854] * clips, height=[480] * clips),
        schema.conform("actions", actions),
    )
    assert samples.num_rows == clips
    return time.process_time() - started


def test_time_grows_as_the_number_of_clips() -> None:
    whole, part = (min(cpu_seconds_of_samples(clips) for _ in range(3)) for clips in (4759, 4759 // 8))
    assert whole < 4 * 8 * part  # were it as the square, it would be 64 times
