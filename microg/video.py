"""Opening, probing and decoding videos with PyAV.

PyAV is self-contained, survives `fork`, and lets one damaged packet be skipped instead of ending the file. It does not
choose one of several streams by itself, and knows no times of AVI files with gaps: both are done here.
"""

from __future__ import annotations

import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any, TypeVar

import av
import av.container
import numpy as np
from av.codec.hwaccel import HWAccel
from av.stream import Disposition

from microg import storage
from microg.errors import NoVideoError, StorageError, VideoAccessError, VideoError, WriteError
from microg.frame_display import UPRIGHT, ColourError, Orientation, orientation_of, to_array
from microg.storage_faults import reading

T = TypeVar("T")

# Longer than any footage; a header that says more is broken, and would make millions of stretches of work.
_LONGEST_S = 1e6
# Of a frame: 8K video and 360 degree panoramas fit; a header that says more would take gigabytes.
MAX_SIDE, MAX_PIXELS = 16_384, 1 << 26
# A read of a local file that takes longer will not end: FFmpeg then gives up.
_NO_PROGRESS_S = 60.0
# Formats that are lists of other files or hosts, or devices. Content decides, not the name: `a.mp4` may be a playlist.
_LISTS = frozenset(
    (
        *("concat", "concatf", "dash", "hls", "imf", "sdp", "webm_dash_manifest"),
        *("rtp", "rtp_mpegts", "rtsp", "sap"),
        *("alsa", "fbdev", "lavfi", "tty", "video4linux2,v4l2", "xcbgrab"),
    )
)
# Containers with an index of their packets by time: a seek lands where it should, and times are the same from
# wherever reading starts. In a transport stream, say, the clock may jump back.
_INDEXED = frozenset({"mov", "mp4", "matroska", "webm"})
# Pictures beside a film or a song: covers, thumbnails of chapters.
_NO_FILM = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a video's header and its first frame say.

    Attributes:
        width: Pixels of the upright frame, as displayed.
        height: As `width`.
        orientation: How a stored frame is made upright.
        pixel_aspect: One pixel's width over its height as displayed, upright.
        fps: Frames per second; 30 where `has_rate` is false.
        has_rate: Whether the header gives a frame rate.
        num_frames: Frames to show, by the header, 0 where it does not say; or as counted in the file's packets. Those
            that an edit list hides are not among them.
        duration_s: Seconds by the header, None where it does not say.
        codec: FFmpeg's name of the codec.
        streams: Video streams in the file, of which one is read.
        one_clock: Whether times run on from start to end; elsewhere (transport streams) a clock may be set on the way.
        seekable: Whether reading may start in the middle: only then can a video be cut in several stretches.
        first_pts: Time of the first decodable frame in the stream's time base; None where frames tell no time.
    """

    width: int
    height: int
    orientation: Orientation
    pixel_aspect: float
    fps: float
    has_rate: bool
    num_frames: int
    duration_s: float | None
    codec: str
    streams: int
    one_clock: bool
    seekable: bool
    first_pts: int | None


@contextmanager
def open_video(uri: str, hwaccel: HWAccel | None = None) -> Iterator[tuple[Any, Any]]:
    """Open a video on any filesystem; yields (container, largest video stream) decoding on one thread, or by `hwaccel`.

    Raises `VideoAccessError` when the file cannot be reached, and `VideoError` when it cannot be opened, has no video
    stream, or none that `hwaccel` decodes, or fails while it is read.
    """
    options: dict[str, Any] = {"hwaccel": hwaccel, "options": _container_options()}
    try:
        if storage.is_local(uri):
            if not stat.S_ISREG(storage.local_path(uri).stat().st_mode):
                raise VideoError(f"{uri} cannot be read: it is no file")  # a pipe would block for ever
            with av.open(str(storage.local_path(uri)), timeout=_NO_PROGRESS_S, **options) as container:
                yield container, _video_stream(container, uri, hwaccel)
        else:
            fs, path = storage.filesystem(uri)
            with reading(uri), fs.open(path, "rb") as file, av.open(file, **options) as container:
                yield container, _video_stream(container, uri, hwaccel)
    except NotImplementedError as error:  # PyAV knows no hardware for the codec
        raise VideoError(f"the GPU does not decode {uri}: {error}") from error
    except WriteError:
        raise
    except ColourError as error:
        raise VideoError(f"{uri} cannot be shown: {error.what}", error.fix) from error
    except (StorageError, PermissionError, FileNotFoundError, ConnectionError, TimeoutError) as error:
        raise VideoAccessError(f"{uri} cannot be read: {error}") from error
    except (av.FFmpegError, OSError, EOFError, ValueError, OverflowError, ArithmeticError, MemoryError) as error:
        storage.refuse_pointer_at(uri, VideoError)
        raise VideoError(f"{uri} cannot be read: {error}") from error


def _video_streams(container: Any) -> list[Any]:
    return [stream for stream in container.streams.video if not stream.disposition & _NO_FILM]


def _video_stream(container: Any, uri: str, hwaccel: HWAccel | None) -> Any:
    """Return the stream with the largest frames; of several the one that the file calls its default, or the first."""
    streams = _video_streams(container)
    if not streams:
        only = ", only an attached picture" if container.streams.video else ""
        raise NoVideoError(f"{uri} has no video stream{only}")
    known = [stream for stream in streams if stream.codec_context is not None]
    if not known:
        raise VideoError(f"{uri} has a video stream of a codec that is not known")
    stream = max(known, key=lambda one: (one.width * one.height, bool(one.disposition & Disposition.default)))
    if hwaccel is not None and not stream.codec_context.is_hwaccel:
        raise VideoError(f"the GPU does not decode the {stream.codec_context.name} of {uri}")
    width, height = stream.codec_context.width, stream.codec_context.height
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise VideoError(
            f"{uri} has frames of {width} x {height} pixels; at most {MAX_SIDE:,} a side and {MAX_PIXELS:,} are read"
        )
    stream.codec_context.thread_count = 1
    # later frames may be of another size: FFmpeg itself looks at each before it takes memory
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


@cache
def _container_options() -> dict[str, str]:
    """Return FFmpeg's options under which a file is read as what it is, and never makes FFmpeg open another one."""
    allowed = av.formats_available - _LISTS
    whitelists = {"format_whitelist": ",".join(sorted(allowed)), "protocol_whitelist": "file"}
    return {**whitelists, "pattern_type": "none"}  # else the name of a picture may stand for many


