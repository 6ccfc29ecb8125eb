"""HAR scores under a protocol: per class, averaged, over slices; as one function and as a mergeable state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa

from microg.actions.rows import PREDICTION_BOXES, TRUTH_ROWS, ScoreKind
from microg.data.label_space import LabelSpace
from microg.data.taxonomy import GROUPS, group_name
from microg.metrics.har.arrays import ScoringArrays, arrays_from_rows
from microg.metrics.har.multilabel import average, confusion, weighted_average
from microg.metrics.har.protocols import Evaluation, Protocol, evaluate, half
from microg.metrics.har.ranking import ALL_TIES, Ranking, Ties
from microg.metrics.har.registry import METRICS, published_columns

_SUPPORTS = (("<5", 0, 4), ("5-50", 5, 50), (">50", 51, np.inf))


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Scores of each class.

    Attributes:
        support: Truth labels (classes,) int64.
        cells: Positive cells (classes,) int64: more than `support` where truth is looked up by key.
        hits, wrong, missed: Counts of cells (classes,) int64.
        values: Each registered metric (classes,) float64, nan where undefined, under the protocol's tie rule.
        by_ties: The metrics that rank, under each tie rule.
        pooled: The metrics of cells, of all cells at once.
    """

    support: np.ndarray
    cells: np.ndarray
    hits: np.ndarray
    wrong: np.ndarray
    missed: np.ndarray
    values: Mapping[str, np.ndarray]
    by_ties: Mapping[str, Mapping[Ties, np.ndarray]]
    pooled: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Averages:
    """Averaged scores by registered metric and average, nan where undefined, and of how much they are."""

    values: Mapping[str, Mapping[str, float]]
    classes: int
    labels: int
    boxes: int


def class_scores(
    evaluation: Evaluation, threshold: float, *, keys: np.ndarray | None = None, ties: tuple[Ties, ...] = ALL_TIES
) -> ClassScores:
    """Score each class over all key frames, or those chosen by the mask `keys` (number of key frames,).

    `ties` are the tie rules to score under; the protocol's is one of them.
    """
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
    hit, wrong, missed = confusion(cell_scores, marks, threshold)
    positives = hit + missed

    rankers = {name: (metric.of, metric.load()) for name, metric in METRICS.items() if metric.of != "counts"}
    by_ties: dict[str, dict[Ties, np.ndarray]] = {
        name: {rule: np.full(len(support), np.nan) for rule in ties} for name in rankers
    }
    for c in range(len(support)):
        there = slice(None) if not absent[c] else rows[c] >= 0
        rankings = {
            "cells": Ranking(scores=cell_scores[c], marks=marks[c], truth=int(positives[c]), ordered=cell_ordered[c]),
            "detections": Ranking(
                scores=scores[c][there],
                marks=hits[c][there],
                truth=int(support[c]),
                ordered=ordered[c, absent[c] :],
                rows=rows[c][there],
            ),
        }
        for name, (of, function) in rankers.items():
            if rankings[of].truth:
                for rule in ties:
                    by_ties[name][rule][c] = function(rankings[of], rule)
    rule = evaluation.protocol.ties
    everything = Ranking(
        scores=cell_scores.reshape(-1),
        marks=marks.reshape(-1),
        truth=int(positives.sum()),
        ordered=np.sort(cell_ordered.reshape(-1), kind="stable"),  # which merges the classes' sorted runs
    )
    return ClassScores(
        support=support,
        cells=positives,
        hits=hit,
        wrong=wrong,
        missed=missed,
        values={
            name: metric.load()(hit, wrong, missed) if metric.of == "counts" else by_ties[name][rule]
            for name, metric in METRICS.items()
        },
        by_ties=by_ties,
        pooled={name: function(everything, rule) for name, (of, function) in rankers.items() if of == "cells"},
    )


