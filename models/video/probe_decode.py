"""Opening, probing and decoding videos with PyAV.

PyAV is the default decoder because it is self-contained, survives `fork`, and lets one damaged packet be skipped
instead of ending the file. It does not apply rotation metadata and does not choose the best of several streams by
itself: both are done here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import av
import av.container
import cv2
import numpy as np

from microg.errors import VideoError
from microg.video import open_video

_ROTATE = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}


# Longer than any footage; a header that says more is broken, and would make millions of stretches of work.
_LONGEST_S = 1e6
# Containers with an index of their packets by time: a seek lands where it should, and times are the same from
# wherever reading starts. In a transport stream, say, the clock may jump back.
_INDEXED = frozenset({"mov", "mp4", "matroska", "webm"})


@dataclass(frozen=True)
class VideoInfo:
    """What a video's header and its first frame say.

    Width and height are pixels of the upright frame: coded size turned by `rotation`, the degrees (0, 90, 180 or 270)
    by which a frame must be turned anticlockwise to stand upright. `pixel_aspect` is one pixel's width over its height
    as displayed, upright. `fps` is 30 where the header gives no rate; `num_frames` is the header's count, 0 where it
    has none; `first_pts` is the first decodable frame's time in the stream's time base.
    """

    width: int
    height: int
    rotation: int
    fps: float
    num_frames: int
    duration_s: float
    codec: str
    # False where the container stores no presentation times (AVI): frames are then timed by their index.
    has_timestamps: bool
    # Whether reading may start in the middle: only then can a video be cut in several stretches.
    seekable: bool = False
    first_pts: int | None = None
    pixel_aspect: float = 1.0


def probe(uri: str) -> VideoInfo:
    """Read a video's properties; decodes one frame, because only frames tell the rotation.

    Raises `VideoError`, also when no frame can be decoded.
    """
    with open_video(uri) as (container, stream):
        first = next(decode(container, stream, errors=[]), None)
        if first is None:
            raise VideoError(f"{_name(uri)} has no frame that can be decoded")
        fps = float(stream.average_rate or stream.base_rate or stream.guessed_rate or 0)
        if stream.duration and stream.time_base:
            duration = float(stream.duration * stream.time_base)
        else:
            duration = container.duration / av.time_base if container.duration else 0.0
        if duration > _LONGEST_S:
            raise VideoError(f"{_name(uri)} claims to last {duration:.3g} s: its header is damaged")
        rotation = rotation_of(first)
        width, height, aspect = first.width, first.height, float(stream.sample_aspect_ratio or 1)
        if rotation in (90, 270):
            width, height, aspect = height, width, 1 / aspect
        timed = has_timestamps(container) and first.pts is not None
        return VideoInfo(
            width=width,
            height=height,
            rotation=rotation,
            fps=fps or 30.0,
            num_frames=stream.frames,
            duration_s=duration,
            codec=stream.codec_context.name,
            has_timestamps=timed,
            seekable=timed and is_indexed(container),
            first_pts=first.pts if timed else None,
            pixel_aspect=aspect,
        )


def rotation_of(frame: av.VideoFrame) -> int:
    """Return by how many degrees (0, 90, 180, 270) a frame must be turned anticlockwise to stand upright."""
    return round(frame.rotation / 90) % 4 * 90


def is_indexed(container: av.container.InputContainer) -> bool:
    """Tell whether the container has an index by time: its times are true, and the same from wherever one reads."""
    return not _INDEXED.isdisjoint(container.format.name.split(","))


def has_timestamps(container: av.container.InputContainer) -> bool:
    """Tell whether the container stores presentation times (AVI stores none, and PyAV's guesses are out of order)."""
    return container.format.name != "avi"


def decode(
    container: av.container.InputContainer, stream: av.VideoStream, errors: list[str]
) -> Iterator[av.VideoFrame]:
    """Yield the frames of a stream; a damaged packet adds a line to `errors` and is skipped.

    Damage that ends the file ends the iteration, with a line in `errors`.
    """
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.FFmpegError, OSError) as error:
            errors.append(_reason(error))
            return
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            errors.append(_reason(error))
            continue
        for frame in frames:
            if isinstance(frame, av.VideoFrame):
                yield frame


def read_frames(uri: str) -> Iterator[np.ndarray]:
    """Yield the frames of a video in order, upright, as (H, W, 3) uint8 BGR arrays.

    Raises `VideoError` when anything cannot be decoded: a clip is whole or it is an error.
    """
    with open_video(uri) as (container, stream):
        errors: list[str] = []
        for frame in decode(container, stream, errors):
            if errors:
                break
            image = frame.to_ndarray(format="bgr24")
            turn = _ROTATE.get(rotation_of(frame))
            yield image if turn is None else cv2.rotate(image, turn)
        if errors:
            raise VideoError(f"{_name(uri)} is damaged: {errors[0]}")


def _name(uri: str) -> str:
    return uri.rsplit("/", 1)[-1]


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split())
