"""Detection on every n-th frame: which frames are looked at, and what is said of those between."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from microg.models.detection.base import Detections
from microg.models.detection.sparse import detect_every, interpolate


class Numbered:
    """Finds in frame k one box at x = k, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def __call__(self, frames: Sequence[np.ndarray]) -> list[Detections]:
        numbers = [int(frame[0, 0, 0]) for frame in frames]
        self.asked.append(numbers)
        return [of([k, 0, k + 40, 40, 0.5 + k / 100, 0]) for k in numbers]


def of(*rows: Sequence[float]) -> Detections:
    return Detections.from_array(np.array(rows, dtype=np.float32).reshape(-1, 6))


def numbered(count: int) -> list[np.ndarray]:
    return [np.full((2, 2, 3), k, np.uint8) for k in range(count)]


@pytest.mark.parametrize("batch_size", [1, 2, 8])
@pytest.mark.parametrize("step", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [1, 2, 6, 7, 8, 31])
def test_every_nth_frame_and_the_last_are_looked_at_and_steady_movement_is_followed(count, step, batch_size):
    detect = Numbered()
    pairs = list(detect_every(detect, iter(numbered(count)), step=step, batch_size=batch_size))
    assert sorted(number for asked in detect.asked for number in asked) == sorted({*range(0, count, step), count - 1})
    assert all(len(asked) <= batch_size for asked in detect.asked)
    assert [int(frame[0, 0, 0]) for frame, _ in pairs] == list(range(count))
    for k, (_, found) in enumerate(pairs):
        assert found.boxes.tolist() == [pytest.approx([k, 0, k + 40, 40], abs=1e-4)]
        assert found.confidence.tolist() == [pytest.approx(0.5 + k / 100)]


def test_no_frames_ask_for_nothing():
    detect = Numbered()
    assert list(detect_every(detect, iter([]), step=3, batch_size=8)) == []
    assert detect.asked == []


def test_boxes_are_joined_with_the_nearest_of_their_class():
    before = of([0, 0, 10, 10, 0.9, 0], [20, 0, 30, 10, 0.8, 0], [0, 0, 10, 10, 0.7, 5])
    after = of([22, 0, 32, 10, 0.6, 0], [2, 0, 12, 10, 0.55, 0], [4, 0, 14, 10, 0.3, 5])
    found = interpolate(before, after, 0.5)
    assert found.boxes.tolist() == [[1, 0, 11, 10], [21, 0, 31, 10], [2, 0, 12, 10]]
    assert found.confidence.tolist() == pytest.approx([0.725, 0.7, 0.5])
    assert found.class_id.tolist() == [0, 0, 5]


def test_what_only_one_frame_shows_is_there_in_its_half():
    coming, going = [50, 0, 60, 10, 0.9, 0], [0, 0, 10, 10, 0.8, 0]
    assert interpolate(of(going), of(coming), 1 / 3).boxes.tolist() == [going[:4]]
    assert interpolate(of(going), of(coming), 2 / 3).boxes.tolist() == [coming[:4]]
    assert len(interpolate(of(), of(coming), 1 / 3)) == 0
    assert interpolate(of(), of(coming), 2 / 3).boxes.tolist() == [coming[:4]]
    assert len(interpolate(of(), of(), 0.5)) == 0


def test_detections_stay_sorted_by_confidence():
    before, after = of([0, 0, 10, 10, 0.9, 0], [50, 0, 60, 10, 0.6, 0]), of([0, 0, 10, 10, 0.1, 0])
    assert interpolate(before, after, 0.4).confidence.tolist() == pytest.approx([0.6, 0.58])
