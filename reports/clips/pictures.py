"""Small pictures of clips for pages: the key frame with person boxes drawn, as JPEG or WebP data URIs."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np

from microg.errors import VideoError
from microg.video import read_rgb

# Okabe-Ito without black: told apart with every common colour vision deficiency. Repeats after seven people.
PERSON_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2")


@dataclass(frozen=True)
class PictureStyle:
    """How pictures are encoded: width in pixels, quality from 1 to 100, and form."""

    width: int = 480
    quality: int = 78
    form: Literal["jpeg", "webp"] = "jpeg"


@dataclass(frozen=True)
class Box:
    """One person's box in pixels of the full frame."""

    person_id: int
    x1: float
    y1: float
    x2: float
    y2: float


def colour_number(person_id: int) -> int:
    """Return which of `PERSON_COLOURS` a person has, the same in pictures and in text."""
    return (person_id - 1) % len(PERSON_COLOURS)


def person_colour(person_id: int) -> str:
    """Return the colour of a person."""
    return PERSON_COLOURS[colour_number(person_id)]


def key_frame(frames: np.ndarray, sampled: np.ndarray) -> int | None:
    """Return the 1-based frame to show of a clip: its first sample's, else the middle one of those with most boxes.

    `frames` holds the frame of every box of the clip, `sampled` those of its samples; both may be empty (None).
    """
    if len(sampled):
        return int(sampled.min())
    if not len(frames):
        return None
    numbers, counts = np.unique(frames, return_counts=True)
    fullest = numbers[counts == counts.max()]
    return int(fullest[len(fullest) // 2])


def draw_boxes(picture: np.ndarray, boxes: list[Box], width: int = PictureStyle.width) -> np.ndarray:
    """Return a copy of an RGB picture (height, width, 3), scaled to `width` pixels, with boxes and ids drawn."""
    scale = width / picture.shape[1]
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    result = cv2.resize(picture, (width, max(round(picture.shape[0] * scale), 1)), interpolation=smooth)
    for box in boxes:
        red, green, blue = (int(person_colour(box.person_id)[start : start + 2], 16) for start in (1, 3, 5))
        corners = [round(value * scale) for value in (box.x1, box.y1, box.x2, box.y2)]
        cv2.rectangle(result, (corners[0], corners[1]), (corners[2], corners[3]), (red, green, blue), 2)
        text = str(box.person_id)
        (wide, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.55, 2)
        left, top = max(corners[0], 0), max(corners[1], 0)
        cv2.rectangle(result, (left, top), (left + wide + 8, top + height + 8), (red, green, blue), -1)
        cv2.putText(
            result, text, (left + 4, top + height + 4), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 2, cv2.LINE_AA
        )
    return result


def clip_picture(
    uri: str, frame: int, boxes: list[Box], style: PictureStyle | None = None, *, normalised: bool = False
) -> str:
    """Return frame `frame` (1-based) of a video with boxes drawn, as a data URI. Raises `VideoError`.

    Boxes are in pixels, or with `normalised` in parts of the frame's width and height.
    """
    style = style or PictureStyle()
    picture = read_rgb(uri, frame - 1)
    if normalised:
        height, width = picture.shape[:2]
        boxes = [
            replace(box, x1=box.x1 * width, y1=box.y1 * height, x2=box.x2 * width, y2=box.y2 * height) for box in boxes
        ]
    drawn = draw_boxes(picture, boxes, style.width)
    flag = cv2.IMWRITE_WEBP_QUALITY if style.form == "webp" else cv2.IMWRITE_JPEG_QUALITY
    suffix = ".webp" if style.form == "webp" else ".jpg"
    ok, data = cv2.imencode(suffix, cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR), [flag, style.quality])
    if not ok:
        raise VideoError(f"frame {frame} of {uri} cannot be encoded as {style.form.upper()}")
    return data_uri(f"image/{style.form}", data.tobytes())


def data_uri(media_type: str, data: bytes) -> str:
    """Return `data` as a data URI."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
