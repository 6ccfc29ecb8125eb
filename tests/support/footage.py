"""Tiny raw videos of any container, codec and timing whose frames tell their own number."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

BITS = 10
WIDTH, HEIGHT = 8 * BITS, 48


def numbered(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Return a BGR frame of ten vertical bars, light for the set bits of `number`, the lowest on the left."""
    bits = (number >> np.arange(BITS)) & 1
    bars = bits[np.arange(width) * BITS // width]
    return np.broadcast_to((32 + 192 * bars).astype(np.uint8)[None, :, None], (height, width, 3)).copy()


def number_of(frame: np.ndarray) -> int:
    """Return the number that a frame of `numbered` shows, at whatever size it has now."""
    width = frame.shape[1]
    middles = ((np.arange(BITS) + 0.5) * width / BITS).astype(int)
    light = frame[frame.shape[0] // 4 : -frame.shape[0] // 4, middles].mean(axis=(0, 2)) > 128
    return int((light << np.arange(BITS)).sum())


def write_footage(
    path: Path,
    times: Sequence[float | Fraction] | int,
    *,
    fps: int | Fraction = 30,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = (WIDTH, HEIGHT),
    rotation: int = 0,
    pixel_aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
    gop: int = 12,
    audio: bool = False,
    first_number: int = 0,
) -> Path:
    """Write numbered frames shown at `times` (seconds; a count means evenly at `fps`), turned by rotation metadata."""
    shown = [Fraction(index) / fps for index in range(times)] if isinstance(times, int) else times
    base = Fraction(1, 1000 * Fraction(fps).numerator) * Fraction(fps).denominator
    with av.open(str(path), "w") as container:
        fast = {"preset": "ultrafast", "bf": "0"} if codec in ("libx264", "libx265") else {}
        stream: Any = container.add_stream(codec, rate=fps, options=fast | (options or {}))
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.gop_size = gop
        if not isinstance(times, int):
            stream.codec_context.time_base = stream.time_base = base
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation:
            stream.set_display_rotation(rotation)
        sound: Any = container.add_stream("aac", rate=16000) if audio else None
        for index, seconds in enumerate(shown):
            upright = numbered(first_number + index, *(size[::-1] if rotation in (90, 270) else size))
            # Stored so that turning the stored frame anticlockwise by `rotation` stands it upright again.
            stored = np.ascontiguousarray(np.rot90(upright, -rotation // 90))
            frame = av.VideoFrame.from_ndarray(stored, format="bgr24").reformat(format=pix_fmt)
            if isinstance(times, int):
                frame.pts, frame.time_base = index, 1 / Fraction(fps)
            else:
                frame.pts, frame.time_base = round(seconds / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            for start in range(0, 16000, 1024):
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                silence.sample_rate, silence.pts = 16000, start
                container.mux(sound.encode(silence))
            container.mux(sound.encode())
    return path


def damage_packet(path: Path, number: int) -> None:
    """Overwrite the video packet `number` (from 0, in file order) so that it cannot be decoded."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        position, size = packets[number].pos, packets[number].size
    assert position is not None
    with path.open("r+b") as file:
        file.seek(position)
        file.write(b"\xff" * size)