def probe(uri: str) -> VideoInfo:
    """Read a video's properties; decodes one frame, because only frames tell which side is up.

    Raises `VideoError`, also when no frame can be decoded.
    """
    with open_video(uri) as (container, stream):
        first = next(decode_stream(container, stream, errors=[]), None)
        if first is None:
            raise VideoError(f"{_name(uri)} has no frame that can be decoded")
        info = _info(container, stream, first)
        if info.duration_s is not None and info.duration_s > _LONGEST_S:
            raise VideoError(f"{_name(uri)} claims to last {info.duration_s:.3g} s: its header is damaged")
        return info


def _info(container: Any, stream: Any, first: av.VideoFrame | None, packets: int | None = None) -> VideoInfo:
    """Return a video's properties from its first frame, or from the header alone; `packets` were counted."""
    rate = float(stream.average_rate or stream.base_rate or stream.guessed_rate or 0)
    orientation = UPRIGHT if first is None else orientation_of(first)
    picture = stream.codec_context if first is None else first
    width, height, aspect = picture.width, picture.height, float(stream.sample_aspect_ratio or 1)
    if orientation.sideways:
        width, height, aspect = height, width, 1 / aspect
    timed = first is not None and first.pts is not None
    return VideoInfo(
        width=width,
        height=height,
        orientation=orientation,
        pixel_aspect=aspect,
        fps=rate or 30.0,
        has_rate=rate > 0,
        num_frames=_shown_frames(stream) if packets is None else packets,
        duration_s=_duration(container, stream, first),
        codec=stream.codec_context.name,
        streams=len(_video_streams(container)),
        one_clock=timed and (is_indexed(container) or _counts_slots(container)),
        seekable=timed and is_indexed(container),
        first_pts=first.pts if timed and first is not None else None,
    )


def _shown_frames(stream: Any) -> int:
    """Return the frames that the header promises, without those that an edit list hides, or slots that are empty."""
    stored = int(stream.frames)
    if _counts_slots(stream.container):
        stored = len(stream.index_entries) or stored
    return max(0, stored - sum(entry.is_discard for entry in stream.index_entries))


def _duration(container: Any, stream: Any, first: av.VideoFrame | None) -> float | None:
    seconds = Fraction(container.duration, av.time_base) if container.duration else None
    if stream.duration and stream.time_base:
        seconds = stream.duration * stream.time_base
    if seconds is not None and "matroska" in container.format.name and stream.time_base:
        # Matroska tells the time of its end, and recorders of streams begin at any time.
        start = first.pts * stream.time_base if first is not None and first.pts is not None else 0
        seconds -= start if 0 < start < seconds else 0
    return None if seconds is None else float(seconds)


