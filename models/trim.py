"""Cutting raw footage into clips of equal length, frame rate and height (paper section 3; curation facts, "Trim").

Any container, codec, frame rate and size goes in; out come H.264 mp4 files of exactly `seconds * fps` frames with a
key frame first and no audio. Decoding, resampling to the constant rate and scaling happen in one pass through
libavfilter; encoding with libx264 on one thread, so that the same input gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import av.error
import av.filter

from microg import storage
from microg.config import Config
from microg.errors import VideoError
from microg.frames import open_video
from microg.ids import make_clip_id
from models.encode import Mp4Writer
from models.video import VideoInfo, decode, has_timestamps

# A jump of the timestamps beyond this is a broken clock, not a pause: it is spliced, not filled with copies.
_LONGEST_GAP_S = 10.0
# How far before a wanted start a seek goes, so that decoding is clean by then even with an open group of pictures.
_SEEK_MARGIN_S = 2.0


class TrimSettings(Config):
    """Geometry, rate and encoding of clips. `crf` and `preset` are libx264's."""

    seconds: float = 3.0
    fps: int = 30
    height: int = 480
    crf: int = 20
    preset: str = "veryfast"

    @property
    def frames_per_clip(self) -> int:
        """Frames in one clip."""
        return round(self.seconds * self.fps)


@dataclass(frozen=True)
class TrimmedClip:
    """One finished clip file; `damaged` when a part of it could not be decoded from the source."""

    clip_id: str
    sequence: int
    uri: str
    width: int
    height: int
    num_frames: int
    sha256: str
    damaged: str = ""


@dataclass
class TrimResult:
    """What a stretch of a source gave: clips in order, how many it holds with the skipped ones, the dropped rest in
    seconds, and decoding errors."""

    count: int = 0
    clips: list[TrimmedClip] = field(default_factory=list)
    tail_s: float = 0.0
    errors: list[str] = field(default_factory=list)


def clip_size(width: int, height: int, target_height: int) -> tuple[int, int]:
    """Return (width, height) of clips from sources of the given displayed size: fixed height, nearest even width.

    >>> clip_size(640, 272, 480), clip_size(176, 144, 480)
    ((1130, 480), (586, 480))
    """
    return max(2, 2 * round(width * target_height / height / 2)), target_height


def trim(
    uri: str,
    source_id: str,
    folder: str,
    info: VideoInfo,
    settings: TrimSettings,
    *,
    first: int = 0,
    stop: int | None = None,
    skip: Container[int] = (),
) -> TrimResult:
    """Cut clips number `first` up to (not including) `stop` out of a source, into `folder`.

    Clip k covers seconds [k * seconds, (k + 1) * seconds) from the source's first frame; the final stretch is dropped
    when it is shorter than a clip. A clip that overlaps undecodable footage is still written, with `damaged` set.
    Clips in `skip` are counted, not written.
    Cutting in several stretches gives the same clips as cutting in one. Raises `VideoError` when nothing decodes.
    """
    result = TrimResult()
    length = settings.frames_per_clip
    size = clip_size(info.width, info.height, settings.height)
    position = first * length
    with ExitStack() as open_files:
        writer: Mp4Writer | None = None
        damage = ""
        for index, frame, damaged in _constant_rate(uri, info, settings, size, first * length, result.errors):
            sequence, offset = divmod(index, length)
            if sequence < first:
                continue
            if stop is not None and sequence >= stop:
                break
            position = index + 1
            result.count += offset == length - 1
            if sequence in skip:
                continue
            clip_id = make_clip_id(source_id, sequence)
            target = storage.join(folder, f"{clip_id}.mp4")
            if offset == 0:
                damage = ""
                writer = open_files.enter_context(
                    Mp4Writer(target, size, settings.fps, crf=settings.crf, preset=settings.preset, key_interval=length)
                )
            if writer is None:
                raise VideoError(f"{clip_id}: the footage begins {offset} frames late")
            writer.write(frame)
            damage = damaged or damage
            if offset == length - 1:
                digest = writer.finish()
                result.clips.append(TrimmedClip(clip_id, sequence, target, *size, length, digest, damage))
                writer = None
    result.tail_s = (position % length) / settings.fps
    return result


