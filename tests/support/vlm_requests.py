"""Frames and requests for tests of local vision-language engines."""

from __future__ import annotations

import numpy as np

from microg.models.vlm.base import Frames, Request
from microg.models.vlm.sampling import Uniform

# Number of frames of every engine in the paper, the odd ones, and every frame of a clip.
COUNTS = (1, 3, 6, 8, 9, 16, 90)
SCHEMA = {
    "type": "object",
    "properties": {"answerable": {"type": "boolean"}, "answer": {"type": "string", "maxLength": 8}},
    "required": ["answerable", "answer"],
    "additionalProperties": False,
}


def clip(seed: int, count: int = 9, height: int = 60, width: int = 96) -> Frames:
    """Return `count` frames of a clip of 90, each of one random colour with noise on it."""
    random = np.random.default_rng(seed)
    colours = random.integers(0, 256, (count, 1, 1, 3)) + random.integers(-9, 10, (count, height, width, 3))
    indices = tuple(Uniform(count=count).indices(90, 30.0))
    return Frames(np.clip(colours, 0, 255).astype(np.uint8), indices, 30.0, 90)


def questions(clips: list[Frames], *texts: str) -> list[Request]:
    """Return a request for every text about every clip; keys are `clip/text`, by number."""
    return [
        Request(f"{number}/{index}", text, frames=frames)
        for number, frames in enumerate(clips)
        for index, text in enumerate(texts)
    ]
