"""From tracked boxes to the person boxes that are published: the reference's rule, and each of its quirks' fix.

A clip is processed every `interval`-th frame (by frame rate and motion); what a processed frame decides is held until
the next one (docs/protocols.md, "Curation").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from microg.config import Config
from microg.models.curation.tracking import Tracks
from microg.models.detection.base import PERSON, Boxes

_MIN_CONFIDENCE = 0.55
_FOCUS_FRACTION = 0.5
# (frames per second up to, interval at low motion, interval at high motion)
_INTERVALS = ((25.0, 4, 2), (50.0, 5, 3), (100.0, 10, 6), (float("inf"), 20, 10))
_MIN_DETECTIONS = {"low": 3, "high": 2}
_MIN_AREA = {"low": 0.10, "high": 0.20}


class BoxRule(Config):
    """Which quirks of the reference the person boxes keep; all of them are the `published` rule."""

    count_other_classes: bool = Field(
        default=True, description="Objects that are no persons use up person ids and detection counts."
    )
    area_floor: bool = Field(
        default=True, description="Boxes below 10% (low motion) or 20% (high motion) of the frame are dropped."
    )
    skip_frames: bool = Field(
        default=True,
        description="Only every interval-th frame is processed, and its boxes are held until the next, from the first "
        "processed frame on; otherwise every frame is its own.",
    )
    late_start: bool = Field(
        default=True,
        description="A person is written from the last of its first detections that are required on; otherwise from "
        "the first one, if the clip has as many.",
    )
    manhattan_motion: bool = Field(
        default=True, description="Motion counts |dx| + |dy| per point instead of the vector's length."
    )
    video_extension: bool = Field(
        default=True, description="bounding_boxes.csv names clips with .mp4, every other file without."
    )
    focus: bool = Field(
        default=True, description="While one person covers more than half of the frame, nobody else is written."
    )

    @property
    def name(self) -> str:
        """`published`, `corrected`, or the list of fixed quirks."""
        fixed = [name for name, kept in self.model_dump().items() if not kept]
        if not fixed:
            return "published"
        return "corrected" if self == CORRECTED else "published without " + ", ".join(fixed)


PUBLISHED = BoxRule()
# Focus is a choice of the authors (one dominant person), not a slip: the corrected rule keeps it.
CORRECTED = BoxRule(
    count_other_classes=False, area_floor=False, skip_frames=False, late_start=False, manhattan_motion=False
)
RULES = {"published": PUBLISHED, "corrected": CORRECTED}


@dataclass(frozen=True, kw_only=True, eq=False)
class PersonBoxes(Boxes):
    """Published boxes of one clip (int32, truncated), by frame; confidence is that of the processed frame.

    Attributes:
        frame: (N,) int32 from 1.
        person_id: (N,) int32 from 1 in order of first appearance.
    """

    frame: np.ndarray
    person_id: np.ndarray


def frame_interval(fps: float, level: str) -> int:
    """Return every how many frames a clip is processed.

    >>> frame_interval(30.0, "low"), frame_interval(30.0, "high"), frame_interval(25.0, "low")
    (5, 3, 4)
    """
    return next(low if level == "low" else high for limit, low, high in _INTERVALS if fps <= limit)


def person_boxes(
    tracks: Sequence[Tracks], *, width: int, height: int, fps: float, level: str, rule: BoxRule = PUBLISHED
) -> PersonBoxes:
    """Apply the rule to the tracked boxes of a clip's frames, in order; `level` is the clip's motion, low or high."""
    interval = frame_interval(fps, level) if rule.skip_frames else 1
    # Processing every frame makes detections `interval` times as frequent: the same evidence needs as many more.
    min_detections = _MIN_DETECTIONS[level] * (1 if rule.skip_frames else frame_interval(fps, level))
    frame_area = float(width * height)
    processed = _processed_frames(tracks, interval, _MIN_AREA[level] * frame_area if rule.area_floor else 0.0, rule)
    in_clip: dict[int, int] = {}
    for _, seen in processed.values():
        in_clip = in_clip | seen

    focused: int | None = None
    held: list[_Person] = []
    rows: list[tuple[int, _Person]] = []
    for number in range(1, len(tracks) + 1):
        if number in processed:
            persons, seen = processed[number]
            focused = _focus(persons, focused, frame_area) if rule.focus else None
            enough = seen if rule.late_start else in_clip
            held = [
                person
                for person in persons
                if enough[person.person_id] >= min_detections and focused in (None, person.person_id)
            ]
        rows += [(number, person) for person in held]
    return PersonBoxes(
        frame=np.array([number for number, _ in rows], dtype=np.int32),
        person_id=np.array([person.person_id for _, person in rows], dtype=np.int32),
        boxes=np.array([person.box for _, person in rows], dtype=np.int32).reshape(-1, 4),
        confidence=np.array([person.confidence for _, person in rows], dtype=np.float32),
    )


@dataclass(frozen=True)
class _Person:
    person_id: int
    box: np.ndarray
    confidence: float
    area: float


def _processed_frames(
    tracks: Sequence[Tracks], interval: int, min_area: float, rule: BoxRule
) -> dict[int, tuple[list[_Person], dict[int, int]]]:
    """Return, by processed frame, its person candidates and how often each id was seen up to and with this frame."""
    person_ids: dict[int, int] = {}
    seen: dict[int, int] = {}
    processed: dict[int, tuple[list[_Person], dict[int, int]]] = {}
    for number in range(interval, len(tracks) + 1, interval):
        frame = tracks[number - 1]
        boxes = frame.boxes.astype(np.int32)
        areas = (boxes[:, 2] - boxes[:, 0]).astype(np.float64) * (boxes[:, 3] - boxes[:, 1])
        persons: list[_Person] = []
        for index in np.flatnonzero(areas >= min_area):
            is_person = frame.class_id[index] == PERSON
            if not is_person and not rule.count_other_classes:
                continue
            person_id = person_ids.setdefault(int(frame.track_id[index]), len(person_ids) + 1)
            seen[person_id] = seen.get(person_id, 0) + 1
            if is_person and frame.confidence[index] > _MIN_CONFIDENCE:
                persons.append(_Person(person_id, boxes[index], float(frame.confidence[index]), float(areas[index])))
        processed[number] = (persons, dict(seen))
    return processed


def _focus(persons: Sequence[_Person], focused: int | None, frame_area: float) -> int | None:
    """Return the person who alone is written, if any: kept while it covers more than half of the frame."""
    dominant = {person.person_id: person.area for person in persons if person.area > _FOCUS_FRACTION * frame_area}
    if focused in dominant:
        return focused
    return max(dominant, key=lambda person_id: dominant[person_id]) if dominant else None


def rule_ladder() -> dict[str, BoxRule]:
    """Return the published rule, it with each single quirk fixed, and the corrected rule."""
    quirks = [name for name in BoxRule.model_fields if name != "video_extension"]
    single = {f"without {name}": PUBLISHED.replaced(**{name: False}) for name in quirks}
    return {"published": PUBLISHED, **single, "corrected": CORRECTED}
