"""HAR scoring as one would write it down in plain Python: dictionaries and loops, no arrays. Slow, short, independent.

It is what `benchmarks/har_score.py` measures against, and tests hold the array code against it on random data.
Rows are tuples (clip, frame, x1, y1, x2, y2, action, score) and (clip, frame, x1, y1, x2, y2, action).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

Row = tuple
MIN_IOU = 0.5


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def mean_average_precision(predictions: list[Row], truth: list[Row], ties: str = "stable") -> float:
    """Return mAP@0.5 over classes with truth; `ties` is `stable` or `grouped`."""
    by_place = defaultdict(list)
    total: dict[int, int] = defaultdict(int)
    for row in truth:
        by_place[row[0], row[1], row[6]].append([row[2:6], False])
        total[row[6]] += 1
    ranked = defaultdict(list)
    for clip, frame, x1, y1, x2, y2, action, score in predictions:
        best, best_overlap = None, -1.0
        for candidate in by_place.get((clip, frame, action), ()):
            value = overlap((x1, y1, x2, y2), candidate[0])
            if value > best_overlap:
                best, best_overlap = candidate, value
        hit = best is not None and best_overlap >= MIN_IOU and not best[1]
        if hit and best is not None:
            best[1] = True
        ranked[action].append((score, hit))
    precisions = [_average_precision(ranked[action], count, ties) for action, count in total.items()]
    return sum(precisions) / len(precisions)


def _average_precision(ranked: list[tuple[float, bool]], count: int, ties: str) -> float:
    ranked = sorted(ranked, key=lambda item: -item[0])
    points, hits = [], 0
    for place, (score, hit) in enumerate(ranked, 1):
        hits += hit
        last = place == len(ranked) or ranked[place][0] != score
        if ties == "stable" or last:
            points.append((hits / count, hits / place))
    area, highest = 0.0, 0.0
    for place in range(len(points) - 1, -1, -1):
        highest = max(highest, points[place][1])
        area += highest * (points[place][0] - (points[place - 1][0] if place else 0.0))
    return area


def boxes_with_labels(predictions: list[Row], truth: list[Row], lookup: str) -> list[tuple[dict[int, float], set[int]]]:
    """Return (scores by action, true actions) of each predicted box, truth looked up by `key` frame or by `box`.

    By box, each box takes the nearest free true one; what nobody predicted is added without scores.
    """
    boxes: dict[tuple, dict[int, float]] = {}
    for *place, action, score in predictions:
        number = 0
        while action in boxes.setdefault((*place, number), {}):
            number += 1
        boxes[*place, number][action] = score
    labels, by_key = defaultdict(set), defaultdict(set)
    for row in truth:
        labels[row[:6]].add(row[6])
        by_key[row[:2]].add(row[6])
    predicted = {place[:2] for place in boxes}
    if lookup == "key":
        result = [(scores, by_key.get(place[:2], set())) for place, scores in boxes.items()]
        return result + [({}, by_key[place[:2]]) for place in labels if place[:2] not in predicted]
    true_by_key = defaultdict(list)
    for place in labels:
        true_by_key[place[:2]].append(place)
    pairs = []
    for number, place in enumerate(boxes):
        for other in true_by_key.get(place[:2], ()):
            value = overlap(place[2:6], other[2:6])
            if value >= MIN_IOU:
                pairs.append((-value, number, other))
    taken, free = {}, set(labels)
    for _, number, other in sorted(pairs, key=lambda pair: pair[:2]):
        if number not in taken and other in free:
            taken[number] = other
            free.discard(other)
    result = [(scores, labels[taken[n]] if n in taken else set()) for n, scores in enumerate(boxes.values())]
    return result + [({}, labels[place]) for place in labels if place in free]


def multilabel(
    boxes: list[tuple[dict[int, float], set[int]]], actions: Sequence[int], threshold: float, all_classes: bool
) -> dict[str, float]:
    """Return macro F1, precision, recall and AUROC."""
    values = defaultdict(list)
    for action in actions:
        positive, negative, hits, wrong, missed = [], [], 0, 0, 0
        for scores, true in boxes:
            score = scores.get(action, float("-inf"))
            said = score >= threshold
            (positive if action in true else negative).append(score)
            hits += said and action in true
            wrong += said and action not in true
            missed += not said and action in true
        if positive or all_classes:
            values["f1"].append(2 * hits / (2 * hits + wrong + missed) if hits else 0.0)
            values["precision"].append(hits / (hits + wrong) if hits else 0.0)
            values["recall"].append(hits / (hits + missed) if hits else 0.0)
        if positive and negative:
            values["auroc"].append(_auroc(positive, negative))
    return {name: sum(found) / len(found) for name, found in values.items()}


def _auroc(positive: list[float], negative: list[float]) -> float:
    ranked = sorted([(score, True) for score in positive] + [(score, False) for score in negative])
    wins = below = place = 0.0
    while place < len(ranked):
        start = int(place)
        end = start
        while end < len(ranked) and ranked[end][0] == ranked[start][0]:
            end += 1
        ups = sum(mark for _, mark in ranked[start:end])
        downs = end - start - ups
        wins += ups * (below + downs / 2)
        below += downs
        place = end
    return wins / (len(positive) * len(negative))


def score(predictions: list[Row], truth: list[Row], actions: Sequence[int]) -> dict[str, dict[str, float]]:
    """Return map, f1, precision, recall and auroc under both protocols; scores are logits."""
    single_truth = list(dict.fromkeys(truth))
    first: dict[Row, Row] = {}
    for row in predictions:
        first.setdefault(row[:7], row)
    single = list(first.values())
    paper = multilabel(boxes_with_labels(predictions, truth, "key"), actions, 0.5, True)
    corrected = multilabel(boxes_with_labels(single, single_truth, "box"), actions, 0.0, False)
    return {
        "paper": {"map": mean_average_precision(predictions, truth), **paper},
        "corrected": {"map": mean_average_precision(single, single_truth, "grouped"), **corrected},
    }
