"""HAR scores under a protocol: per class, averaged, over slices; as one function and as a mergeable state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from microg.actions.rows import ScoreKind
from microg.data.label_space import LabelSpace
from microg.metrics.har.detection import Ties, average_precision_of, rank
from microg.metrics.har.multilabel import auroc_of, average, confusion, precision_recall_f1, weighted_average
from microg.metrics.har.protocols import Evaluation, Protocol, evaluate, half
from microg.metrics.har.state import RowState

_ALL_TIES: tuple[Ties, ...] = ("stable", "reversed", "grouped", "best", "worst")


@dataclass(frozen=True)
class ClassScores:
    """Scores of each class, arrays (classes,): floats are nan where undefined, counts are int64.

    support: truth labels; cells: positive multi-label cells (more than `support` where truth is looked up by key).
    ap: by tie rule. auroc_low and auroc_high bound the AUROC by its ties; auroc_pooled is that of all cells at once.
    """

    support: np.ndarray
    cells: np.ndarray
    ap: Mapping[str, np.ndarray]
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    auroc: np.ndarray
    auroc_low: np.ndarray
    auroc_high: np.ndarray
    auroc_pooled: float
    hits: np.ndarray
    wrong: np.ndarray
    missed: np.ndarray


@dataclass(frozen=True)
class Averages:
    """Averaged scores by metric (map, precision, recall, f1, auroc) and average (macro, micro, weighted).

    nan where undefined; map has no micro average.
    """

    values: Mapping[str, Mapping[str, float]]
    classes: int
    labels: int
    boxes: int


def class_scores(
    evaluation: Evaluation, threshold: float, *, keys: np.ndarray | None = None, ties: tuple[Ties, ...] = _ALL_TIES
) -> ClassScores:
    """Score each class over all key frames, or those chosen by the mask `keys` (number of key frames,)."""
    boxes, cells, hits = evaluation.boxes, evaluation.cells, evaluation.hits
    scores, rows, cell_scores, marks = boxes.scores, boxes.rows, cells.scores, cells.truth
    if keys is not None:
        shared = cell_scores is scores
        taken, cell_taken = np.flatnonzero(keys[boxes.key]), np.flatnonzero(keys[cells.key])
        scores, rows, hits = scores[:, taken], rows[:, taken], hits[:, taken]
        cell_scores, marks = scores if shared else cell_scores[:, cell_taken], marks[:, cell_taken]
    support = evaluation.support(keys)
    ordered = np.sort(scores, axis=1)
    cell_ordered = ordered if cell_scores is scores else np.sort(cell_scores, axis=1)
    absent = np.count_nonzero(rows < 0, axis=1)

    ap = {rule: np.full(len(support), np.nan) for rule in ties}
    areas = []
    for c, known in enumerate(support.tolist()):
        areas.append(auroc_of(cell_ordered[c], cell_scores[c][marks[c]]))
        if known:
            index = np.flatnonzero(hits[c])
            ranked = rank(ordered[c, absent[c] :], scores[c, index], index)
            for rule in ties:
                ap[rule][c] = average_precision_of(ranked, known, rule, scores[c], rows[c])
    hit, wrong, missed = confusion(cell_scores, marks, threshold)
    precision, recall, f1 = precision_recall_f1(hit, wrong, missed)
    auroc, low, high = np.array([[area.value, area.low, area.high] for area in areas]).T
    # a stable sort merges the classes' sorted runs
    pooled = auroc_of(np.sort(cell_ordered.reshape(-1), kind="stable"), cell_scores[marks]).value
    return ClassScores(support, hit + missed, ap, precision, recall, f1, auroc, low, high, pooled, hit, wrong, missed)


def averages(scores: ClassScores, protocol: Protocol, *, classes: np.ndarray | None = None, boxes: int = 0) -> Averages:
    """Average class scores under a protocol, over all classes or those chosen by the mask `classes`.

    The micro AUROC is nan for chosen classes.
    """
    chosen = np.ones(len(scores.support), dtype=bool) if classes is None else classes
    judged = chosen if protocol.all_classes else chosen & (scores.cells > 0)
    pooled = precision_recall_f1(*(part[chosen].sum() for part in (scores.hits, scores.wrong, scores.missed)))
    micro_auroc = scores.auroc_pooled if classes is None else float("nan")
    micro = {"auroc": micro_auroc, **dict(zip(("precision", "recall", "f1"), map(float, pooled), strict=True))}
    weight = np.where(chosen, scores.cells, 0)
    ap = scores.ap[protocol.ties]
    values = {
        "map": {"macro": average(ap, chosen), "weighted": weighted_average(ap, np.where(chosen, scores.support, 0))}
    }
    for name in ("f1", "precision", "recall", "auroc"):
        per_class = getattr(scores, name)
        values[name] = {
            "macro": average(per_class, chosen if name == "auroc" else judged),
            "micro": micro[name],
            "weighted": weighted_average(per_class, weight),
        }
    known = chosen & (scores.support > 0)
    return Averages(values, int(known.sum()), int(scores.support[chosen].sum()), boxes)


@dataclass(frozen=True)
class Bracket:
    """Bounds within which a value published from unrounded scores lies, given scores printed with rounding.

    mAP and AUROC: equal printed scores in the worst and best order. F1 and recall: a score printed exactly at the
    threshold counted against and for.
    """

    map: tuple[float, float]
    f1: tuple[float, float]
    recall: tuple[float, float]
    auroc: tuple[float, float]


def bracket(evaluation: Evaluation, scores: ClassScores, threshold: float) -> Bracket:
    """Return the rounding-and-tie bracket of the macro averages; `scores` hold the tie rules `best` and `worst`."""
    everything = np.ones(len(scores.support), dtype=bool)
    judged = everything if evaluation.protocol.all_classes else scores.cells > 0
    cells = evaluation.cells
    at = cells.scores == threshold
    for_truth, against = np.count_nonzero(at & cells.truth, axis=1), np.count_nonzero(at & ~cells.truth, axis=1)
    kindest = precision_recall_f1(scores.hits, scores.wrong - against, scores.missed)
    harshest = precision_recall_f1(scores.hits - for_truth, scores.wrong, scores.missed + for_truth)
    return Bracket(
        map=(average(scores.ap["worst"], everything), average(scores.ap["best"], everything)),
        f1=(average(harshest[2], judged), average(kindest[2], judged)),
        recall=(average(harshest[1], judged), average(kindest[1], judged)),
        auroc=(average(scores.auroc_low, everything), average(scores.auroc_high, everything)),
    )


@dataclass(frozen=True)
class ProtocolScores:
    """Everything one protocol says; `at_half` has F1 and recall at p >= 0.5 where its threshold is another."""

    protocol: Protocol
    evaluation: Evaluation
    classes: ClassScores
    overall: Averages
    bracket: Bracket
    slices: Mapping[tuple[str, str], Averages]
    at_half: Mapping[str, float]


def score_protocol(
    evaluation: Evaluation, kind: ScoreKind, slices: Mapping[tuple[str, str], Any] | None = None
) -> ProtocolScores:
    """Score an evaluation; `slices` maps (kind, name) to a mask of key frames or of classes, see
    `microg.metrics.har.slices`.
    """
    protocol, space = evaluation.protocol, evaluation.problem.space
    threshold = protocol.threshold(kind)
    scores = class_scores(evaluation, threshold)
    overall = averages(scores, protocol, boxes=len(evaluation.cells.key))
    parts: dict[tuple[str, str], Averages] = {}
    for name, part in (slices or {}).items():
        if part.classes is not None:
            parts[name] = averages(scores, protocol, classes=part.classes, boxes=overall.boxes)
        else:
            own = class_scores(evaluation, threshold, keys=part.keys, ties=(protocol.ties,))
            parts[name] = averages(own, protocol, boxes=int(part.keys[evaluation.cells.key].sum()))
    at_half: dict[str, float] = {}
    if threshold != half(kind):
        _, recall, f1 = precision_recall_f1(*confusion(evaluation.cells.scores, evaluation.cells.truth, half(kind)))
        judged = np.ones(len(space), dtype=bool) if protocol.all_classes else scores.cells > 0
        at_half = {"f1": average(f1, judged), "recall": average(recall, judged)}
    return ProtocolScores(protocol, evaluation, scores, overall, bracket(evaluation, scores, threshold), parts, at_half)


class HarState(RowState):
    """Mergeable state of a whole protocol: rows in, `ProtocolScores` as plain values out."""

    def __init__(self, space: LabelSpace, protocol: Protocol, kind: ScoreKind = "logit") -> None:
        super().__init__(space)
        self.protocol = protocol
        self.kind: ScoreKind = kind

    @classmethod
    def empty(cls, space: LabelSpace, protocol: Protocol, kind: ScoreKind = "logit") -> HarState:
        """Return a state without rows."""
        return cls(space, protocol, kind)

    def scores(self) -> ProtocolScores:
        """Return the scores of all rows."""
        return score_protocol(evaluate(self.problem(), self.protocol), self.kind)

    def compute(self) -> dict[str, Any]:
        """Return the averages by metric, and the mAP by tie rule."""
        result = self.scores()
        by_rule = {rule: float(np.nanmean(values)) for rule, values in result.classes.ap.items()}
        return {**{name: dict(values) for name, values in result.overall.values.items()}, "map_by_tie_rule": by_rule}
