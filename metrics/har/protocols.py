"""The two protocols as data, and what they make of scoring arrays.

`paper` is the reference's scoring as it is: truth by key frame, duplicates as given, logit >= 0.5, all classes
averaged. `corrected` repairs it: truth by box, padded boxes and repeated truth removed, ties grouped, p >= 0.5, classes
with truth. In both, key frames without predictions count as misses (the reference never met one).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from microg.actions.rows import ScoreKind
from microg.errors import ConfigError
from microg.metrics.har.arrays import Boxes, ScoringArrays, TruthBoxes
from microg.metrics.har.detection import MatchOrder, Ties, match
from microg.metrics.har.multilabel import Cells, Lookup, truth_by_box, truth_by_key


@dataclass(frozen=True)
class Protocol:
    """How rows become scores.

    unique_boxes, unique_truth: remove boxes and labels that are there before. ties: how mAP ranks equal scores.
    lookup: whose labels a box has. raw_threshold: threshold on scores as they are; None is p >= 0.5. all_classes:
    macro averages take in classes without truth, which score 0.
    """

    name: str
    unique_boxes: bool
    unique_truth: bool
    ties: Ties
    lookup: Lookup
    raw_threshold: float | None
    all_classes: bool
    match_order: MatchOrder = "file"

    def threshold(self, kind: ScoreKind) -> float:
        """Return the least score that says yes.

        >>> PAPER.threshold("logit"), CORRECTED.threshold("logit"), CORRECTED.threshold("probability")
        (0.5, 0.0, 0.5)
        """
        return self.raw_threshold if self.raw_threshold is not None else half(kind)


def half(kind: ScoreKind) -> float:
    """Return the score that means p = 0.5."""
    return 0.0 if kind == "logit" else 0.5


PAPER = Protocol("paper", False, False, "stable", "key", 0.5, True)
CORRECTED = Protocol("corrected", True, True, "grouped", "box", None, False)
PROTOCOLS = {protocol.name: protocol for protocol in (PAPER, CORRECTED)}


def protocols(name: str) -> tuple[Protocol, ...]:
    """Return the protocols that `paper`, `corrected` or `both` names. Raises `ConfigError`.

    >>> [protocol.name for protocol in protocols("both")]
    ['paper', 'corrected']
    """
    if name == "both":
        return PAPER, CORRECTED
    if name not in PROTOCOLS:
        raise ConfigError(f"there is no protocol {name!r}", f"protocols are {', '.join(PROTOCOLS)} and both")
    return (PROTOCOLS[name],)


@dataclass(frozen=True)
class Evaluation:
    """A arrays under a protocol: matched detections, multi-label cells and truth labels, ready to be counted.

    boxes: the predicted boxes taken. hits (classes, n) bool: true positives. cells: one column a box. label (l,) and
    label_key (l,): the truth labels taken and their key frames.
    """

    arrays: ScoringArrays
    protocol: Protocol
    boxes: Boxes
    hits: np.ndarray
    cells: Cells
    label: np.ndarray
    label_key: np.ndarray

    def support(self, keys: np.ndarray | None = None) -> np.ndarray:
        """Return the number of truth labels (classes,), of the key frames chosen by the mask `keys`."""
        label = self.label if keys is None else self.label[keys[self.label_key]]
        return np.bincount(label, minlength=len(self.arrays.space))


def evaluate(arrays: ScoringArrays, protocol: Protocol) -> Evaluation:
    """Apply a protocol: choose boxes and labels, match them, and look truth up."""
    boxes, truth = arrays.boxes, arrays.truth
    if protocol.unique_boxes and boxes.occurrence.any():
        boxes = _first_occurrences(boxes)
    labels = np.flatnonzero(~truth.repeated) if protocol.unique_truth else np.arange(len(truth.label))
    hits = match(boxes, truth, labels, order=protocol.match_order)
    cells = _look_up(protocol.lookup, boxes, truth, labels)
    return Evaluation(arrays, protocol, boxes, hits, cells, truth.label[labels], truth.key[truth.label_box[labels]])


def _first_occurrences(boxes: Boxes) -> Boxes:
    first = np.flatnonzero(boxes.occurrence == 0)
    return Boxes(
        key=boxes.key[first],
        xyxy=boxes.xyxy[first],
        occurrence=boxes.occurrence[first],
        scores=boxes.scores[:, first],
        rows=boxes.rows[:, first],
    )


def _look_up(lookup: Lookup, boxes: Boxes, truth: TruthBoxes, labels: np.ndarray) -> Cells:
    return (truth_by_key if lookup == "key" else truth_by_box)(boxes, truth, labels)
