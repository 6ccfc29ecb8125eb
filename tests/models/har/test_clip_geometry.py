"""Frames and geometry of action samples, against plain loops written from the reference's rules."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microg.errors import ConfigError
from microg.models.har import clip_geometry

BOXES = np.array([[0.1, 0.2, 0.5, 0.9], [-0.05, 0.0, 1.2, 1.0], [0.96, 0.9, 0.99, 0.97]])


def picture(height: int, width: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng((height, width)).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def frames_by_loop(center: int, frames: int, rate: int, num_frames: int) -> list[int]:
    half = frames * rate // 2
    result = []
    for index in range(center - half, center + half, rate):
        result.append(0 if index < 0 else num_frames - 1 if index >= num_frames else index)
    return result


def clip_box(box: list[float], height: int, width: int) -> list[float]:
    limits = (width - 1.0, height - 1.0, width - 1.0, height - 1.0)
    return [min(limit, max(0.0, value)) for value, limit in zip(box, limits, strict=True)]


def geometry_by_loop(
    frames: np.ndarray, boxes: np.ndarray, size: int, offset: tuple[int, int] | None, crop: int | None, flip: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Scale to short side `size`, crop at (y, x), flip; frame by frame and box by box."""
    height, width = frames.shape[1:3]
    if min(height, width) == size:
        new_height, new_width = height, width
    elif width < height:
        new_height, new_width = math.floor(float(height) / width * size), size
    else:
        new_height, new_width = size, math.floor(float(width) / height * size)
    ratio = new_height / height if width < height else new_width / width
    clip, found = [], []
    for frame in frames:
        image = frame
        if (new_height, new_width) != (height, width):
            image = cv2.resize(frame, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
        if crop is not None and offset is not None:
            image = image[offset[0] : offset[0] + crop, offset[1] : offset[1] + crop]
        clip.append(cv2.flip(image, 1) if flip else image)
    for box in boxes.tolist():
        pixels = clip_box([box[0] * width, box[1] * height, box[2] * width, box[3] * height], height, width)
        x1, y1, x2, y2 = (value * ratio for value in pixels)
        if offset is not None:
            x1, x2, y1, y2 = x1 - offset[1], x2 - offset[1], y1 - offset[0], y2 - offset[0]
        if flip and crop is not None:
            x1, x2 = crop - x2 - 1, crop - x1 - 1
        found.append(clip_box([x1, y1, x2, y2], *clip[0].shape[:2]))
    return np.stack(clip), np.array(found, np.float32)


class Scripted(np.random.Generator):
    """Random numbers that were written down, and the ranges they were asked from."""

    def __init__(self, uniforms: list[float], offsets: list[int]) -> None:
        super().__init__(np.random.PCG64(0))
        self.uniforms, self.offsets, self.asked = list(uniforms), list(offsets), []

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:  # type: ignore[override]
        self.asked.append((low, high))
        return low + (high - low) * self.uniforms.pop(0)

    def integers(self, low: int, high: int) -> int:  # type: ignore[override]
        self.asked.append((low, high))
        return self.offsets.pop(0)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 120), st.integers(1, 32), st.integers(1, 16), st.integers(1, 100))
def test_frames_follow_the_reference_rule(center: int, frames: int, rate: int, num_frames: int) -> None:
    found = clip_geometry.frame_indices(center, frames, rate, num_frames).tolist()
    expected = frames_by_loop(center, frames, rate, num_frames)
    # an odd number of neighbouring frames has one less in the reference; no published model is so
    assert found[: len(expected)] == expected
    assert len(found) == frames
    assert len(expected) == frames or (rate == 1 and frames % 2)


@pytest.mark.parametrize(("frames", "rate"), [(8, 8), (4, 16), (16, 4), (13, 6), (16, 5), (32, 2)])
def test_every_published_clip_length_gets_its_number_of_frames(frames: int, rate: int) -> None:
    found = clip_geometry.frame_indices(45, frames, rate, 90).tolist()
    assert found == frames_by_loop(45, frames, rate, 90)
    assert len(found) == frames


@pytest.mark.parametrize("shape", [(480, 854), (854, 480), (240, 320), (256, 455), (300, 256), (123, 77)])
@pytest.mark.parametrize("short_side", [256, 182])
def test_test_views_keep_the_full_frame(shape: tuple[int, int], short_side: int) -> None:
    frames = picture(*shape)
    clip, boxes = clip_geometry.test_geometry(frames, BOXES, short_side=short_side)
    expected, expected_boxes = geometry_by_loop(frames, BOXES, short_side, None, None, False)
    np.testing.assert_array_equal(clip, expected)
    np.testing.assert_array_equal(boxes, expected_boxes)


