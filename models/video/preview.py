"""Annotated preview videos: a clip with its person boxes and ids drawn on it."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from fractions import Fraction

import av
import cv2
import numpy as np

from microg.errors import VideoError
from microg.models.video.encode import Mp4Writer
from microg.video import decode_frames

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
