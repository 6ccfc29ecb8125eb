"""How far two annotators' people agree: overlap of their boxes, ids over time, people that only one of them has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from microg.annotations.boxes import Tracks
from microg.metrics.agreement.coefficients import Measure, share
from microg.metrics.agreement.scores import Score, Scorer

# From this overlap on two boxes of a frame are of one person, as in tracking benchmarks.
SAME_BOX = 0.5


@dataclass(frozen=True)
class ClipBoxes:
    """What two annotators' tracks of one clip have in common.

    Attributes:
        overlap: Sum of IoU over frames of matched people that both have a box of.
        frames: How many such frames there are.
        same_id: Frames on which the boxes of matched people are of one person (IDTP).
        same_box: Frames on which boxes are of one person, whatever their ids.
        boxes: Boxes of both together.
        matched: People that both have.
        only_first, only_second: People that only one of them has.
    """

    overlap: float
    frames: int
    same_id: int
    same_box: int
    boxes: int
    matched: int
    only_first: int
    only_second: int


def compare_tracks(first: Tracks, second: Tracks) -> ClipBoxes:
    """Match the people of two annotators and return what they have in common.

    People are matched one to one so that the sum over pairs of IoU over time (sum of IoU on common frames by the
    number of frames of either) is largest; ids so that as many boxes as possible keep theirs (IDF1).
    """
    from scipy.optimize import linear_sum_assignment

    ious = {(a, b): _overlaps(first[a], second[b]) for a in first for b in second}
    people, others = sorted(first), sorted(second)
    alike = np.zeros((len(people), len(others)))
    hits = np.zeros((len(people), len(others)))
    for row, a in enumerate(people):
        for column, b in enumerate(others):
            found = ious[a, b]
            together = len(first[a].keys() | second[b].keys())
            alike[row, column] = sum(found.values()) / together if together else 0
            hits[row, column] = sum(value >= SAME_BOX for value in found.values())
    pairs = [(people[r], others[c]) for r, c in zip(*linear_sum_assignment(-alike), strict=True) if alike[r, c] > 0]
    common = [value for pair in pairs for value in ious[pair].values()]
    ids = linear_sum_assignment(-hits)
    return ClipBoxes(
        overlap=float(sum(common)),
        frames=len(common),
        same_id=int(hits[ids].sum()),
        same_box=_same_boxes(first, second, ious),
        boxes=sum(map(len, first.values())) + sum(map(len, second.values())),
        matched=len(pairs),
        only_first=len(people) - len(pairs),
        only_second=len(others) - len(pairs),
    )


def box_scores(tracks: Mapping[str, Mapping[str, Tracks]], places: Mapping[str, int], scorer: Scorer) -> list[Score]:
    """Return scores of all pairs of annotators together and of each pair.

    Args:
        tracks: Clip id -> annotator -> that annotator's people.
        places: Number of each clip.
        scorer: Makes the scores.
    """
    by_pair: dict[tuple[str, str], list[tuple[int, ClipBoxes]]] = {}
    for clip, by in tracks.items():
        for pair in combinations(sorted(by), 2):
            by_pair.setdefault(pair, []).append((places[clip], compare_tracks(by[pair[0]], by[pair[1]])))
    everything = [row for rows in by_pair.values() for row in rows]
    annotators = {name for pair in by_pair for name in pair}
    scores = [scorer.score(name, each) for name, each in _measures(everything, len(annotators)).items()]
    for (first, second), rows in sorted(by_pair.items()):
        found = _measures(rows, 2)
        scores += [scorer.score(name, each, annotator=first, other=second) for name, each in found.items()]
    return scores


def _measures(rows: list[tuple[int, ClipBoxes]], raters: int) -> dict[str, Measure]:
    clips = np.array([place for place, _ in rows], dtype=np.int64)

    def part(right: Sequence[float], of: Sequence[float], nothing: str) -> Measure:
        weight = np.array(of, dtype=np.float64)
        mean = np.divide(np.array(right, dtype=np.float64), weight, out=np.zeros(len(weight)), where=weight > 0)
        return share(mean, clips, weight, raters, f"{nothing} in clips that two annotators edited")

    found = [each for _, each in rows]
    people = [2 * each.matched + each.only_first + each.only_second for each in found]
    boxes, same = [each.boxes for each in found], [each.same_box for each in found]
    return {
        "iou": part([each.overlap for each in found], [each.frames for each in found], "no matched people"),
        "idf1": part([2 * each.same_id for each in found], boxes, "no boxes"),
        "box_f1": part([2 * each.same_box for each in found], boxes, "no boxes"),
        "id_agreement": part([each.same_id for each in found], same, "no matched boxes"),
        "people_f1": part([2 * each.matched for each in found], people, "no people"),
        "only_first": part([each.only_first for each in found], [1.0] * len(found), "nothing"),
        "only_second": part([each.only_second for each in found], [1.0] * len(found), "nothing"),
    }


def _overlaps(one: Mapping[int, tuple], other: Mapping[int, tuple]) -> dict[int, float]:
    """Return the IoU of two people's boxes on each frame that both have."""
    return {frame: iou(one[frame], other[frame]) for frame in sorted(one.keys() & other.keys())}


def iou(one: tuple, other: tuple) -> float:
    """Return the intersection over union of two boxes (x1, y1, x2, y2, ...).

    >>> iou((0, 0, 2, 2), (1, 0, 3, 2))
    0.3333333333333333
    """
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    if wide <= 0 or high <= 0:
        return 0.0
    areas = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1])
    return wide * high / (areas - wide * high)


def _same_boxes(first: Tracks, second: Tracks, ious: Mapping[tuple[int, int], Mapping[int, float]]) -> int:
    """Return how many boxes can be matched frame by frame, whatever their ids."""
    from scipy.optimize import linear_sum_assignment

    by_frame: dict[int, list[tuple[int, int]]] = {}
    for (a, b), found in ious.items():
        for frame, value in found.items():
            if value >= SAME_BOX:
                by_frame.setdefault(frame, []).append((a, b))
    total = 0
    for pairs in by_frame.values():
        rows, columns = (sorted({pair[side] for pair in pairs}) for side in (0, 1))
        good = np.zeros((len(rows), len(columns)))
        for a, b in pairs:
            good[rows.index(a), columns.index(b)] = 1
        total += int(good[linear_sum_assignment(-good)].sum())
    return total
