"""A video's frames at a constant rate and size: for each output frame, the source frame that is shown then.

Times are counted in whole ticks, so that ties between two output frames fall the same way everywhere: an output frame
shows the last source frame whose time rounds (half up) to it or earlier, as FFmpeg's `fps` filter has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av

from microg.errors import VideoError
from microg.frame_display import Converter, matrix_of_clip
from microg.video import VideoInfo, decode_stream, open_video

# Ticks a second: a common multiple of the usual frame rates.
_TICKS = 90_000 * 1001
# A shorter pause is filled with copies of the last frame; a longer one is a hole, or a broken clock.
LONGEST_PAUSE_S = 10
# Timestamps that go back further than this are a clock that was set back, not frames out of order.
_SET_BACK_S = 1
# How far before a wanted start a seek goes, so that decoding is clean by then even with an open group of pictures.
_SEEK_MARGIN_S = 2


def constant_rate(
    uri: str,
    info: VideoInfo,
    fps: int,
    size: tuple[int, int],
    *,
    start: int,
    stop: int | None,
    errors: list[str],
    holes: list[range],
) -> Iterator[tuple[int, av.VideoFrame, str]]:
    """Yield (index, frame, damage) of the output frames `start` to `stop` (not included): upright yuv420p of `size`.

    Output frame k is what the source shows k / `fps` seconds after its first frame. `damage` says why the picture is
    not what was filmed: a part of the source before it cannot be decoded, up to the next key frame; else it is empty.
    A frame may be yielded several times. Indices ascend; they are missing where the source holds one picture for
    longer than ten seconds, and appended to `holes`. Reasons of undecodable parts inside the wanted range are appended
    to `errors`. Raises `VideoError` when the file cannot be opened, its colours cannot be converted, or a seek to
    `start` fails.
    """
    with open_video(uri) as (container, stream):
        clock = _Clock(info, stream.time_base)
        sought = clock.pts_at(start / fps - _SEEK_MARGIN_S)
        if sought is not None:
            container.seek(sought, stream=stream, backward=True)
        scaler: Converter | None = None
        found: list[str] = []
        shown: _Shown | None = None
        damage = ""
        for frame in decode_stream(container, stream, found):
            ticks = clock.ticks(frame)
            index = _output_frame(ticks, fps)
            lost = found[-1] if found else ""
            if index >= start and (stop is None or index < stop):
                errors += found
            found.clear()
            # Frames that refer to what was lost are decoded without complaint, but are not what was filmed.
            damage = "" if frame.key_frame else lost or damage
            if shown is None:
                if sought is not None and index > start and not lost:
                    raise VideoError(f"{uri}: a seek to {start / fps:.1f} s landed at {index / fps:.1f} s")
                scaler = _scaler(frame, info, size)
            else:
                end = index
                if index - shown.index > LONGEST_PAUSE_S * fps:
                    end = min(_output_frame(shown.end, fps), index)
                    hole = range(max(end, start), index if stop is None else min(index, stop))
                    holes += [hole] if hole else []
                yield from shown.until(end, lost, scaler, start, stop)
            if stop is not None and index >= stop:
                return
            own = damage or ("the decoder marked a frame as corrupt" if frame.is_corrupt else "")
            shown = _Shown(index, frame, ticks + clock.duration(frame), own)
        errors += found
        if shown is not None:
            yield from shown.until(_output_frame(shown.end, fps), "", scaler, start, stop)


def _scaler(first: av.VideoFrame, info: VideoInfo, size: tuple[int, int]) -> Converter:
    """Return what makes pictures of `size` in limited range, all in the colour matrix of the first frame."""
    colours = f"out_color_matrix={matrix_of_clip(first)}:out_range=limited"
    scale = ("scale", f"{size[0]}:{size[1]}:flags=bicubic:{colours}")
    return Converter(*info.orientation.filters, scale, ("setsar", "1"), ("format", "yuv420p"))


def _output_frame(ticks: int, fps: int) -> int:
    return (2 * ticks * fps + _TICKS) // (2 * _TICKS)


@dataclass(frozen=True)
class _Shown:
    """The source frame that is on show: from which output frame on, and until which tick by its own duration."""

    index: int
    frame: av.VideoFrame
    end: int
    damage: str

    def until(
        self, end: int, lost: str, scaler: Converter | None, start: int, stop: int | None
    ) -> Iterator[tuple[int, av.VideoFrame, str]]:
        """Yield the output frames before `end` that show this frame; with `lost`, all but the first stand in."""
        first, last = max(self.index, start), end if stop is None else min(end, stop)
        if first >= last:
            return
        assert scaler is not None
        picture = scaler(self.frame)
        for index in range(first, last):
            yield index, picture, self.damage or (lost if index > self.index else "")


class _Clock:
    """Gives each decoded frame its time in ticks after the first frame of the video, never going back.

    On one clock, a frame's time depends on nothing but its timestamp. Elsewhere the video is read in one go: missing
    timestamps are counted on by the frames' own durations, and a clock that was set is spliced.
    """

    def __init__(self, info: VideoInfo, time_base: Fraction | None) -> None:
        self._base = (time_base or Fraction(0)) * _TICKS
        self._first = info.first_pts if time_base else None
        self._splices = not info.one_clock
        self._seekable = info.seekable
        self._period = self._step = round(_TICKS / info.fps)
        self._last: int | None = None
        self._shift = 0

    def pts_at(self, seconds: float) -> int | None:
        """Return the stream's timestamp `seconds` after the first frame; None where there is nothing to seek for."""
        if seconds <= 0 or self._first is None or not self._seekable:
            return None
        return int(seconds * _TICKS / self._base) + self._first

    def duration(self, frame: av.VideoFrame) -> int:
        """Return how many ticks a frame is shown by itself: the last one's decides whether the last clip is whole."""
        value = round((frame.duration or 0) * self._base)
        # In mp4 the frame before a hole lasts through it.
        return value if 0 < value <= LONGEST_PAUSE_S * _TICKS else self._period

    def ticks(self, frame: av.VideoFrame) -> int:
        """Return the time of `frame`; frames must be given in decoding order."""
        if self._first is None or frame.pts is None:
            value = 0 if self._last is None else self._last + self._step
        else:
            value = round((frame.pts - self._first) * self._base) - self._shift
            if self._splices and self._last is not None:
                step = value - self._last
                if not -_SET_BACK_S * _TICKS <= step <= LONGEST_PAUSE_S * _TICKS:
                    self._shift += step - self._period
                    value = self._last + self._period
        self._last = max(value, self._last or 0)
        self._step = self.duration(frame)
        return self._last
