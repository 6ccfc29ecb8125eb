"""Tracks between dense boxes and the sparse key frames of annotation tools, exact in both directions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from microg.annotations.boxes import drawn
from microg.errors import FormatError

# Of one clip: frames are those of two hours at 30 a second, far more than a clip has.
MAX_FRAMES, MAX_BOXES = 250_000, 500_000


@dataclass(frozen=True)
class TrackBox:
    """One box of a track: frame from 1, corners in pixels; `ends` when the person is gone on the next frame."""

    frame: int
    x1: float
    y1: float
    x2: float
    y2: float
    confidence: float | None = None
    ends: bool = False

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """Corners (x1, y1, x2, y2) in pixels."""
        return (self.x1, self.y1, self.x2, self.y2)


def tracks(boxes: pa.Table) -> tuple[dict[str, dict[int, list[TrackBox]]], int]:
    """Return the boxes by clip and person, sorted by frame, and how many repeated boxes were left out.

    A tool's track has one box a frame: of several the first in the table is taken.
    """
    grouped: dict[str, dict[int, dict[int, TrackBox]]] = {}
    repeated = 0
    columns = [boxes[name].to_pylist() for name in boxes.column_names]
    for clip_id, frame, person_id, x1, y1, x2, y2, confidence in zip(*columns, strict=True):
        track = grouped.setdefault(clip_id, {}).setdefault(person_id, {})
        if frame in track:
            repeated += 1
        else:
            track[frame] = TrackBox(frame, x1, y1, x2, y2, confidence)
    result = {
        clip_id: {person_id: [by_frame[frame] for frame in sorted(by_frame)] for person_id, by_frame in people.items()}
        for clip_id, people in grouped.items()
    }
    return result, repeated


def to_keyframes(track: Sequence[TrackBox]) -> list[TrackBox]:
    """Return the key frames from which `to_boxes` re-makes `track` (sorted by frame) exactly.

    Inside a run of equal boxes on consecutive frames only the first and last are kept; the last box before a gap, and
    the last of all, is marked `ends`.
    """
    kept = []
    for index, box in enumerate(track):
        before = track[index - 1] if index else None
        after = track[index + 1] if index + 1 < len(track) else None
        ends = after is None or after.frame != box.frame + 1
        held = before is not None and before.frame == box.frame - 1 and _same(before, box)
        if held and not ends and after is not None and _same(box, after):
            continue
        kept.append(replace(box, ends=ends))
    return kept


def to_boxes(keyframes: Sequence[TrackBox], last_frame: int | None = None) -> list[TrackBox]:
    """Return one box for every frame in which the track is visible, linearly interpolated between key frames.

    `keyframes` are sorted by frame. After a key frame that `ends`, nothing until the next one. An open last key frame
    is held until `last_frame`, when that is known. Confidence is taken from the key frame before.
    """
    dense: list[TrackBox] = []
    for index, box in enumerate(keyframes):
        dense.append(replace(box, ends=False))
        after = keyframes[index + 1] if index + 1 < len(keyframes) else None
        if box.ends:
            continue
        if after is None:
            dense += [replace(box, frame=frame) for frame in range(box.frame + 1, (last_frame or 0) + 1)]
            continue
        for frame in range(box.frame + 1, after.frame):
            share = (frame - box.frame) / (after.frame - box.frame)
            corners = [a if a == b else a + (b - a) * share for a, b in zip(box.corners, after.corners, strict=True)]
            dense.append(TrackBox(frame, *corners, confidence=box.confidence))
    return dense


@dataclass(frozen=True)
class Track:
    """A track as a tool has it: key frames, sorted, and the frame until which an open last one is held, if known."""

    keyframes: Sequence[TrackBox]
    last_frame: int | None = None

    def boxes(self) -> list[TrackBox]:
        """Return its boxes, one for every frame in which it is visible."""
        return to_boxes(self.keyframes, self.last_frame)


def drawing(parts: Sequence[Track]) -> dict[str, Any]:
    """Return the judgement that a person's boxes are those of their tracks; of two boxes on a frame, the first.

    It has the key frames of one track where they say all, else each box.
    """
    frames = [box.frame for box in parts[0].keyframes]
    rising = all(a < b for a, b in itertools.pairwise(frames))
    if len(parts) != 1 or not rising or any(box.confidence is not None for box in parts[0].keyframes):
        boxes: dict[int, tuple[float | None, ...]] = {}
        for part in parts:
            for box in part.boxes():
                boxes.setdefault(box.frame, (*box.corners, box.confidence))
        return drawn(boxes)
    stretches: list[list[list[float]]] = []
    ended = True
    for box in parts[0].keyframes:
        if ended:
            stretches.append([])
        stretches[-1].append([box.frame, *map(float, box.corners)])
        ended = box.ends
    if not ended and (parts[0].last_frame or 0) > stretches[-1][-1][0]:
        stretches[-1].append([parts[0].last_frame or 0, *stretches[-1][-1][1:]])
    return {"op": "draw", "stretches": stretches}


def box_rows(clip_id: str, person_id: int, boxes: Sequence[TrackBox]) -> list[dict]:
    """Return rows of table `boxes`."""
    names = ("frame", "x1", "y1", "x2", "y2", "confidence")
    common = {"clip_id": clip_id, "person_id": person_id}
    return [{**common, **{name: getattr(box, name) for name in names}} for box in boxes]


def upright(
    corners: tuple[float, float, float, float], degrees: float, pivot: tuple[float, float]
) -> tuple[float, float, float, float]:
    """Return the upright box around a box turned clockwise (y points down) about `pivot`, in pixels."""
    if degrees % 360 == 0:
        return corners
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x1, y1, x2, y2 = corners
    turned = [
        (pivot[0] + (x - pivot[0]) * cos - (y - pivot[1]) * sin, pivot[1] + (x - pivot[0]) * sin + (y - pivot[1]) * cos)
        for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))
    ]
    xs, ys = zip(*turned, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def free_person_ids(taken: Container[int]) -> Iterator[int]:
    """Yield person ids from 1 that are not taken, each once."""
    return (number for number in itertools.count(1) if number not in taken)


class BoxCount:
    """Counts the boxes of a clip, which key frames may multiply without end: between 0 and 2,000,000,000, say."""

    def __init__(self, where: str) -> None:
        self._where, self._boxes = where, 0

    def add(self, keyframes: Sequence[TrackBox], last_frame: int | None) -> None:
        """Count the boxes that `to_boxes` would make of these key frames. Raises `FormatError` when it is too much."""
        highest = max([last_frame or 0, *(box.frame for box in keyframes)])
        if highest > MAX_FRAMES or any(box.frame < -MAX_FRAMES for box in keyframes):
            raise FormatError(
                f"{self._where}: frame {highest} of a clip of {MAX_FRAMES:,} at most", "cut the video into clips first"
            )
        pairs = itertools.pairwise(keyframes)
        self._boxes += len(keyframes) + sum(max(b.frame - a.frame - 1, 0) for a, b in pairs if not a.ends)
        if keyframes and not keyframes[-1].ends:
            self._boxes += max((last_frame or 0) - keyframes[-1].frame, 0)
        if self._boxes > MAX_BOXES:
            raise FormatError(
                f"{self._where}: its tracks are over {MAX_BOXES:,} boxes", "cut the video into clips first"
            )


def _same(a: TrackBox, b: TrackBox) -> bool:
    return a.corners == b.corners and a.confidence == b.confidence
