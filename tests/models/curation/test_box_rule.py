"""The published rule from tracked boxes to person boxes, and each quirk's fix."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from microg.models.curation.box_rule import (
    CORRECTED,
    PUBLISHED,
    RULES,
    BoxRule,
    PersonBoxes,
    frame_interval,
    person_boxes,
    rule_ladder,
)
from microg.models.curation.tracking import Tracks

SIZE = {"width": 100, "height": 100}
SMALL, MIDDLE, LARGE = (0, 0, 20, 20), (50, 0, 90, 60), (0, 0, 90, 90)  # 4%, 24% and 81% of the frame


def frame(*objects: tuple) -> Tracks:
    """Return one frame's tracks; an object is (track id, box[, confidence[, class]])."""
    filled = [(*item, *(0.9, 0)[len(item) - 2 :]) for item in objects]
    return Tracks(
        boxes=np.array([item[1] for item in filled], np.float32).reshape(-1, 4),
        track_id=np.array([item[0] for item in filled], np.int32),
        confidence=np.array([item[2] for item in filled], np.float32),
        class_id=np.array([item[3] for item in filled], np.int32),
    )


def apply(tracks: list[Tracks], rule: BoxRule = PUBLISHED, level: str = "low", fps: float = 30.0) -> PersonBoxes:
    return person_boxes(tracks, **SIZE, fps=fps, level=level, rule=rule)


def written(found: PersonBoxes) -> dict[int, list[int]]:
    """Return the frames in which each person is written."""
    return {int(person): found.frame[found.person_id == person].tolist() for person in np.unique(found.person_id)}


def without(quirk: str) -> BoxRule:
    return PUBLISHED.replaced(**{quirk: False})


@pytest.mark.parametrize(
    ("fps", "low", "high"),
    [(10, 4, 2), (25, 4, 2), (25.001, 5, 3), (50, 5, 3), (50.1, 10, 6), (100, 10, 6), (100.5, 20, 10), (240, 20, 10)],
)
def test_intervals_by_frame_rate_and_motion(fps: float, low: int, high: int):
    assert (frame_interval(fps, "low"), frame_interval(fps, "high")) == (low, high)


def test_a_person_is_written_from_its_third_processed_frame_on_and_held_in_between():
    assert written(apply([frame((7, MIDDLE))] * 32)) == {1: list(range(15, 33))}
    assert written(apply([frame((7, MIDDLE))] * 32, level="high")) == {1: list(range(6, 33))}
    assert written(apply([frame((7, MIDDLE))] * 14)) == {}


def test_boxes_between_processed_frames_are_those_of_the_processed_one():
    tracks = [frame((1, (50 + k / 10, 0, 90.97, 60), 0.6 + k / 100)) for k in range(1, 23)]
    found = apply(tracks)
    at = {number: (found.boxes[i].tolist(), found.confidence[i]) for i, number in enumerate(found.frame)}
    assert at[15] == at[19] == ([51, 0, 90, 60], pytest.approx(0.75))
    assert at[20] == at[22] == ([52, 0, 90, 60], pytest.approx(0.80))


def test_a_processed_frame_without_persons_clears_the_held_boxes():
    tracks = [frame((1, MIDDLE))] * 30
    tracks[19] = frame()
    assert written(apply(tracks)) == {1: [*range(15, 20), *range(25, 31)]}


def test_a_person_must_be_surer_than_55_percent_but_counts_below():
    tracks = [frame((1, MIDDLE, 0.55))] * 14 + [frame((1, MIDDLE, 0.551))] * 6
    assert written(apply(tracks)) == {1: list(range(15, 21))}
    tracks[14] = frame((1, MIDDLE, 0.55))
    assert written(apply(tracks)) == {1: [20]}


def test_other_classes_take_person_ids_only_in_the_published_rule():
    tracks = [frame((3, (0, 0, 40, 60), 0.9, 56), (8, MIDDLE))] * 20
    assert set(written(apply(tracks))) == {2}
    assert set(written(apply(tracks, without("count_other_classes")))) == {1}


def test_detections_of_another_class_count_for_a_track_only_in_the_published_rule():
    tracks = [frame((1, MIDDLE, 0.9, 56))] * 10 + [frame((1, MIDDLE))] * 15
    assert written(apply(tracks)) == {1: list(range(15, 26))}
    assert written(apply(tracks, without("count_other_classes"))) == {1: [25]}


def test_small_boxes_are_dropped_only_in_the_published_rule():
    tracks = [frame((1, SMALL), (2, MIDDLE))] * 20
    assert set(written(apply(tracks))) == {1}
    assert apply(tracks).boxes[0].tolist() == list(MIDDLE)
    assert set(written(apply(tracks, without("area_floor")))) == {1, 2}


def test_the_area_floor_is_a_tenth_of_the_frame_and_a_fifth_at_high_motion():
    for level, floor in (("low", 10), ("high", 20)):
        assert len(apply([frame((1, (0, 0, 100, floor)))] * 20, level=level)) > 0
        assert len(apply([frame((1, (0, 0, 100, floor - 1)))] * 20, level=level)) == 0
    # The area is that of the truncated box.
    assert len(apply([frame((1, (0.0, 0.0, 99.9, 10.0)))] * 20)) == 0


