"""Which of a clip's known people somebody else's boxes are of, where nothing but the boxes tells."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from microg.formats.keyframes import TrackBox, free_person_ids

Key = TypeVar("Key", bound=Hashable)
Corners = tuple[float, float, float, float]
# A person's corners (x1, y1, x2, y2) in pixels by frame, for each person.
People = dict[int, dict[int, Corners]]
# The least mean IoU, and the least share of the shorter track's frames that both have.
_LEAST_IOU, _LEAST_SHARED = 0.5, 0.5


def frames_of(track: Sequence[TrackBox]) -> dict[int, Corners]:
    """Return the corners of a track's boxes by frame."""
    return {box.frame: box.corners for box in track}


def name_people(
    tracks: Mapping[Key, Sequence[TrackBox]], stated: Mapping[Key, int], *known: People
) -> tuple[dict[Key, int], int]:
    """Return a person id for each track, and how many were recognised by their boxes.

    Tracks that state their person keep it. The others are assigned to the known people whose boxes they cover best, so
    that the sum of mean IoUs over the frames both have is highest and none is below 0.5; what is left gets new ids.

    Args:
        tracks: Boxes by whatever a tool calls a track.
        stated: The person ids that tracks state.
        known: The clip's people before, with their boxes; those first that are likelier the same.
    """
    ids = {key: stated[key] for key in tracks if key in stated}
    taken = set(stated.values())
    for people in known:
        open_tracks = [key for key in tracks if key not in ids]
        candidates = [person for person in people if person not in taken]
        found = _assigned([frames_of(tracks[key]) for key in open_tracks], [people[each] for each in candidates])
        ids |= {open_tracks[track]: candidates[person] for track, person in found.items()}
        taken |= {candidates[person] for person in found.values()}
    recognised = sum(key not in stated for key in ids)
    free = free_person_ids(taken.union(*known))
    return {key: ids[key] if key in ids else next(free) for key in tracks}, recognised


def _assigned(tracks: Sequence[Mapping[int, Corners]], people: Sequence[Mapping[int, Corners]]) -> dict[int, int]:
    if not tracks or not people:
        return {}
    from scipy.optimize import linear_sum_assignment

    overlap = np.array([[_mean_iou(track, person) for person in people] for track in tracks])
    rows, columns = linear_sum_assignment(np.where(overlap >= _LEAST_IOU, overlap, 0.0), maximize=True)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return {row: column for row, column in pairs if overlap[row, column] >= _LEAST_IOU}


def _mean_iou(one: Mapping[int, Corners], other: Mapping[int, Corners]) -> float:
    """Return the mean IoU over the frames both have; 0 where these are less than half of the shorter track."""
    shared: Collection[int] = one.keys() & other.keys()
    if not shared or len(shared) < _LEAST_SHARED * min(len(one), len(other)):
        return 0.0
    a = np.array([one[frame] for frame in shared], np.float64)
    b = np.array([other[frame] for frame in shared], np.float64)
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    both = np.prod(np.clip(sides, 0, None), axis=1)
    union = np.prod(a[:, 2:] - a[:, :2], axis=1) + np.prod(b[:, 2:] - b[:, :2], axis=1) - both
    return float(np.mean(np.divide(both, union, out=np.zeros_like(both), where=union > 0)))
