"""Looking at a frame at four orientations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microg.models.detection.base import Detections
from microg.models.detection.load import RotatingDetector, merge, unrotate


def detections(*rows: Sequence[float]) -> Detections:
    return Detections.from_array(np.array(rows, dtype=np.float32))


@st.composite
def frames_with_a_box(draw: st.DrawFn) -> tuple[int, int, tuple[int, int, int, int]]:
    width, height = draw(st.integers(2, 60)), draw(st.integers(2, 60))
    x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return width, height, (x1, y1, draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height)))


@given(frames_with_a_box(), st.integers(0, 3))
def test_a_box_found_on_a_turned_frame_is_mapped_to_where_it_is(case, turns: int):
    width, height, (x1, y1, x2, y2) = case
    frame = np.zeros((height, width), bool)
    frame[y1:y2, x1:x2] = True
    marked = np.argwhere(np.rot90(frame, turns))
    (top, left), (bottom, right) = marked.min(axis=0), marked.max(axis=0) + 1
    found = detections([left, top, right, bottom, 0.5, 3])
    back = unrotate(found, turns, width=width, height=height)
    assert back.to_array().tolist() == [[x1, y1, x2, y2, 0.5, 3]]


@pytest.mark.parametrize("turns", range(4))
def test_no_boxes_are_mapped_to_no_boxes(turns: int):
    assert unrotate(detections(), turns, width=8, height=6).boxes.shape == (0, 4)


def test_of_views_of_one_object_the_surest_stays():
    views = [
        detections([0, 0, 10, 10, 0.4, 0]),
        detections([1, 0, 11, 10, 0.8, 0]),
        detections(),
        detections([30, 30, 40, 40, 0.2, 0]),
    ]
    assert merge(views, 0.5).to_array().tolist() == pytest.approx(
        np.array([[1, 0, 11, 10, 0.8, 0], [30, 30, 40, 40, 0.2, 0]])
    )


def test_objects_of_different_classes_stay_beside_each_other():
    views = [detections([0, 0, 10, 10, 0.4, 0]), detections([0, 0, 10, 10, 0.8, 5])]
    assert merge(views, 0.5).class_id.tolist() == [5, 0]


def test_overlap_up_to_the_threshold_is_two_objects():
    views = [detections([0, 0, 30, 10, 0.4, 0]), detections([10, 0, 40, 10, 0.8, 0])]  # IoU 0.5
    assert len(merge(views, 0.5)) == 2
    assert len(merge(views, 0.49)) == 1


def test_nothing_found_in_any_view_is_nothing():
    assert merge([detections()] * 4, 0.5).boxes.shape == (0, 4)


class UprightFinder:
    """Finds a bar only where it is light at its top: an object that has an upright orientation."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def detect(self, frames: Sequence[np.ndarray]) -> list[Detections]:
        result = []
        for frame in frames:
            self.shapes.append(frame.shape)
            marked = np.argwhere(frame[..., 0] > 0)
            (top, left), (bottom, right) = marked.min(axis=0), marked.max(axis=0) + 1
            upright = frame[top, left:right, 0].min() == 255 and frame[bottom - 1, left:right, 0].max() < 255
            result.append(detections([left, top, right, bottom, 0.9, 0]) if upright else detections())
        return result


@pytest.mark.parametrize("turns", range(4))
def test_an_object_that_is_only_found_upright_is_found_at_any_turn(turns: int):
    frame = np.zeros((40, 60, 3), np.uint8)
    frame[10:30, 20:26] = 100
    frame[10:12, 20:26] = 255
    turned = np.ascontiguousarray(np.rot90(frame, turns))
    marked = np.argwhere(turned[..., 0] > 0)
    (top, left), (bottom, right) = marked.min(axis=0), marked.max(axis=0) + 1
    finder = UprightFinder()
    found = RotatingDetector(finder).detect([turned, turned])
    assert [item.boxes.tolist() for item in found] == [[[left, top, right, bottom]]] * 2
    assert len(finder.shapes) == 8
    assert len(UprightFinder().detect([turned])[0]) == (turns == 0)


def test_rotations_are_switched_on_by_the_settings(person_weights):
    from microg.models.detection.base import DetectorSettings
    from microg.models.detection.load import load_detector

    detector = load_detector(DetectorSettings(weights=str(person_weights), backend="torch", rotations=4))
    assert isinstance(detector, RotatingDetector)
    found = detector.detect([np.zeros((64, 96, 3), np.uint8)])
    assert [len(item) for item in found] == [0]
