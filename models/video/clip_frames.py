"""Chosen frames of a clip, from a video or from a folder of JPEGs as the train-ready AVA layout has them.

Decoding dominates what a sample costs, so of a video only what the chosen frames need is decoded: from the last key
frame before the first of them, and without frames that no other frame refers to.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import av
import cv2
import numpy as np

from microg import storage
from microg.errors import VideoAccessError, VideoError
from microg.formats.ava import relative_path
from microg.video import count_frames, decode_frames_at, is_indexed, open_video, upright_rgb

_REMOTE_READERS = 8
# More than any codec delays a frame: after so many further packets, the display order of earlier ones is known.
_MOST_REORDERED = 32


def read_clip_frames(uri: str, wanted: Iterable[int]) -> dict[int, np.ndarray]:
    """Return frames by their 0-based number, upright, as (H, W, 3) uint8 RGB.

    A `uri` that ends in "/" is a folder `{clip_id}/` with `{clip_id}_000001.jpg` and so on. Raises `VideoError` when
    one of the frames is not there or cannot be decoded, and `VideoAccessError` when the file cannot be reached.
    """
    numbers = sorted(set(wanted))
    found = _read_folder(uri, numbers) if uri.endswith("/") else _read_video(uri, numbers)
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

    def read(self, uri: str, wanted: Iterable[int], *, clips: int) -> dict[int, np.ndarray]:
        """Return what `read_clip_frames` gave for the same request before, or read it; the arrays must not be changed.

        Nothing is kept of a dataset whose `clips` would not all fit: they would push each other out before they are
        asked for again.
        """
        key = (uri, tuple(sorted(set(wanted))))
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        found = read_clip_frames(uri, key[1])
        if clips * _bytes(found) > self._limit:
            return found
        self._kept[key] = found
        self._size += _bytes(found)
        while self._size > self._limit:
            self._size -= _bytes(self._kept.popitem(last=False)[1])
        return found


def _bytes(frames: dict[int, np.ndarray]) -> int:
    return sum(frame.nbytes for frame in frames.values())


def _read_video(uri: str, numbers: Sequence[int]) -> dict[int, np.ndarray]:
    """Decode what is needed of a video whose packets tell their times; of any other, all up to the last frame."""
    found: dict[int, np.ndarray] = {}
    with open_video(uri) as (container, stream):
        packets, times = [], []
        if is_indexed(container):
            packets, times = needed_packets(container, stream, numbers[0], numbers[-1] + _MOST_REORDERED)
        shown = sorted(times)
        wanted = {shown[number]: number for number in numbers if number < len(shown)}
        if len(wanted) == len(numbers) and len(set(times)) == len(times):
            context = stream.codec_context
            for packet in [*packets, None]:
                context.skip_frame = "DEFAULT" if packet is None or packet.pts in wanted else "NONREF"
                for frame in context.decode(packet):
                    if frame.pts in wanted:
                        found[wanted[frame.pts]] = upright_rgb(frame)
                if len(found) == len(numbers):
                    return found
    return decode_frames_at(uri, numbers, upright_rgb)[1]


def needed_packets(container: Any, stream: Any, first: int, last: int) -> tuple[list[av.Packet], list[int]]:
    """Return the packets needed to decode frames `first` to `last`, and the times of all packets up to there.

    Packets before the last key frame that comes safely before `first` are dropped. Both lists are empty when packets
    do not tell their times.
    """
    packets: list[av.Packet] = []
    times: list[int] = []
    for packet in container.demux(stream):
        if not packet.size:
            continue
        if packet.pts is None:
            return [], []
        if packet.is_keyframe and len(times) <= first - _MOST_REORDERED:
            packets.clear()
        packets.append(packet)
        if not packet.is_discard:
            times.append(packet.pts)
        if len(times) > last:
            break
    return packets, times


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