def _constant_rate(
    uri: str, info: VideoInfo, settings: TrimSettings, size: tuple[int, int], start: int, errors: list[str]
) -> Iterator[tuple[int, av.VideoFrame, str]]:
    """Yield (output frame index, scaled upright yuv420p frame, damage) at the constant rate, from about `start` on."""
    with open_video(uri) as (container, stream):
        clock = _Clock(info, stream.start_time, stream.time_base, timed=has_timestamps(container))
        margin = start / settings.fps - _SEEK_MARGIN_S
        if margin > 0 and clock.seekable:
            container.seek(clock.to_pts(margin), stream=stream, backward=True)
        graph, source, sink = None, None, None
        shape: tuple[int, int, str] | None = None
        damage_until = -1
        seen_errors = 0
        reason = ""
        for frame in decode(container, stream, errors):
            seconds = clock.seconds(frame)
            if len(errors) > seen_errors:
                seen_errors = len(errors)
                reason = errors[-1]
                damage_until = round(seconds * settings.fps)
            elif frame.is_corrupt:
                reason = "the decoder marked a frame as corrupt"
                damage_until = round(seconds * settings.fps)
            if graph is None or shape != (frame.width, frame.height, frame.format.name):
                if graph is not None and source is not None and sink is not None:
                    yield from _drain(source, sink, settings.fps, damage_until, reason, flush=True)
                shape = (frame.width, frame.height, frame.format.name)
                graph, source, sink = _graph(frame, info.rotation, settings.fps, size)
            # The last frame's duration decides whether the final stretch is whole.
            lasts = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
            frame.pts = round(seconds * _TICKS)
            frame.time_base = Fraction(1, _TICKS)
            frame.duration = round((lasts or 1.0 / info.fps) * _TICKS)
            source.push(frame)  # type: ignore[union-attr]
            yield from _drain(source, sink, settings.fps, damage_until, reason)
        if source is not None:
            yield from _drain(source, sink, settings.fps, damage_until, reason, flush=True)


# Time base of frames on their way into the filter graph: a common multiple of the usual frame rates.
_TICKS = 90_000 * 1001


def _graph(frame: av.VideoFrame, rotation: int, fps: int, size: tuple[int, int]):
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, _TICKS)
    )
    chain = [("fps", f"fps={fps}:round=near")]
    chain += {90: [("transpose", "cclock")], 270: [("transpose", "clock")], 180: [("hflip", ""), ("vflip", "")]}.get(
        rotation, []
    )
    chain += [("scale", f"{size[0]}:{size[1]}:flags=bicubic"), ("setsar", "1"), ("format", "yuv420p")]
    last = source
    for name, arguments in chain:
        node = graph.add(name, arguments) if arguments else graph.add(name)
        last.link_to(node)
        last = node
    sink = graph.add("buffersink")
    last.link_to(sink)
    graph.configure()
    return graph, source, sink


def _drain(
    source, sink, fps: int, damage_until: int, reason: str, *, flush: bool = False
) -> Iterator[tuple[int, Any, str]]:
    if flush:
        source.push(None)
    while True:
        try:
            frame = sink.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        index = round(frame.pts * frame.time_base * fps)
        yield index, frame, reason if reason and index <= damage_until else ""


class _Clock:
    """Gives each decoded frame its time in seconds from the first frame, never going back."""

    def __init__(self, info: VideoInfo, start_time: int | None, time_base: Fraction | None, *, timed: bool) -> None:
        self._base = float(time_base) if time_base else 0.0
        self._start = start_time
        self._period = 1.0 / info.fps
        self._timed = timed and bool(time_base)
        self._last: float | None = None
        self._shift = 0.0

    @property
    def seekable(self) -> bool:
        """Whether times can be found again after a seek."""
        return self._timed and self._start is not None

    def to_pts(self, seconds: float) -> int:
        """Return the stream's timestamp at `seconds` from the start."""
        return int(seconds / self._base) + (self._start or 0)

    def seconds(self, frame: av.VideoFrame) -> float:
        """Return the time of `frame`; frames must be given in decoding order."""
        if self._last is None:
            if not self._timed or frame.pts is None:
                value = 0.0
            else:
                if self._start is None:
                    self._start = frame.pts
                value = max(0.0, (frame.pts - self._start) * self._base)
        elif not self._timed or frame.pts is None:
            value = self._last + self._period
        else:
            value = (frame.pts - (self._start or 0)) * self._base - self._shift
            if value <= self._last or value > self._last + _LONGEST_GAP_S:
                self._shift += value - (self._last + self._period)
                value = self._last + self._period
        self._last = value
        return value
