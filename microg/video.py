"""Single frames of a video, decoded with PyAV, for checks and pictures (pipelines stream whole clips elsewhere)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import av
import numpy as np

from microg import storage
from microg.errors import VideoAccessError, VideoError

T = TypeVar("T")


@dataclass(frozen=True)
class VideoFacts:
    """What a video file says of itself: size in pixels as displayed, frames per second, number of coded frames."""

    width: int
    height: int
    fps: float
    num_frames: int


@contextmanager
def open_video(uri: str) -> Iterator[tuple[Any, Any]]:
    """Open a video on any filesystem; yields (container, best video stream) decoding on one thread.

    Raises `VideoAccessError` when the file cannot be reached, and `VideoError` when it cannot be opened, has no video
    stream, or fails while it is read.
    """
    try:
        if storage.is_local(uri):
            with av.open(str(storage.local_path(uri))) as container:
                yield container, _video_stream(container, uri)
        else:
            fs, path = storage.filesystem(uri)
            with fs.open(path, "rb") as file, av.open(file) as container:
                yield container, _video_stream(container, uri)
    except (PermissionError, FileNotFoundError, ConnectionError, TimeoutError) as error:
        raise VideoAccessError(f"{uri} cannot be read: {error}") from error
    except (av.FFmpegError, OSError, EOFError, ValueError) as error:
        raise VideoError(f"{uri} cannot be read: {error}") from error


def _video_stream(container: Any, uri: str) -> Any:
    stream = container.streams.best("video")
    if stream is None:
        raise VideoError(f"{uri} has no video stream")
    stream.codec_context.thread_count = 1
    return stream


def read_frames(
    uri: str, wanted: Iterable[int], convert: Callable[[Any], T], *, count: bool = False
) -> tuple[VideoFacts, dict[int, T]]:
    """Decode frames by their 0-based number in display order; returns the video's facts and number -> converted frame.

    `convert` gets the PyAV frame. Decoding stops after the last wanted frame; with `count` the rest of the file is
    read without decoding, so that `num_frames` counts coded frames instead of trusting the header, and a file cut
    short is noticed. A wanted frame that the video lacks is left out. Raises `VideoError`.
    """
    missing = set(wanted)
    last = max(missing, default=-1)
    found: dict[int, T] = {}
    packets = number = rotation = 0
    with open_video(uri) as (container, stream):
        for packet in container.demux(stream):
            packets += bool(packet.size)
            if number <= last:
                for frame in packet.decode():
                    rotation = frame.rotation
                    if number in missing:
                        found[number] = convert(frame)
                    number += 1
            elif not count:
                break
        rate = stream.average_rate
        width, height = _displayed(stream.codec_context.width, stream.codec_context.height, rotation)
        num_frames = packets if count else int(stream.frames)
        facts = VideoFacts(width, height, float(rate) if rate else 0.0, num_frames)
    if packets == 0:
        raise VideoError(f"{uri} holds no frames")
    return facts, found


def count_frames(uri: str) -> int:
    """Return the number of coded frames of a video, reading it without decoding. Raises `VideoError`."""
    return read_frames(uri, [], lambda frame: None, count=True)[0].num_frames


def read_rgb(uri: str, number: int) -> np.ndarray:
    """Return one frame (0-based), upright, as (height, width, 3) uint8 RGB. Raises `VideoError` when not there."""
    _, found = read_frames(uri, [number], upright_rgb)
    if number not in found:
        raise VideoError(f"{uri} has no frame {number + 1}")
    return found[number]


def upright_rgb(frame: Any) -> np.ndarray:
    """Return a PyAV frame, upright, as (height, width, 3) uint8 RGB."""
    # PyAV leaves the display rotation (degrees counter-clockwise) to the caller.
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), k=frame.rotation // 90 % 4))


def _displayed(width: int, height: int, rotation: int) -> tuple[int, int]:
    return (height, width) if rotation % 180 else (width, height)
