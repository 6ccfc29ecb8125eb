"""Chosen frames of a clip, from a video or from a folder of JPEGs as the train-ready AVA layout has them."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np

from microg import storage
from microg.errors import VideoAccessError, VideoError
from microg.formats.ava_frames import relative_path
from microg.frames import count_frames, read_frames

_REMOTE_READERS = 8


def read_clip(uri: str, wanted: Iterable[int]) -> dict[int, np.ndarray]:
    """Return frames by their 0-based number, upright, as (H, W, 3) uint8 RGB.

    A `uri` that ends in "/" is a folder `{clip_id}/` with `{clip_id}_000001.jpg` and so on. Raises `VideoError` when
    one of the frames is not there or cannot be decoded, and `VideoAccessError` when the file cannot be reached.
    """
    numbers = sorted(set(wanted))
    found = _read_folder(uri, numbers) if uri.endswith("/") else read_frames(uri, numbers, _rgb)[1]
    missing = [number for number in numbers if number not in found]
    if missing:
        raise VideoError(f"{uri} ends before frame {missing[0] + 1}", "correct num_frames in table 'clips'")
    return found


def clip_length(uri: str) -> int:
    """Return how many frames a video or a folder of JPEGs has. Raises as `read_clip`."""
    if not uri.endswith("/"):
        return count_frames(uri)
    fs, path = storage.filesystem(uri)
    count = sum(name.endswith(".jpg") for name in fs.ls(path, detail=False)) if fs.exists(path) else 0
    if not count:
        raise VideoAccessError(f"{uri} holds no frames")
    return count


def _rgb(frame: Any) -> np.ndarray:
    # PyAV leaves the display rotation (degrees counter-clockwise) to the caller.
    image = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(image, k=turn)) if (turn := frame.rotation // 90 % 4) else image


def _read_folder(uri: str, numbers: list[int]) -> dict[int, np.ndarray]:
    folder = uri.rstrip("/")
    parent, _, clip_id = folder.rpartition("/")
    paths = {number: storage.join(parent, relative_path(clip_id, number + 1)) for number in numbers}
    if storage.is_local(uri):
        return {number: _read_jpeg(path) for number, path in paths.items()}
    with ThreadPoolExecutor(_REMOTE_READERS) as pool:
        return dict(zip(numbers, pool.map(_read_jpeg, paths.values()), strict=True))


def _read_jpeg(path: str) -> np.ndarray:
    try:
        data = storage.read_bytes(path)
    except OSError as error:
        raise VideoAccessError(f"{path} cannot be read: {error}") from error
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise VideoError(f"{path} is no picture")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
