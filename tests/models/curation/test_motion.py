"""How much a clip moves, on patterns moved by known amounts."""

from __future__ import annotations

import csv
import math
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from microg.models.curation.motion import GROUP_FRAMES, MotionMeter, group_starts, motion_level
from microg.video import decode_frames


def squares(shift: tuple[float, float], spots: int = 12) -> np.ndarray:
    """Return a BGR frame of white squares on black, all moved by `shift` pixels to the right and down."""
    frame = np.zeros((240, 320), np.uint8)
    generator = np.random.default_rng(5)
    for index in range(spots):
        x, y = 40 + 60 * (index % 4), 40 + 60 * (index // 4)
        side = int(generator.integers(12, 20))
        frame[y : y + side, x : x + side] = 255
    moved = cv2.warpAffine(frame, np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32), (320, 240))
    return np.repeat(cv2.GaussianBlur(moved, (5, 5), 0)[..., None], 3, axis=2)


def measured(frames: list[np.ndarray], num_frames: int | None = None) -> MotionMeter:
    meter = MotionMeter(num_frames or len(frames))
    for frame in frames:
        meter.update(frame)
    return meter


@pytest.mark.parametrize(("dx", "dy"), [(1.0, 0.0), (0.0, 2.0), (3.0, 4.0), (-1.0, 1.0)])
def test_a_translation_counts_its_sides_as_published_and_its_length_as_euclidean(dx: float, dy: float):
    frames = [squares((dx * step, dy * step)) for step in range(5)]
    grey = cv2.cvtColor(frames[0], cv2.COLOR_BGR2GRAY)
    points = len(cv2.goodFeaturesToTrack(grey, 100, 0.3, 7, blockSize=7))
    assert points >= 20
    meter = measured(frames)
    assert meter.published == pytest.approx((abs(dx) + abs(dy)) * points, rel=0.02)
    assert meter.euclidean == pytest.approx(math.hypot(dx, dy) * points, rel=0.02)


def test_motion_outside_the_sampled_frames_does_not_count():
    still, moving = [squares((0, 0))] * GROUP_FRAMES, [squares((2.0 * step, 0)) for step in range(20)]
    assert measured([*still, *moving]).published == pytest.approx(0, abs=1e-3)
    assert measured([*moving, *still]).published > 0


@pytest.mark.parametrize("frames", [[], [squares((0, 0))], [np.zeros((48, 64, 3), np.uint8)] * 5])
def test_without_corners_or_steps_the_value_is_zero_and_motion_low(frames: list[np.ndarray]):
    meter = measured(frames, 90)
    assert (meter.published, meter.euclidean) == (0.0, 0.0)
    assert motion_level(meter.published) == "low"


def test_corners_that_vanish_end_the_measurement():
    frames = [squares((0, 0)), squares((1, 0)), *[np.zeros((240, 320, 3), np.uint8)] * 3]
    assert math.isfinite(measured(frames).published)


def test_a_tenth_of_the_clip_is_sampled_in_evenly_spaced_groups():
    assert group_starts(90) == {0}
    assert group_starts(599) == {0}
    assert group_starts(600) == {0, 300}
    assert group_starts(905) == {0, 301, 602}
    assert group_starts(1) == {0}


def test_motion_is_high_above_95_pixels_a_step():
    assert [motion_level(value) for value in (0.0, 95.0, 95.001)] == ["low", "low", "high"]


def test_motion_of_real_clips_is_that_of_the_reference(oracles: Path):
    with (oracles / "curation" / "clips.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 21
    for row in rows:
        meter = MotionMeter(int(row["frames"]))
        # Of clips this short only the first group is sampled.
        for frame in islice(decode_frames(str(oracles / "curation" / "clips" / f"{row['clip']}.mp4")), GROUP_FRAMES):
            meter.update(frame)
        assert meter.published == pytest.approx(float(row["motion_value"]), abs=1e-3), row["clip"]
        assert motion_level(meter.published) == row["motion_level"], row["clip"]