def test_every_frame_is_its_own_without_skipping_and_needs_as_long_a_presence():
    tracks = [frame((1, (50, 0, 90, 30 + k))) for k in range(1, 31)]
    found = apply(tracks, without("skip_frames"))
    assert written(found) == {1: list(range(15, 31))}
    assert found.boxes[:, 3].tolist() == list(range(45, 61))
    assert written(apply(tracks[:14], without("skip_frames"))) == {}


def test_a_person_seen_often_enough_is_written_from_its_first_frame_without_late_start():
    tracks = [frame((1, MIDDLE))] * 20
    assert written(apply(tracks, without("late_start"))) == {1: list(range(5, 21))}
    assert written(apply(tracks[:14], without("late_start"))) == {}


def test_a_person_larger_than_half_the_frame_is_written_alone_until_it_shrinks_or_leaves():
    both = [frame((1, MIDDLE), (2, LARGE))] * 24
    tracks = [*both, frame((1, MIDDLE), (2, MIDDLE)), *both[:5], *[frame((1, MIDDLE))] * 5]
    alone = written(apply(tracks))
    assert alone[2] == list(range(15, 35))
    assert alone[1] == [*range(25, 30), 35]
    assert written(apply(tracks, without("focus"))) == {1: list(range(15, 36)), 2: list(range(15, 35))}


def test_the_focus_stays_with_its_person_though_another_gets_larger():
    tracks = [frame((1, (0, 0, 80, 80)), (2, LARGE if k > 17 else MIDDLE)) for k in range(1, 31)]
    assert set(written(apply(tracks))) == {1}


def test_the_corrected_rule_has_ids_without_gaps_and_starts_at_the_first_frame():
    tracks = [frame((3, SMALL, 0.9, 56), (8, SMALL), (9, MIDDLE))] * 20
    assert written(apply(tracks, CORRECTED)) == {1: list(range(1, 21)), 2: list(range(1, 21))}


def test_a_clip_without_tracks_has_no_boxes_of_the_right_types():
    for tracks in ([], [frame()] * 30):
        found = apply(tracks)
        assert (len(found), found.boxes.shape) == (0, (0, 4))
        assert (found.frame.dtype, found.person_id.dtype, found.boxes.dtype) == (np.int32, np.int32, np.int32)
        assert found.confidence.dtype == np.float32


def test_rules_are_named_by_what_they_fix():
    assert {name: rule.name for name, rule in RULES.items()} == {"published": "published", "corrected": "corrected"}
    assert without("focus").name == "published without focus"
    ladder = rule_ladder()
    assert (ladder["published"], ladder["corrected"]) == (PUBLISHED, CORRECTED)
    singles = [rule for name, rule in ladder.items() if name.startswith("without ")]
    assert len(singles) == len(ladder) - 2 == len(BoxRule.model_fields) - 1
    assert all(list(rule.model_dump().values()).count(False) == 1 for rule in singles)


def oracle_tracks(oracles: Path, clip: str, frames: int) -> list[Tracks]:
    """Return the reference's tracks of a clip; what it did not track has no id and is left out."""
    with (oracles / "curation" / "tracks" / f"{clip}.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["id"]]
    by_frame: list[list[tuple]] = [[] for _ in range(frames)]
    for row in rows:
        box = tuple(float(row[name]) for name in ("x1", "y1", "x2", "y2"))
        by_frame[int(row["frame"]) - 1].append((int(float(row["id"])), box, float(row["conf"]), int(row["cls"])))
    return [frame(*objects) for objects in by_frame]


def test_rows_of_all_clips_are_those_of_the_reference(oracles: Path):
    with (oracles / "curation" / "bounding_box.csv").open() as file:
        names = ("frame_id", "person_id", "xmin", "ymin", "xmax", "ymax")
        rows: dict[str, list[list[int]]] = {}
        for row in csv.DictReader(file):
            rows.setdefault(row["video_id"].removesuffix(".mp4"), []).append([int(row[name]) for name in names])
    with (oracles / "curation" / "clips.csv").open() as file:
        clips = list(csv.DictReader(file))
    assert len(clips) == 21
    for clip in clips:
        tracks = oracle_tracks(oracles, clip["clip"], int(clip["frames"]))
        fps, level = float(clip["fps"]), clip["motion_level"]
        found = person_boxes(tracks, width=int(clip["width"]), height=int(clip["height"]), fps=fps, level=level)
        table = np.column_stack([found.frame, found.person_id, found.boxes]).tolist()
        assert table == rows.get(clip["clip"], []), clip["clip"]
        assert len(found) == int(clip["bbox_rows"])
        assert str(np.unique(found.person_id).tolist()) == clip["pids"]
        assert str(found.frame[0] if len(found) else "") == clip["first_frame"].removesuffix(".0")
        assert frame_interval(fps, level) == int(clip["frame_interval"])
