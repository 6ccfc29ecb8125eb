"""What an annotator said of the same person in the clip before, so that it need not be said again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from microg.annotations.boxes import Tracks
from microg.annotations.rows import Item
from microg.review.desk import Desk
from microg.review.rules import Annotator

# Clips of a source follow each other: a person is about where they were.
_LEAST_OVERLAP = 0.3


def previous_value(desk: Desk, who: Annotator, item: Item) -> Mapping[str, Any] | None:
    """Return what an annotator said of the person of the source's previous clip who ends where this one begins.

    Where each clip has one person only, they are taken to be the same. None where nothing was said, or nobody fits.
    """
    number = desk.clip_number(item.clip_id)
    before = desk.material.clips.before(number)
    if before is None or item.person_id is None:
        return None
    earlier = desk.material.clips.clip(before)
    if earlier.sequence + 1 != desk.material.clips.clip(number).sequence:
        return None
    person = same_person(desk.tracks(who, earlier.clip_id), desk.tracks(who, item.clip_id), item.person_id)
    said = None if person is None else desk.mine(who, Item("action", earlier.clip_id, person))
    return None if said is None else said.value


def same_person(before: Tracks, after: Tracks, person_id: int) -> int | None:
    """Return the person of a clip who is a person of the next one, by where they were last; None where nobody fits."""
    track = after.get(person_id)
    if not track:
        return None
    if len(before) == len(after) == 1:
        return next(iter(before))
    first = track[min(track)]
    overlaps = {person: _overlap(boxes[max(boxes)], first) for person, boxes in before.items() if boxes}
    best = max(overlaps, key=lambda person: overlaps[person], default=None)
    return best if best is not None and overlaps[best] >= _LEAST_OVERLAP else None


def _overlap(one: Sequence[float | None], other: Sequence[float | None]) -> float:
    """Return intersection over union of two boxes."""
    (a1, b1, a2, b2), (c1, d1, c2, d2) = ([float(each or 0) for each in box[:4]] for box in (one, other))
    width, height = min(a2, c2) - max(a1, c1), min(b2, d2) - max(b1, d1)
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    return common / ((a2 - a1) * (b2 - b1) + (c2 - c1) * (d2 - d1) - common)