@pytest.mark.parametrize("shape", [(480, 854), (854, 480), (455, 256), (100, 101)])
def test_validation_views_are_the_middle_square(shape: tuple[int, int]) -> None:
    frames = picture(*shape)
    clip, boxes = clip_geometry.val_geometry(frames, BOXES, short_side=224)
    height, width = clip_geometry.scaled_size(*shape, 224)
    offset = math.ceil((height - 224) / 2), math.ceil((width - 224) / 2)
    expected, expected_boxes = geometry_by_loop(frames, BOXES, 224, offset, 224, False)
    np.testing.assert_array_equal(clip, expected)
    np.testing.assert_array_equal(boxes, expected_boxes)


@pytest.mark.parametrize("shape", [(480, 854), (854, 480), (256, 341), (64, 64)])
@pytest.mark.parametrize("flip", [False, True])
def test_training_views_are_jittered_cropped_and_flipped_as_in_the_reference(
    shape: tuple[int, int], flip: bool
) -> None:
    frames = picture(*shape)
    random = Scripted([0.3, 0.1 if flip else 0.9], [7, 11])
    clip, boxes = clip_geometry.train_geometry(frames, BOXES, crop=224, jitter=(256, 320), random=random)
    size = round(1.0 / (1 / 320 + (1 / 256 - 1 / 320) * 0.3))
    expected, expected_boxes = geometry_by_loop(frames, BOXES, size, (7, 11), 224, flip)
    np.testing.assert_array_equal(clip, expected)
    np.testing.assert_array_equal(boxes, expected_boxes)
    height, width = clip_geometry.scaled_size(*shape, size)
    # size, y, x, flip, in this order; the last possible offset is never drawn
    assert random.asked == [(1 / 320, 1 / 256), (0, height - 224), (0, width - 224), (0.0, 1.0)]


def test_a_crop_as_large_as_the_frame_draws_no_offset() -> None:
    random = Scripted([0.5, 0.9], [])
    clip, _ = clip_geometry.train_geometry(picture(90, 90), BOXES, crop=64, jitter=(64, 64), random=random)
    assert clip.shape == (2, 64, 64, 3)
    assert random.asked == [(1 / 64, 1 / 64), (0.0, 1.0)]


def test_sizes_are_drawn_over_the_whole_range_and_half_of_all_clips_flipped() -> None:
    frames = np.zeros((1, 40, 60, 3), np.uint8)
    frames[:, :, :30] = 255
    widths, flipped = set(), 0
    for index in range(200):
        random = clip_geometry.augmentation(0, 0, str(index))
        clip, boxes = clip_geometry.train_geometry(
            frames, np.array([[0.0, 0.0, 1.0, 1.0]]), crop=32, jitter=(32, 40), random=random
        )
        widths.add(round(1 / clip_geometry.augmentation(0, 0, str(index)).uniform(1 / 40, 1 / 32)))
        flipped += int(clip[0, 0, -1, 0] > clip[0, 0, 0, 0])
        assert boxes.min() >= 0
        assert boxes.max() <= 31
    assert widths == set(range(32, 41))
    assert 70 < flipped < 130


def test_augmentation_depends_on_seed_epoch_and_key_only() -> None:
    def draw(*what: int | str) -> float:
        return clip_geometry.augmentation(*what).random()  # type: ignore[arg-type]

    assert draw(1, 2, "a_000:5") == draw(1, 2, "a_000:5")
    assert len({draw(1, 2, "a_000:5"), draw(2, 2, "a_000:5"), draw(1, 3, "a_000:5"), draw(1, 2, "a_000:6")}) == 4


def test_people_may_be_absent() -> None:
    frames, none = picture(40, 60), np.empty((0, 4))
    for boxes in (
        clip_geometry.test_geometry(frames, none, short_side=32)[1],
        clip_geometry.val_geometry(frames, none, short_side=32)[1],
        clip_geometry.train_geometry(
            frames, none, crop=32, jitter=(32, 40), random=clip_geometry.augmentation(0, 0, "a")
        )[1],
    ):
        assert boxes.shape == (0, 4)
        assert boxes.dtype == np.float32


def test_a_crop_larger_than_the_smallest_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not fit"):
        clip_geometry.train_geometry(
            picture(40, 60), BOXES, crop=33, jitter=(32, 40), random=clip_geometry.augmentation(0, 0, "a")
        )
