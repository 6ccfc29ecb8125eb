"""Chosen frames of a clip, from a video or from a folder of JPEGs as the train-ready AVA layout has them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from microg import storage
from microg.errors import VideoAccessError, VideoError
from microg.formats.ava import relative_path
from microg.models.video.decoders.registry import open_decoder
from microg.video import count_frames

_REMOTE_READERS = 8


def read_clip_frames(uri: str, wanted: Iterable[int], decoder: str = "auto") -> dict[int, np.ndarray]:
    """Return frames by their 0-based number, upright, as (H, W, 3) uint8 RGB; `decoder` reads those of a video.

    A `uri` that ends in "/" is a folder `{clip_id}/` with `{clip_id}_000001.jpg` and so on. Raises `VideoError` when
    one of the frames is not there or cannot be decoded, and `VideoAccessError` when the file cannot be reached.
    """
    numbers = sorted(set(wanted))
    found = _read_folder(uri, numbers) if uri.endswith("/") else open_decoder(decoder).frames_at(uri, numbers)
    missing = [number for number in numbers if number not in found]
    if missing:
        raise VideoError(f"{uri} ends before frame {missing[0] + 1}", "correct num_frames in table 'clips'")
    return found


def count_clip_frames(uri: str) -> int:
    """Return how many frames a video or a folder of JPEGs has. Raises as `read_clip_frames`."""
    if not uri.endswith("/"):
        return count_frames(uri)
    fs, path = storage.filesystem(uri)
    count = sum(name.endswith(".jpg") for name in fs.ls(path, detail=False)) if fs.exists(path) else 0
    if not count:
        raise VideoAccessError(f"{uri} holds no frames")
    return count


class FrameCache:
    """Keeps the frames of small datasets between epochs, up to `limit` bytes; the least recently used go first."""

    def __init__(self, limit: int) -> None:
        self._limit, self._size = limit, 0
        self._kept: OrderedDict[tuple[str, tuple[int, ...]], dict[int, np.ndarray]] = OrderedDict()

    def read(self, uri: str, wanted: Iterable[int], *, clips: int, decoder: str = "auto") -> dict[int, np.ndarray]:
        """Return what `read_clip_frames` gave for the same request before, or read it; the arrays must not be changed.

        Nothing is kept of a dataset whose `clips` would not all fit: they would push each other out before they are
        asked for again.
        """
        key = (uri, tuple(sorted(set(wanted))))
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        found = read_clip_frames(uri, key[1], decoder)
        if clips * _bytes(found) > self._limit:
            return found
        self._kept[key] = found
        self._size += _bytes(found)
        while self._size > self._limit:
            self._size -= _bytes(self._kept.popitem(last=False)[1])
        return found


def _bytes(frames: dict[int, np.ndarray]) -> int:
    return sum(frame.nbytes for frame in frames.values())


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
