"""Writing H.264 mp4 files whole or not at all, the same bytes for the same frames; also of clips with boxes on them."""

from __future__ import annotations

import colorsys
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Literal, Self

import av
import cv2
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import ColorRange

from microg import storage
from microg.errors import VideoError
from microg.frame_display import matrix_of_clip
from microg.storage_faults import writing
from microg.video import decode_frames

Preset = Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"]

# Macroblock-tree rate control reads memory it never wrote: with it, the same frames gave up to 9 different files in
# 12 tries; without it, 1 in 40.
_EXACT = {"x264-params": "mbtree=0", "threads": "1"}


class Mp4Writer:
    """Encodes frames with libx264 on one thread to a temporary file; `finish` moves it to `target`.

    Left as a context manager without `finish`, it leaves nothing behind. A key frame comes first and at least every
    `key_interval` frames; there is no audio. Each method raises `VideoError` when frames of this size cannot be
    encoded, and `WriteError` when the disk does not take them.
    """

    def __init__(
        self, target: str, size: tuple[int, int], fps: int | Fraction, *, crf: int, preset: Preset, key_interval: int
    ) -> None:
        self._target, self._size, self._frames = target, size, 0
        local = storage.is_local(target)
        folder = storage.local_path(target).parent if local else Path(tempfile.gettempdir())
        with writing(target if local else folder):
            folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(suffix=".mp4", prefix=".tmp-", dir=folder)
        os.close(handle)
        self._temporary = Path(name)
        self._place = target if local else name
        self._time_base = 1 / Fraction(fps)
        self._container = av.open(name, "w", format="mp4", options={"movflags": "+faststart"})
        options = {"crf": str(crf), "preset": preset, **_EXACT}
        self._stream = self._container.add_stream("libx264", rate=Fraction(fps), options=options)
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = self._time_base
        self._stream.codec_context.gop_size = key_interval

    def write(self, frame: av.VideoFrame) -> None:
        """Append the next frame, in yuv420p of limited range and of the writer's size.

        Its time and type are overwritten. The first one's matrix, primaries and transfer are the file's.
        """
        if self._frames == 0:
            context = self._stream.codec_context
            context.colorspace, context.color_range = matrix_of_clip(frame), ColorRange.MPEG
            context.color_primaries, context.color_trc = frame.color_primaries, frame.color_trc
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
            with writing(self._place):  # a full disk says nothing about the video
                yield
        except av.FFmpegError as error:
            shape = f"{self._size[0]} x {self._size[1]} pixels"
            raise VideoError(f"{self._target} of {shape} cannot be encoded: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._temporary.exists():
            try:
                with suppress(av.FFmpegError):  # of a file that is thrown away
                    self._container.close()
            finally:
                self._temporary.unlink(missing_ok=True)


# (person_id, x1, y1, x2, y2)
Box = tuple[int, float, float, float, float]


def person_colour(person_id: int) -> tuple[int, int, int]:
    """Return a BGR colour, well apart for neighbouring ids."""
    red, green, blue = colorsys.hsv_to_rgb((person_id * 0.381966) % 1.0, 0.75, 1.0)
    return round(blue * 255), round(green * 255), round(red * 255)


def draw_boxes(frame: np.ndarray, boxes: Sequence[Box]) -> np.ndarray:
    """Return a copy of a BGR frame with boxes and person ids drawn on it."""
    frame = frame.copy()
    for person_id, x1, y1, x2, y2 in boxes:
        colour = person_colour(person_id)
        corner = (round(x1), round(y1))
        cv2.rectangle(frame, corner, (round(x2), round(y2)), colour, 2, cv2.LINE_AA)
        cv2.rectangle(frame, corner, (corner[0] + 44, corner[1] + 20), colour, cv2.FILLED)
        label = (f"P{person_id}", (corner[0] + 4, corner[1] + 15), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1)
        cv2.putText(frame, *label, cv2.LINE_AA)
    return frame


def write_preview(uri: str, boxes: Mapping[int, Sequence[Box]], target: str, fps: float) -> None:
    """Write the video `uri` with boxes, given by frame from 1 in pixels, to the mp4 file `target`.

    Raises `VideoError` when the video cannot be decoded whole or holds no frame; then there is no file.
    """
    rate = Fraction(fps).limit_denominator(1001)
    writer: Mp4Writer | None = None
    with ExitStack() as unfinished:
        for number, frame in enumerate(decode_frames(uri), start=1):
            height, width = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
            if writer is None:
                writer = unfinished.enter_context(
                    Mp4Writer(target, (width, height), rate, crf=26, preset="veryfast", key_interval=30)
                )
            drawn = draw_boxes(frame, boxes.get(number, ()))[:height, :width]
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(drawn), format="bgr24")
            writer.write(picture.reformat(format="yuv420p"))
        if writer is None:
            raise VideoError(f"{uri} holds no frame")
        writer.finish()