def averages(scores: ClassScores, protocol: Protocol, *, classes: np.ndarray | None = None, boxes: int = 0) -> Averages:
    """Average class scores under a protocol, over all classes or those chosen by the mask `classes`.

    Micro averages of metrics that rank are nan for chosen classes.
    """
    chosen = np.ones(len(scores.support), dtype=bool) if classes is None else classes
    judged = chosen if protocol.all_classes else chosen & (scores.cells > 0)
    counts = [part[chosen].sum() for part in (scores.hits, scores.wrong, scores.missed)]
    values: dict[str, dict[str, float]] = {}
    for name, metric in METRICS.items():
        per_class = scores.values[name]
        weight = scores.support if metric.of == "detections" else scores.cells
        pooled = scores.pooled.get(name, float("nan")) if classes is None else float("nan")
        every = {
            "macro": average(per_class, judged if metric.of == "counts" else chosen),
            "micro": float(metric.load()(*counts)) if metric.of == "counts" else pooled,
            "weighted": weighted_average(per_class, np.where(chosen, weight, 0)),
        }
        values[name] = {kind: every[kind] for kind in metric.averages}
    known = chosen & (scores.support > 0)
    return Averages(values=values, classes=int(known.sum()), labels=int(scores.support[chosen].sum()), boxes=boxes)


def bracket(evaluation: Evaluation, scores: ClassScores, threshold: float) -> dict[str, tuple[float, float]]:
    """Return bounds of the macro average of each published metric, given scores printed with rounding.

    A value published from unrounded scores lies within them. Metrics that rank: equal printed scores in the worst and
    best order (`scores` hold these tie rules). Metrics of counts: a score printed exactly at the threshold counted
    against and for.
    """
    everything = np.ones(len(scores.support), dtype=bool)
    judged = everything if evaluation.protocol.all_classes else scores.cells > 0
    cells = evaluation.cells
    at = cells.scores == threshold
    for_truth, against = np.count_nonzero(at & cells.truth, axis=1), np.count_nonzero(at & ~cells.truth, axis=1)
    harshest = (scores.hits - for_truth, scores.wrong, scores.missed + for_truth)
    kindest = (scores.hits, scores.wrong - against, scores.missed)
    result = {}
    for name in published_columns():
        if METRICS[name].of == "counts":
            function = METRICS[name].load()
            result[name] = (average(function(*harshest), judged), average(function(*kindest), judged))
        else:
            result[name] = tuple(average(scores.by_ties[name][rule], everything) for rule in ("worst", "best"))
    return result


@dataclass(frozen=True)
class Slice:
    """A part of a test set that is scored on its own: a mask of key frames (k,) or of classes (c,), the other None."""

    keys: np.ndarray | None = None
    classes: np.ndarray | None = None


def make_slices(
    arrays: ScoringArrays, support: np.ndarray, origins: Mapping[str, str] | None = None
) -> dict[tuple[str, str], Slice]:
    """Return slices by (kind, name); those without truth are left out.

    `support` (classes,) counts truth labels for the support slices; classes without truth belong to none. `origins`
    maps clip ids to movie or real; without it there are no origin slices. The number of persons is that of the true
    boxes of a key frame, so that a key frame without truth belongs to neither.
    """
    result: dict[tuple[str, str], Slice] = {}
    true_keys = np.bincount(arrays.truth.key, minlength=arrays.num_keys)
    of_clip = np.array([(origins or {}).get(clip, "") for clip in arrays.clips])
    for origin in ("movie", "real"):
        result["origin", origin] = Slice(keys=of_clip[arrays.key_clip] == origin)
    result["persons", "one"] = Slice(keys=true_keys == 1)
    result["persons", "several"] = Slice(keys=true_keys > 1)
    group = np.array([arrays.space.group(action_id) or "" for action_id in arrays.space.ids])
    for name in dict.fromkeys((*GROUPS, *arrays.space.groups.values())):
        result["group", group_name(name)] = Slice(classes=group == name)
    for name, low, high in _SUPPORTS:
        result["support", name] = Slice(classes=(support > 0) & (support >= low) & (support <= high))
    return {
        name: part
        for name, part in result.items()
        if (support[part.classes] if part.keys is None else true_keys[part.keys]).any()
    }


