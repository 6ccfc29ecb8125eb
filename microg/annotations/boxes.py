"""Edits of people's boxes: what a clip's boxes are after them. Doing the same edits again changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from microg.annotations.rows import Annotation

# (x1, y1, x2, y2, confidence or None), in pixels.
TrackedBox = tuple[float, float, float, float, float | None]
# A box by frame, for each person; frames count from 1.
Tracks = dict[int, dict[int, TrackedBox]]


def tracks_of(rows: Iterable[Mapping[str, Any]]) -> Tracks:
    """Return the tracks of one clip's rows of the table `boxes`; of two boxes of a person on a frame, the first."""
    tracks: Tracks = {}
    for row in rows:
        box = (row["x1"], row["y1"], row["x2"], row["y2"], row["confidence"])
        tracks.setdefault(row["person_id"], {}).setdefault(row["frame"], box)
    return tracks


def box_rows(clip_id: str, tracks: Tracks) -> list[dict[str, Any]]:
    """Return rows of the table `boxes`, by person and frame."""
    return [
        {"clip_id": clip_id, "frame": frame, "person_id": person}
        | dict(zip(("x1", "y1", "x2", "y2", "confidence"), box, strict=True))
        for person, track in sorted(tracks.items())
        for frame, box in sorted(track.items())
    ]


def drawn(track: Mapping[int, Sequence[float | None]]) -> dict[str, Any]:
    """Return the value of an edit that draws a person's boxes exactly as they are."""
    stretches: list[list[list[float]]] = []
    last = None
    for frame, box in sorted(track.items()):
        if last is None or frame != last + 1:
            stretches.append([])
        stretches[-1].append([frame, *(float(each) for each in box if each is not None)])
        last = frame
    return {"op": "draw", "stretches": stretches}


def edited(tracks: Tracks, edits: Iterable[Annotation]) -> Tracks:
    """Return the tracks of a clip after edits, in their order.

    Where two merged people have a box on one frame, the box of the one who stays counts.
    """
    result = {person: dict(track) for person, track in tracks.items()}
    for edit in edits:
        person, value = edit.person_id, edit.value
        assert person is not None  # `checked` sees to it
        if value["op"] == "delete":
            result.pop(person, None)
        elif value["op"] == "merge":
            if person != value["into"] and person in result:
                result[value["into"]] = result.pop(person) | result.get(value["into"], {})
        elif value["op"] == "split":
            moved = {frame: box for frame, box in result.get(person, {}).items() if frame >= value["frame"]}
            if moved:
                result[person] = {frame: box for frame, box in result[person].items() if frame < value["frame"]}
                result[value["new"]] = result.get(value["new"], {}) | moved
                if not result[person]:
                    del result[person]
        else:
            result.pop(person, None)
            track = {frame: box for stretch in value["stretches"] for frame, box in interpolate(stretch)}
            if track:
                result[person] = track
    return result


def interpolate(key_boxes: Sequence[Sequence[float]]) -> Iterator[tuple[int, TrackedBox]]:
    """Yield a box for each frame from the first key frame to the last, linear between neighbours.

    Args:
        key_boxes: `[frame, x1, y1, x2, y2]` each, or with a confidence as a sixth number, by rising frame.

    Yields:
        (frame, (x1, y1, x2, y2, confidence)); the confidence is that of a key frame, None between and without one.

    >>> [box[:2] for _, box in interpolate([[1, 0, 0, 4, 4], [3, 2, 0, 6, 4]])]
    [(0.0, 0.0), (1.0, 0.0), (2.0, 0.0)]
    """
    for number, key in enumerate(key_boxes):
        frame = int(key[0])
        x1, y1, x2, y2 = (float(each) for each in key[1:5])
        yield frame, (x1, y1, x2, y2, float(key[5]) if len(key) > 5 else None)
        if number + 1 == len(key_boxes):
            return
        following = key_boxes[number + 1]
        gap = int(following[0]) - frame
        for step in range(1, gap):
            part = step / gap
            a, b, c, d = (
                float(one) + (float(other) - float(one)) * part
                for one, other in zip(key[1:5], following[1:5], strict=True)
            )
            yield frame + step, (a, b, c, d, None)
