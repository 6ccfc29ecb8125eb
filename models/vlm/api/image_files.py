"""Frames as the picture files that servers take; frames that several questions share are encoded once."""

from __future__ import annotations

from typing import Literal
from weakref import WeakKeyDictionary

import cv2

from microg.models.vlm.base import Frames

Format = Literal["jpeg", "png"]

_made: WeakKeyDictionary[Frames, dict[tuple[str, int], list[bytes]]] = WeakKeyDictionary()


def encoded(frames: Frames, form: Format = "jpeg", quality: int = 95) -> list[bytes]:
    """Return each frame as a file of `form`; PNG keeps every pixel, JPEG of `quality` 1 to 100 does not."""
    kept = _made.setdefault(frames, {})
    if (form, quality) not in kept:
        options = [cv2.IMWRITE_JPEG_QUALITY, quality] if form == "jpeg" else [cv2.IMWRITE_PNG_COMPRESSION, 3]
        extension = ".jpg" if form == "jpeg" else ".png"
        files = [cv2.imencode(extension, frame[..., ::-1], options) for frame in frames.pixels]
        kept[form, quality] = [data.tobytes() for _, data in files]
    return kept[form, quality]
