"""From decoded frames to what an action model is shown: which frames, scaling, cropping, flipping, and the boxes' part.

Matches the reference (PySlowFast's AVA loader with its OpenCV backend, as the paper ran it) to the pixel, quirks
included: both box axes are scaled by the one ratio of the long sides, a crop's last offset is never drawn, and nothing
is resized when the short side is right already. Frames are (H, W, 3) uint8; channels are independent, so RGB stays RGB.
Boxes come in normalised and leave in pixels of the clip, clipped to [0, w - 1] x [0, h - 1].
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import cv2
import numpy as np

from microg.errors import ConfigError

_FLIP_PROBABILITY = 0.5

Frames = Sequence[np.ndarray] | np.ndarray


def frame_indices(center: int, frames: int, sampling_rate: int, num_frames: int) -> np.ndarray:
    """Return the 0-based frames (frames,) int64 of a clip around `center`, clamped to the video.

    `center` is the key frame's number as the annotations have it, which the reference takes for a 0-based index.

    >>> frame_indices(10, 4, 8, 90).tolist(), frame_indices(2, 4, 2, 4).tolist()
    ([0, 2, 10, 18], [0, 0, 2, 3])
    """
    start = center - frames * sampling_rate // 2
    return np.clip(start + sampling_rate * np.arange(frames, dtype=np.int64), 0, num_frames - 1)


def augmentation(seed: int, epoch: int, key: str) -> np.random.Generator:
    """Return the random numbers that augment sample `key` in `epoch`: the same ones on any worker, in any order."""
    return np.random.default_rng((seed, epoch, int.from_bytes(hashlib.sha256(key.encode()).digest()[:8])))


def train_geometry(
    frames: Frames, boxes: np.ndarray, *, crop: int, jitter: tuple[int, int], random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Scale the short side to 1 / uniform(1 / max, 1 / min) pixels of `jitter`, crop a random square, flip half of all.

    Returns (T, crop, crop, 3) uint8 and (B, 4) float32. Numbers are drawn from `random` in the reference's order:
    size, y, x, flip. Raises `ConfigError` when the crop does not fit the smallest size.
    """
    smallest, largest = jitter
    if not 0 < crop <= smallest <= largest:
        raise ConfigError(f"a crop of {crop} pixels does not fit frames of short side {smallest} to {largest}")
    size = round(1.0 / random.uniform(1.0 / largest, 1.0 / smallest))
    height, width = frames[0].shape[:2]
    scaled_height, scaled_width = scaled_size(height, width, size)
    box = _pixels(boxes, height, width)
    # this order of operations, as in the reference: here the product is divided, in `_evaluation` the ratio multiplied
    new, old = _long_sides(height, width, scaled_height, scaled_width)
    box = box * float(new) / old
    y, x = (int(random.integers(0, side - crop)) if side > crop else 0 for side in (scaled_height, scaled_width))
    box -= (x, y, x, y)
    flip = random.uniform() < _FLIP_PROBABILITY
    if flip:
        box = np.stack([crop - box[:, 2] - 1, box[:, 1], crop - box[:, 0] - 1, box[:, 3]], axis=1)
    clip = _rendered(frames, (scaled_height, scaled_width), (y, x), (crop, crop), flip)
    return clip, _clipped(box, crop, crop).astype(np.float32)


def val_geometry(frames: Frames, boxes: np.ndarray, *, short_side: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale the short side to `short_side` and crop the square in the middle; see `test_geometry`."""
    return _evaluation(frames, boxes, short_side, square=True)


def test_geometry(frames: Frames, boxes: np.ndarray, *, short_side: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale the short side to `short_side`, the other side in proportion, rounded down; nothing is cropped.

    Returns (T, h, w, 3) uint8 and (B, 4) float32.
    """
    return _evaluation(frames, boxes, short_side, square=False)


def scaled_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return (height, width) after scaling.

    >>> scaled_size(480, 854, 256), scaled_size(256, 300, 256), scaled_size(854, 480, 256)
    ((256, 455), (256, 300), (455, 256))
    """
    if min(height, width) == short_side:
        return height, width
    if width < height:
        return math.floor(height / width * short_side), short_side
    return short_side, math.floor(width / height * short_side)


def _evaluation(frames: Frames, boxes: np.ndarray, short_side: int, *, square: bool) -> tuple[np.ndarray, np.ndarray]:
    height, width = frames[0].shape[:2]
    scaled = scaled_size(height, width, short_side)
    new, old = _long_sides(height, width, *scaled)
    box = _pixels(boxes, height, width) * (float(new) / old)
    size, (y, x) = scaled, (0, 0)
    if square:
        size = (short_side, short_side)
        y, x = (math.ceil((side - short_side) / 2) for side in scaled)
        box -= (x, y, x, y)
    return _rendered(frames, scaled, (y, x), size, False), _clipped(box, *size).astype(np.float32)


def _long_sides(height: int, width: int, scaled_height: int, scaled_width: int) -> tuple[int, int]:
    return (scaled_height, height) if width < height else (scaled_width, width)


def _pixels(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    box = np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * (width, height, width, height)
    return _clipped(box, height, width)


def _clipped(box: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.minimum(np.maximum(box, 0.0), np.array([width - 1.0, height - 1.0] * 2))


def _rendered(
    frames: Frames, scaled: tuple[int, int], offset: tuple[int, int], size: tuple[int, int], flip: bool
) -> np.ndarray:
    """Scale, crop and flip each frame into one contiguous clip."""
    (height, width), (y, x), (h, w) = scaled, offset, size
    clip = np.empty((len(frames), h, w, 3), dtype=np.uint8)
    for target, frame in zip(clip, frames, strict=True):
        if frame.shape[:2] != (height, width):
            frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
        part = frame[y : y + h, x : x + w]
        target[:] = part[:, ::-1] if flip else part
    return clip
