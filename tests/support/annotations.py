"""Annotation tables for tests of formats, samples and splits: small ones made here, and those of the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from hypothesis import strategies as st

from microg.data import schema
from microg.data.ids import split_clip_id
from microg.data.taxonomy import ACTION_IDS
from microg.formats.base import new_clips

WIDTH, HEIGHT, FRAMES = 854, 480, 30

# Frame sizes of the oracle's clips that clips.csv does not list: the only ones that give back its normalised boxes.
_MORE_SIZES = {
    "kin_pancake_000": (852, 480),
    "kin_pancake_002": (852, 480),
    "dancer_000": (502, 480),
    "dancer_003": (502, 480),
    "raw60_000": (518, 496),
    "pianist_001": (640, 480),
}


def small_tables() -> dict[str, pa.Table]:
    """Two annotated clips and a bare one; held, moving and interrupted tracks; decimals; texts with quotes."""
    clips = new_clips(
        ["my_film-2_007", "Tour_000", "Tour_012"],
        origin=["movie", "real", "real"],
        fps=[30.0] * 3,
        num_frames=[FRAMES] * 3,
        width=[WIDTH] * 3,
        height=[HEIGHT] * 3,
        duration_s=[1.0] * 3,
    )
    boxes = [_box("my_film-2_007", frame, 1, (10, 20, 110, 220)) for frame in range(5, 15)]
    boxes += [_box("my_film-2_007", frame, 1, (12, 20, 112, 220)) for frame in (20, 21, 22)]
    boxes += [_box("my_film-2_007", frame, 4, (300 + frame, 0, 480 + 2 * frame, 480)) for frame in range(1, FRAMES + 1)]
    boxes += [_box("Tour_000", frame, 2, (0.125 * frame, 10.3, 99.9 + frame, 200.7)) for frame in range(3, 9)]
    boxes += [_box("Tour_000", 30, 2, (1, 2, 3, 4))]
    actions = [("my_film-2_007", 1, 12), ("my_film-2_007", 1, 61), ("my_film-2_007", 4, 79), ("Tour_000", 2, 38)]
    qa = [
        {"clip_id": "Tour_000", "qa_index": i, "question": f'Who says "hé" <{i}>?', "answer": f"Line,\n{i} & co"}
        for i in range(6)
    ]
    return {
        "clips": clips,
        "boxes": schema.from_rows("boxes", boxes),
        "actions": schema.from_rows("actions", [{"clip_id": c, "person_id": p, "action_id": a} for c, p, a in actions]),
        "captions": schema.from_rows("captions", [{"clip_id": "Tour_000", "caption": 'She says: "ø", twice.'}]),
        "qa": schema.from_rows("qa", qa),
    }


def _box(clip_id: str, frame: int, person_id: int, corners: tuple[float, ...]) -> dict[str, Any]:
    names = dict(zip(("x1", "y1", "x2", "y2"), map(float, corners), strict=True))
    return {"clip_id": clip_id, "frame": frame, "person_id": person_id, **names}


def rows(table: pa.Table, drop: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Return a table's rows in a fixed order, to compare what has no order."""
    kept = table.drop_columns(list(drop)) if drop else table
    return sorted(kept.to_pylist(), key=lambda row: [str(row[name]).rjust(12, "0") for name in kept.column_names])


def coordinates() -> st.SearchStrategy[float]:
    """Pixel coordinates, inside and outside the frame, whole and not."""
    return st.one_of(st.integers(-50, 900).map(float), st.floats(-100, 2000, allow_nan=False))


@st.composite
def corners(draw: st.DrawFn) -> tuple[float, float, float, float]:
    """Corners of a box that has a size, whole pixels and not."""
    sizes = st.one_of(st.integers(1, 900).map(float), st.floats(0.01, 2000))
    left, top = draw(coordinates()), draw(coordinates())
    return left, top, left + draw(sizes), top + draw(sizes)


@st.composite
def tracked_tables(draw: st.DrawFn) -> dict[str, pa.Table]:
    """One clip with up to three people, any boxes on any frames, and any actions."""
    boxes, actions = [], []
    for person_id in draw(st.sets(st.integers(1, 40), min_size=1, max_size=3)):
        frames = draw(st.sets(st.integers(1, FRAMES), min_size=1, max_size=12))
        palette = draw(st.lists(corners(), min_size=1, max_size=3))
        for frame in sorted(frames):
            boxes.append(_box("clip_a_003", frame, person_id, draw(st.sampled_from(palette))))
            boxes[-1]["confidence"] = draw(st.sampled_from([None, 0.5, 0.9375]))
        for action_id in draw(st.sets(st.sampled_from(ACTION_IDS), max_size=7)):
            actions.append({"clip_id": "clip_a_003", "person_id": person_id, "action_id": action_id})
    size = {"fps": [30.0], "num_frames": [FRAMES], "width": [WIDTH], "height": [HEIGHT]}
    return {
        "clips": new_clips(["clip_a_003"], **size),
        "boxes": schema.from_rows("boxes", boxes),
        "actions": schema.from_rows("actions", actions),
    }


def oracle_tables(oracles: Path) -> dict[str, pa.Table]:
    """The reference conversion's inputs as tables `clips` (two frames each, as its frame lists), `boxes`, `actions`."""
    folder = oracles / "curation" / "ava"
    boxes = pa_csv.read_csv(folder / "bounding_boxes.csv").rename_columns(
        ["clip_id", "frame", "person_id", "x1", "y1", "x2", "y2"]
    )
    actions = pa_csv.read_csv(folder / "actions_final.csv").drop_columns("movie_or_real")
    listed = pa_csv.read_csv(oracles / "curation" / "clips.csv")
    sizes = dict(_MORE_SIZES)
    for clip_id, width, height in zip(*(listed[name].to_pylist() for name in ("clip", "width", "height")), strict=True):
        sizes[clip_id] = (width, height)
    ids = list(dict.fromkeys(boxes["clip_id"].to_pylist()))
    clips = new_clips(
        ids, num_frames=[2] * len(ids), width=[sizes[c][0] for c in ids], height=[sizes[c][1] for c in ids]
    )
    return {
        "clips": clips,
        "boxes": schema.conform("boxes", boxes),
        "actions": schema.conform("actions", actions.rename_columns(["clip_id", "person_id", "action_id"])),
    }


def many_samples(sources: dict[str, int], actions: int, seed: int = 0) -> tuple[pa.Table, pa.Table]:
    """Return samples and clips: `sources` gives clips a source; each clip has two random actions of 1..`actions`."""
    generator = np.random.RandomState(seed)
    ids = [f"{source}_{number:03d}" for source, count in sources.items() for number in range(count)]
    samples = [
        {"clip_id": clip_id, "frame": 1, "person_id": 1, "action_id": int(action_id)}
        for clip_id in ids
        for action_id in generator.choice(np.arange(1, actions + 1), 2, replace=False)
    ]
    assert all(split_clip_id(clip_id)[0] in sources for clip_id in ids)
    return schema.from_rows("samples", samples), new_clips(ids)
