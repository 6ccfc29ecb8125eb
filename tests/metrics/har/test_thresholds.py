"""Thresholds of classes: F1 at every distinct score against a loop, what is chosen, and what it does elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from microg.data.label_space import MICROG_50
from microg.metrics.bootstrap import interval, resample_weights
from microg.metrics.har.arrays import arrays_from_rows
from microg.metrics.har.multilabel import Cells
from microg.metrics.har.protocols import PROTOCOLS, evaluate
from microg.metrics.har.resampling import bootstrap, units_of
from microg.metrics.har.scores import ProtocolScores, score_protocol
from microg.metrics.har.thresholds import apply_thresholds, best_thresholds, f1_curve
from tests.support.har_cases import prediction_boxes, random_rows, truth_rows


def f1_by_hand(scores: np.ndarray, truth: np.ndarray, threshold: float) -> float:
    hits = sum(bool(true) and score >= threshold for score, true in zip(scores, truth, strict=True))
    said, labels = sum(score >= threshold for score in scores), int(truth.sum())
    return 2 * hits / (said + labels) if said + labels else 0.0


def f1_of_copies(scores: np.ndarray, truth: np.ndarray, copies: np.ndarray, threshold: float) -> float:
    count = copies.astype(int)
    return f1_by_hand(np.repeat(scores, count), np.repeat(truth, count), threshold)


def scored(protocol: str, seed: int = 1) -> ProtocolScores:
    """Score random rows with ties, missing and duplicate boxes."""
    predictions, truth = random_rows(seed)
    arrays = arrays_from_rows(prediction_boxes(predictions), truth_rows(truth), MICROG_50)
    return score_protocol(evaluate(arrays, PROTOCOLS[protocol]), "logit")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_distinct_score_is_tried_and_the_best_is_chosen(protocol: str) -> None:
    cells = scored(protocol).evaluation.cells
    found = best_thresholds(cells, 0.0)
    chosen = 0
    for c in range(len(MICROG_50)):
        scores, truth = cells.scores[c], cells.truth[c]
        tried = sorted({float(score) for score in scores if np.isfinite(score)}, reverse=True)
        expected = [f1_by_hand(scores, truth, threshold) for threshold in tried]
        curve = f1_curve(scores, truth)
        assert curve.threshold.tolist() == tried
        assert curve.f1.tolist() == pytest.approx(expected)
        assert found.f1[c] == pytest.approx(f1_by_hand(scores, truth, 0.0))
        if np.isfinite(scores[truth]).any():
            chosen += 1
            best = max(expected)
            assert found.f1_best[c] == pytest.approx(best)
            assert found.best[c] == tried[int(np.argmax(np.isclose(expected, best, rtol=1e-12)))]
            assert found.best[c] in curve.threshold[curve.positive]
        else:
            assert (found.best[c], found.f1_best[c]) == (0.0, found.f1[c])
    assert chosen == 6


def test_a_class_that_nothing_can_be_chosen_for_keeps_the_protocols_threshold() -> None:
    scores = np.array([[0.2, -0.3], [-np.inf, 1.0]])
    found = best_thresholds(Cells(scores, np.array([[False, False], [True, False]]), np.arange(2)), 0.5)
    assert found.best.tolist() == [0.5, 0.5]
    assert found.f1_best.tolist() == [0.0, 0.0]
    assert len(f1_curve(np.zeros(0), np.zeros(0, bool)).f1) == 0


def test_chosen_thresholds_are_applied_to_other_scores_with_the_interval_of_the_gain() -> None:
    val, test = scored("corrected", 1), scored("corrected", 2)
    best = best_thresholds(val.evaluation.cells, 0.0).best
    chosen = dict(zip(MICROG_50.ids, best.tolist(), strict=True))
    before = bootstrap(test.evaluation, 0.0, unit="clip", resamples=30, seed=4)
    applied = apply_thresholds(test, chosen, "logit", before)
    cells = test.evaluation.cells
    expected = [f1_by_hand(cells.scores[c], cells.truth[c], best[c]) for c in range(len(best))]
    assert applied.f1.tolist() == pytest.approx(expected)
    judged = cells.truth.any(axis=1)
    assert applied.macro == pytest.approx(np.mean(np.array(expected)[judged]))
    gains = []
    names, unit_of_key = units_of(test.evaluation, "clip")
    for weights in next(resample_weights(len(names), 30, 4, 30)):
        weight = weights[unit_of_key[cells.key]]
        drawn = (cells.truth * weight).sum(axis=1) > 0
        means = [
            np.mean(
                [f1_of_copies(cells.scores[c], cells.truth[c], weight, float(at[c])) for c in np.flatnonzero(drawn)]
            )
            for at in (best, np.zeros(len(best)))
        ]
        gains.append(means[0] - means[1])
    expected_gain = interval(np.array(gains), applied.macro - test.overall.values["f1"]["macro"])
    assert applied.gain is not None
    assert (applied.gain.low, applied.gain.high) == pytest.approx((expected_gain.low, expected_gain.high))
    assert applied.gain.low < applied.gain.high
    assert apply_thresholds(test, {}, "logit").macro == pytest.approx(test.overall.values["f1"]["macro"])
    assert apply_thresholds(test, {}, "logit").gain is None