def _counts_slots(container: Any) -> bool:
    """Tell whether the container is AVI, which stores no times: a packet is due in the slot of its number, and slots
    may be empty.
    """
    return container.format.name == "avi"


def is_indexed(container: av.container.InputContainer) -> bool:
    """Tell whether the container has an index by time: its times are true, and the same from wherever one reads."""
    return not _INDEXED.isdisjoint(container.format.name.split(","))


def decode_stream(
    container: av.container.InputContainer, stream: av.VideoStream, errors: list[str]
) -> Iterator[av.VideoFrame]:
    """Yield the frames of a stream; a damaged packet adds a line to `errors` and is skipped.

    Damage that ends the file ends the iteration, with a line in `errors`.
    """
    packets = container.demux(stream)
    slots: deque[int] | None = deque() if _counts_slots(container) else None
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.FFmpegError, OSError) as error:
            errors.append(_reason(error))
            return
        if slots is not None and packet.size and packet.dts is not None:
            slots.append(packet.dts)
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            errors.append(_reason(error))
            if slots:
                slots.pop()
            continue
        for frame in frames:
            if isinstance(frame, av.VideoFrame):
                if slots:  # frames come in the order of show, and each takes the next slot
                    frame.pts = slots.popleft()
                yield frame


def decode_frames(uri: str, hwaccel: HWAccel | None = None) -> Iterator[np.ndarray]:
    """Yield the frames of a video in order, upright, as (H, W, 3) uint8 BGR arrays.

    Raises `VideoError` when anything cannot be decoded: a clip is whole or it is an error.
    """
    look = _first_frame(uri) if hwaccel is not None else None
    orientation = None if look is None else orientation_of(look)
    with open_video(uri, hwaccel) as (container, stream):
        errors: list[str] = []
        for frame in decode_stream(container, stream, errors):
            if errors:
                break
            if look is not None:  # frames that come back from a GPU no longer tell
                frame.colorspace, frame.color_range, frame.color_trc = look.colorspace, look.color_range, look.color_trc
            yield to_array(frame, "bgr24", orientation)
        if errors:
            raise VideoError(f"{_name(uri)} is damaged: {errors[0]}")


def _first_frame(uri: str) -> av.VideoFrame | None:
    with open_video(uri) as (container, stream):
        return next(decode_stream(container, stream, errors=[]), None)


def decode_frames_at(
    uri: str, numbers: Iterable[int], convert: Callable[[Any], T], *, count: bool = False
) -> tuple[VideoInfo, dict[int, T]]:
    """Decode frames by their 0-based number in display order, from the start up to the last of them.

    Args:
        uri: The video.
        numbers: Wanted frames.
        convert: Makes the result of a PyAV frame, such as `upright_rgb`.
        count: Read the rest of the file without decoding it, so that `num_frames` counts stored frames instead of
            trusting the header, and a file cut short is noticed.

    Returns:
        The video's properties, from its header alone where no frame is wanted, and the converted frames by number; one
        that the video lacks is left out.

    Raises:
        VideoError: The video cannot be read, is damaged before the last wanted frame, or holds no frames.
    """
    wanted = set(numbers)
    last = max(wanted, default=-1)
    found: dict[int, T] = {}
    first: av.VideoFrame | None = None
    packets = number = 0
    with open_video(uri) as (container, stream):
        for packet in container.demux(stream):
            packets += bool(packet.size and not packet.is_discard)
            if number <= last:
                for frame in packet.decode():
                    first = first or frame
                    if number in wanted:
                        found[number] = convert(frame)
                    number += 1
            elif packets and not count:
                break
        info = _info(container, stream, first, packets if count else None)
    if packets == 0:
        raise VideoError(f"{uri} holds no frames")
    return info, found


def count_frames(uri: str) -> int:
    """Return the number of frames of a video, reading it without decoding. Raises `VideoError`."""
    return decode_frames_at(uri, [], lambda frame: None, count=True)[0].num_frames


def read_rgb(uri: str, number: int) -> np.ndarray:
    """Return one frame (0-based), upright, as (height, width, 3) uint8 RGB. Raises `VideoError` when not there."""
    _, found = decode_frames_at(uri, [number], upright_rgb)
    if number not in found:
        raise VideoError(f"{uri} has no frame {number + 1}")
    return found[number]


def upright_rgb(frame: av.VideoFrame) -> np.ndarray:
    """Return a PyAV frame, upright, as (height, width, 3) uint8 RGB."""
    return to_array(frame, "rgb24")


def _name(uri: str) -> str:
    return uri.rsplit("/", 1)[-1]


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split())
