"""Two annotators' people: overlap, ids over time, and people that only one of them has."""

from __future__ import annotations

import pytest

from microg.annotations.boxes import Tracks
from microg.metrics.agreement.boxes import box_scores, compare_tracks
from microg.metrics.agreement.scores import Scorer


def track(frames: range, x: float = 0.0, size: float = 10.0) -> dict:
    return dict.fromkeys(frames, (x, 0.0, x + size, size, None))


def test_people_are_matched_whatever_their_ids_and_strangers_are_counted():
    first: Tracks = {1: track(range(1, 11)), 2: track(range(1, 11), 100)}
    second: Tracks = {7: track(range(1, 11), 100), 8: track(range(1, 11), 5), 9: track(range(1, 11), 300)}
    found = compare_tracks(first, second)
    assert (found.matched, found.only_first, found.only_second) == (2, 0, 1)
    assert found.frames == 20
    assert found.overlap == pytest.approx(10 * 1 + 10 * 50 / 150)  # equal boxes, and half shifted ones
    assert (found.same_box, found.same_id, found.boxes) == (10, 10, 50)


def test_ids_that_change_half_way_agree_half():
    first: Tracks = {1: track(range(1, 11)), 2: track(range(1, 11), 100)}
    swapped: Tracks = {
        1: track(range(1, 6)) | track(range(6, 11), 100),
        2: track(range(1, 6), 100) | track(range(6, 11)),
    }
    found = compare_tracks(first, swapped)
    assert (found.same_box, found.same_id) == (20, 10)
    scores = {
        each.metric: each for each in box_scores({"a_000": {"anna": first, "ben": swapped}}, {"a_000": 0}, _one())
    }
    assert scores["id_agreement"].value == 0.5
    assert scores["idf1"].value == 0.5
    assert scores["box_f1"].value == 1


def test_two_who_left_nobody_have_no_overlap_to_measure():
    scores = {each.metric: each for each in box_scores({"a_000": {"anna": {}, "ben": {}}}, {"a_000": 0}, _one())}
    assert (scores["iou"].value, scores["idf1"].value) == (None, None)
    assert "no matched people" in scores["iou"].reason


def _one() -> Scorer:
    return Scorer("box", 1)
