"""Cutting raw footage into clips of equal length, frame rate and height (docs/protocols.md, "Curation").

Any container, codec, frame rate and size goes in; out come H.264 mp4 files of exactly `seconds * fps` frames with a
key frame first and no audio, encoded on one thread, so that the same input gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Container
from contextlib import ExitStack
from dataclasses import dataclass, field

from pydantic import Field

from microg import storage
from microg.config import Config
from microg.data.ids import make_clip_id
from microg.errors import VideoError
from microg.models.video.constant_rate import LONGEST_PAUSE_S, constant_rate
from microg.models.video.encode import Mp4Writer, Preset
from microg.video import VideoInfo

# Why a clip is left out that the source is long enough for.
HELD = f"one picture is held for over {LONGEST_PAUSE_S} s"
# libx264 takes no wider frame; no camera makes one.
_WIDEST = 16384


class TrimSettings(Config):
    """Length, rate, size and encoding of the clips."""

    seconds: float = Field(default=3.0, gt=0, le=600, description="Length of a clip in seconds.")
    fps: int = Field(default=30, ge=1, le=240, description="Frames per second of a clip.")
    height: int = Field(default=480, ge=16, le=4320, multiple_of=2, description="Height of a clip in pixels.")
    crf: int = Field(default=20, ge=0, le=51, description="Constant rate factor of libx264; less is better and larger.")
    preset: Preset = Field(default="veryfast", description="Preset of libx264, speed against size.")
    square_pixels: bool = Field(
        default=False,
        description="Stretch anamorphic footage (DVDs, some broadcasts) to its displayed shape; the reference keeps "
        "the stored pixels.",
    )

    @property
    def frames_per_clip(self) -> int:
        """Frames in one clip."""
        return max(1, round(self.seconds * self.fps))


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
    """What a stretch of a source gave.

    `count`: clips it is long enough for, those that are skipped or left out included; `clips`: those written, in order;
    `left_out`: numbers of those that are not, because of `HELD`; `tail_s`: seconds that were dropped at its end;
    `errors`: why parts of it could not be decoded.
    """

    count: int = 0
    clips: list[TrimmedClip] = field(default_factory=list)
    left_out: list[int] = field(default_factory=list)
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

    Clip k covers seconds [k * seconds, (k + 1) * seconds) from the source's first decodable frame; the final stretch is
    dropped when it is shorter than a clip. A clip in which the source holds one picture for longer than ten seconds is
    left out. A clip that overlaps undecodable footage is still written, with `damaged` set. Clips in `skip` are
    counted, not written. Where `info.seekable`, cutting in several stretches gives the same clips as cutting in one;
    other sources are read from their beginning each time. Raises `VideoError` when the source cannot be opened or
    sought in, is too wide for its height, or a clip cannot be encoded.
    """
    result = TrimResult()
    length = settings.frames_per_clip
    aspect = info.pixel_aspect if settings.square_pixels else 1.0
    size = clip_size(round(info.width * aspect), info.height, settings.height)
    if size[0] > _WIDEST:
        raise VideoError(f"{uri} of {info.width} x {info.height} pixels is too wide for clips {size[1]} pixels high")
    holes: list[range] = []
    frames = constant_rate(
        uri,
        info,
        settings.fps,
        size,
        start=first * length,
        stop=None if stop is None else stop * length,
        errors=result.errors,
        holes=holes,
    )
    expected, whole = first * length, True
    writer: Mp4Writer | None = None
    damage = ""
    with ExitStack() as current:
        for index, frame, damaged in frames:
            sequence, offset = divmod(index, length)
            if offset == 0 or index != expected:
                # A clip begins, or the source has a hole: what was begun before it never gets whole.
                current.close()
                writer, damage, whole = None, "", offset == 0
            expected = index + 1
            if not whole:
                continue
            result.count += offset == length - 1
            if sequence in skip:
                continue
            clip_id = make_clip_id(source_id, sequence)
            target = storage.join(folder, f"{clip_id}.mp4")
            if writer is None:
                writer = current.enter_context(
                    Mp4Writer(target, size, settings.fps, crf=settings.crf, preset=settings.preset, key_interval=length)
                )
            writer.write(frame)
            damage = damage or damaged
            if offset == length - 1:
                digest = writer.finish()
                result.clips.append(TrimmedClip(clip_id, sequence, target, *size, length, digest, damage))
    reached = max([expected, *(hole.stop for hole in holes)])
    held = {index // length for hole in holes for index in (*hole[::length], hole[-1])}
    left_out = sorted(sequence for sequence in held if (sequence + 1) * length <= reached)
    result.count += len(left_out)
    result.left_out = [sequence for sequence in left_out if sequence not in skip]
    result.tail_s = (reached % length) / settings.fps
    return result
