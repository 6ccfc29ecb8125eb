"""What is odd about predictions and truth, found from the rows alone and named with counts and examples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from microg.data.taxonomy import TO_AVA_80
from microg.errors import MetricError
from microg.metrics.har.arrays import ScoringArrays
from microg.metrics.har.boxes import iou, same_key_pairs
from microg.metrics.har.detection import match

_EXAMPLES = 3
_LEAST_CONSTANT = 3
# Shares of boxes with one score vector: less is a few boxes outside the image, more is a model that ignores its input.
_ROI_SCALE_SHARE = (0.03, 0.5)


@dataclass(frozen=True)
class Finding:
    """One thing found: a stable code, how often, what it means, and examples (clip id and frame)."""

    code: str
    count: int
    message: str
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.message + (f" (e.g. {', '.join(self.examples)})" if self.examples else "")


def check_overlap(arrays: ScoringArrays) -> None:
    """Raise `MetricError` when predictions and truth share no key frame, saying how far they agree."""
    if np.isin(arrays.truth.key, arrays.boxes.key).any():
        return
    clips = np.intersect1d(arrays.key_clip[arrays.boxes.key], arrays.key_clip[arrays.truth.key])
    if len(clips):
        raise MetricError(
            f"no overlap: predictions and truth share {len(clips)} clips but no key frame",
            f"are frames counted alike? {_examples(arrays, arrays.boxes.key[:1])[0]} is predicted, "
            f"{_examples(arrays, arrays.truth.key[:1])[0]} is true",
        )
    raise MetricError(
        f"no overlap: of {len(np.unique(arrays.key_clip[arrays.boxes.key]))} predicted clips none is in the truth",
        "are they of the same split?",
    )


def find(arrays: ScoringArrays) -> list[Finding]:
    """Return all findings, the gravest first."""
    found = [
        constant_scores(arrays),
        _missing_keys(arrays),
        *_unmatched(arrays),
        _duplicates(arrays),
        _repeated_truth(arrays),
        _claim_order(arrays),
        _meaning(arrays),
    ]
    return [finding for finding in found if finding is not None]


def constant_scores(arrays: ScoringArrays) -> Finding | None:
    """Find many boxes at different places with one and the same score vector.

    An RoI scale larger than the backbone's stride allows puts far boxes outside the feature map, where pooling reads
    zeros; so does a crop that leaves boxes outside. The scores alone tell; the boxes' places are added as evidence.
    """
    first = np.flatnonzero(arrays.boxes.occurrence == 0)
    if not len(first):
        return None
    xyxy = arrays.boxes.xyxy[first]
    members = _largest_equal_group(arrays.boxes.scores[:, first], xyxy)
    share = len(members) / len(first)
    if len(members) < _LEAST_CONSTANT:
        return None
    text = f"{len(members):,} of {len(first):,} boxes, at different places, have one and the same score vector"
    examples = _examples(arrays, arrays.boxes.key[first[members]])
    low, high = _ROI_SCALE_SHARE
    if share > high:
        return Finding(
            "constant-scores", len(members), f"constant scores: {text}: the model hardly looks at its input", examples
        )
    if share < low:
        return Finding(
            "constant-scores", len(members), f"constant scores: {text}: they seem to lie outside the crop", examples
        )
    far = xyxy[:, :2].max(axis=1)
    edge = float(far[members].min())
    beyond = int((far >= edge).sum())
    evidence = f"; all begin beyond {edge:.0%} of the frame, as do {beyond - len(members)} others" if edge > 0.1 else ""
    return Finding(
        "roi-scale",
        len(members),
        f"RoI-scale defect: {text}{evidence}. The RoI pooling uses a larger scale than the backbone's stride, "
        "so that these boxes fall outside the feature map",
        examples,
    )


def _largest_equal_group(scores: np.ndarray, xyxy: np.ndarray) -> np.ndarray:
    """Return the columns (g,) of the largest group of equal score vectors, counting each place in the frame once."""
    # A random projection in wrapping 64-bit integers finds equal columns; they are compared for certain afterwards.
    factors = np.random.default_rng(0).integers(1, 2**63, len(scores), dtype=np.uint64) | np.uint64(1)
    digest = np.zeros(scores.shape[1], np.uint64)
    for factor, row in zip(factors, scores, strict=True):
        digest += (row + 0.0).view(np.uint64) * factor
    _, group, counts = np.unique(digest, return_inverse=True, return_counts=True)
    best = np.zeros(0, np.int64)
    for candidate in np.argsort(-counts, kind="stable"):
        if counts[candidate] <= max(len(best), 1):
            break
        members = np.flatnonzero(group == candidate)
        members = members[(scores[:, members] == scores[:, members[:1]]).all(axis=0)]
        distinct = members[np.sort(np.unique(xyxy[members], axis=0, return_index=True)[1])]
        if len(distinct) > len(best):
            best = distinct
    return best


def _missing_keys(arrays: ScoringArrays) -> Finding | None:
    truth = arrays.truth
    missing = np.flatnonzero(~np.isin(truth.key, arrays.boxes.key))
    if not len(missing):
        return None
    keys = np.unique(truth.key[missing])
    labels = int(np.isin(truth.label_box, missing).sum())
    text = (
        f"missing key frames: {len(keys):,} of {len(np.unique(truth.key)):,} have no prediction; their "
        f"{len(missing):,} boxes with {labels:,} labels are scored as misses"
    )
    return Finding("missing-key-frames", len(keys), text, _examples(arrays, keys))


def _unmatched(arrays: ScoringArrays) -> list[Finding]:
    boxes, truth = arrays.boxes, arrays.truth
    pred, true = same_key_pairs(boxes.key, truth.key)
    near = iou(boxes.xyxy[pred], truth.xyxy[true]) >= 0.5
    matched, found = np.zeros(len(boxes.key), dtype=bool), np.zeros(len(truth.key), dtype=bool)
    matched[pred[near]], found[true[near]] = True, True
    result = []
    stray = np.flatnonzero(~np.isin(boxes.key, truth.key))
    if len(stray):
        text = f"boxes without truth: {len(stray):,} boxes in key frames without truth count as false positives"
        result.append(Finding("boxes-without-truth", len(stray), text, _examples(arrays, boxes.key[stray])))
    off = np.flatnonzero(~matched & np.isin(boxes.key, truth.key))
    if len(off):
        text = f"boxes off truth: {len(off):,} boxes overlap no true box by IoU >= 0.5 and count as false positives"
        result.append(Finding("boxes-off-truth", len(off), text, _examples(arrays, boxes.key[off])))
    lost = np.flatnonzero(~found & np.isin(truth.key, boxes.key))
    if len(lost):
        text = f"missed boxes: {len(lost):,} true boxes are overlapped by no predicted box and are scored as misses"
        result.append(Finding("missed-boxes", len(lost), text, _examples(arrays, truth.key[lost])))
    unit = [values.max(initial=0.0) <= 2 for values in (boxes.xyxy, truth.xyxy)]
    if unit[0] != unit[1]:
        which = "truth" if unit[0] else "predictions"
        result.append(
            Finding("pixel-boxes", 1, f"the boxes of the {which} look like pixels, the others are normalised")
        )
    return result


def _duplicates(arrays: ScoringArrays) -> Finding | None:
    again = np.flatnonzero(arrays.boxes.occurrence)
    if not len(again):
        return None
    text = (
        f"duplicate boxes: {len(again):,} of {len(arrays.boxes.key):,} predicted boxes are there before (padding of a "
        "sampler?); 'paper' counts them again, 'corrected' takes the first"
    )
    return Finding("duplicate-boxes", len(again), text, _examples(arrays, arrays.boxes.key[again]))


def _repeated_truth(arrays: ScoringArrays) -> Finding | None:
    truth = arrays.truth
    again = np.flatnonzero(truth.repeated)
    if not len(again):
        return None
    text = (
        f"duplicate truth: {len(again):,} labels are there before; 'paper' counts each as a miss, 'corrected' drops it"
    )
    return Finding("duplicate-truth", len(again), text, _examples(arrays, truth.key[truth.label_box[again]]))


def _claim_order(arrays: ScoringArrays) -> Finding | None:
    labels = np.arange(len(arrays.truth.label))
    by_file, by_score = (match(arrays.boxes, arrays.truth, labels, order=order) for order in ("file", "score"))
    changed = np.unique(np.nonzero(by_file != by_score)[1])
    if not len(changed):
        return None
    text = (
        f"{len(changed):,} boxes compete for one true box: as in the reference the first in the file claims it, "
        "not the one with the highest score (--match-order score)"
    )
    return Finding("claims-by-file-order", len(changed), text, _examples(arrays, arrays.boxes.key[changed]))


def _meaning(arrays: ScoringArrays) -> Finding | None:
    if arrays.space.name != "ava80":
        return None
    foreign = [action_id for action_id, ava in TO_AVA_80.items() if ava is None]
    count = int(np.isin(arrays.truth.label, arrays.space.index(np.array(foreign))).sum())
    text = f"{count} truth labels 'operate spaceship' (28) are held against AVA's class 28, 'drive'"
    return Finding("other-meaning", count, text) if count else None


def _examples(arrays: ScoringArrays, keys: np.ndarray) -> tuple[str, ...]:
    chosen = np.unique(keys)[:_EXAMPLES]
    return tuple(f"{arrays.clips[arrays.key_clip[key]]}:{arrays.key_frame[key]}" for key in chosen)