@dataclass(frozen=True, kw_only=True)
class ProtocolScores:
    """Everything one protocol says.

    Attributes:
        overall: Averages over the whole test set; `slices` those of parts, by (kind, name).
        bracket: See `bracket`.
        at_half: The published metrics of counts at p >= 0.5, macro, where the protocol's threshold is another.
    """

    protocol: Protocol
    evaluation: Evaluation
    classes: ClassScores
    overall: Averages
    bracket: Mapping[str, tuple[float, float]]
    slices: Mapping[tuple[str, str], Averages]
    at_half: Mapping[str, float]


def score_protocol(
    evaluation: Evaluation, kind: ScoreKind, slices: Mapping[tuple[str, str], Slice] | None = None
) -> ProtocolScores:
    """Score an evaluation, and its `slices` by (kind, name)."""
    protocol = evaluation.protocol
    threshold = protocol.threshold(kind)
    scores = class_scores(evaluation, threshold)
    overall = averages(scores, protocol, boxes=len(evaluation.cells.key))
    parts: dict[tuple[str, str], Averages] = {}
    for name, part in (slices or {}).items():
        if part.keys is None:
            parts[name] = averages(scores, protocol, classes=part.classes, boxes=overall.boxes)
        else:
            own = class_scores(evaluation, threshold, keys=part.keys, ties=(protocol.ties,))
            parts[name] = averages(own, protocol, boxes=int(part.keys[evaluation.cells.key].sum()))
    at_half: dict[str, float] = {}
    if threshold != half(kind):
        counts = confusion(evaluation.cells.scores, evaluation.cells.truth, half(kind))
        judged = np.ones(len(scores.cells), dtype=bool) if protocol.all_classes else scores.cells > 0
        at_half = {
            name: average(METRICS[name].load()(*counts), judged)
            for name in published_columns()
            if METRICS[name].of == "counts"
        }
    return ProtocolScores(
        protocol=protocol,
        evaluation=evaluation,
        classes=scores,
        overall=overall,
        bracket=bracket(evaluation, scores, threshold),
        slices=parts,
        at_half=at_half,
    )


class HarState:
    """Mergeable state of a protocol: rows in, averages by metric out; the same bits however rows were cut and merged.

    Rows carry their place in the original file (`row`), in which they are put back before anything is computed.
    """

    def __init__(self, space: LabelSpace, protocol: Protocol, kind: ScoreKind = "logit") -> None:
        self.space, self.protocol = space, protocol
        self.kind: ScoreKind = kind
        self._predictions: list[pa.Table] = []
        self._truth: list[pa.Table] = []

    def update(self, *, predictions: pa.Table | None = None, truth: pa.Table | None = None) -> Self:
        """Add checked rows of schema `PREDICTION_BOXES` and `TRUTH_ROWS`; returns the state itself."""
        if predictions is not None:
            self._predictions.append(predictions.cast(PREDICTION_BOXES))
        if truth is not None:
            self._truth.append(truth.cast(TRUTH_ROWS))
        return self

    def merge(self, other: Self) -> Self:
        """Add the rows of another state; returns the state itself."""
        self._predictions += other._predictions
        self._truth += other._truth
        return self

    def scores(self) -> ProtocolScores:
        """Return the scores of all rows. Raises `MetricError` when a row is there twice."""
        predictions = pa.concat_tables([PREDICTION_BOXES.empty_table(), *self._predictions])
        truth = pa.concat_tables([TRUTH_ROWS.empty_table(), *self._truth])
        return score_protocol(evaluate(arrays_from_rows(predictions, truth, self.space), self.protocol), self.kind)

    def compute(self) -> dict[str, dict[str, float]]:
        """Return the averages of all rows, by metric."""
        return {name: dict(values) for name, values in self.scores().overall.values.items()}
