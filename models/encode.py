"""Writing H.264 mp4 files whole or not at all, the same bytes for the same frames."""

from __future__ import annotations

import os
import tempfile
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
from av.video.frame import PictureType

from microg import storage

# Macroblock-tree rate control reads memory it never wrote: with it, the same frames gave up to 9 different files in
# 12 tries; without it, 1 in 40.
_EXACT = {"x264-params": "mbtree=0", "threads": "1"}


class Mp4Writer:
    """Encodes frames with libx264 on one thread to a temporary file; `finish` moves it to `target`.

    Left as a context manager without `finish`, it leaves nothing behind. A key frame comes first and at least every
    `key_interval` frames; there is no audio.
    """

    def __init__(
        self, target: str, size: tuple[int, int], fps: int | Fraction, *, crf: int, preset: str, key_interval: int
    ) -> None:
        self._target, self._frames = target, 0
        folder = Path(tempfile.gettempdir())
        if storage.is_local(target):
            folder = storage.local_path(target).parent
            folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(suffix=".mp4", prefix=".tmp-", dir=folder)
        os.close(handle)
        self._temporary = Path(name)
        self._time_base = 1 / Fraction(fps)
        self._container = av.open(name, "w", format="mp4", options={"movflags": "+faststart"})
        options = {"crf": str(crf), "preset": preset, **_EXACT}
        self._stream = self._container.add_stream("libx264", rate=Fraction(fps), options=options)
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = self._time_base
        self._stream.codec_context.gop_size = key_interval

    def write(self, frame: av.VideoFrame) -> None:
        """Append the next frame, in yuv420p and of the writer's size."""
        frame.pts, frame.time_base, frame.pict_type = self._frames, self._time_base, PictureType.NONE
        self._frames += 1
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> str:
        """Close the file, move it into place and return its SHA-256."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        digest = storage.sha256(self._temporary)
        storage.move_into_place(self._temporary, self._target)
        return digest

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._temporary.exists():
            self._container.close()
            self._temporary.unlink(missing_ok=True)
