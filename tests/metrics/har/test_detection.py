"""mAP@0.5: matching in the reference's order, interpolation, and the rules for ties."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from benchmarks import har_reference
from microg.data.label_space import MICROG_50
from microg.metrics.har.boxes import assign_boxes, iou
from microg.metrics.har.detection import average_precision, match, precision_recall
from microg.metrics.har.protocols import PAPER, evaluate
from microg.metrics.har.ranking import Ties
from microg.metrics.har.scores import HarState, score_protocol
from tests.support.har_cases import LEFT, RIGHT, prediction_boxes, problem_of, random_rows, truth_rows


def _hits(predictions: list[tuple], truth: list[tuple], order: str = "file") -> list[bool]:
    """Return which prediction rows are true positives."""
    arrays = problem_of(predictions, truth)
    hits = match(arrays.boxes, arrays.truth, np.arange(len(arrays.truth.label)), order=order)  # pyright: ignore
    found = set(arrays.boxes.rows[hits].tolist())
    return [row in found for row in range(len(predictions))]


def _by_ties(predictions: list[tuple], truth: list[tuple]) -> Mapping[Ties, np.ndarray]:
    """Return the average precision of each class by tie rule, of all detections and truth as given."""
    return score_protocol(evaluate(problem_of(predictions, truth), PAPER), "logit").classes.by_ties["map"]


def test_the_first_in_the_file_claims_a_true_box_whatever_its_score():
    rows = [("a_001", 5, *LEFT, 1, -3.0), ("a_001", 5, 0.1, 0.1, 0.4, 0.85, 1, 4.0)]
    assert _hits(rows, [("a_001", 5, *LEFT, 1)]) == [True, False]
    assert _hits(rows, [("a_001", 5, *LEFT, 1)], order="score") == [False, True]


def test_a_detection_looks_only_at_the_true_box_it_overlaps_most():
    """Its best box being taken, it does not fall back to the second best."""
    second = (0.1, 0.1, 0.4, 0.7)
    rows = [("a_001", 5, *LEFT, 1, 1.0), ("a_001", 5, *LEFT, 1, 0.5)]
    assert _hits(rows, [("a_001", 5, *LEFT, 1), ("a_001", 5, *second, 1)]) == [True, False]


def test_overlap_below_half_another_frame_or_another_class_is_no_hit():
    truth = [("a_001", 5, *LEFT, 1)]
    assert _hits([("a_001", 5, 0.1, 0.1, 0.4, 0.49, 1, 1.0)], truth) == [False]
    assert _hits([("a_001", 5, 0.1, 0.1, 0.4, 0.51, 1, 1.0)], truth) == [True]
    assert _hits([("a_001", 6, *LEFT, 1, 1.0)], truth) == [False]
    assert _hits([("a_001", 5, *LEFT, 3, 1.0)], truth) == [False]
    assert _hits([("a_002", 5, *LEFT, 1, 1.0)], truth) == [False]


def test_repeated_truth_counts_in_recall_and_is_never_found():
    predictions = [("a_001", 5, *LEFT, 1, 1.0), ("a_001", 5, *LEFT, 1, 0.9)]
    truth = [("a_001", 5, *LEFT, 1)] * 2
    assert _hits(predictions, truth) == [True, False]
    assert _by_ties(predictions, truth)["stable"][0] == 0.5


def test_tie_rules_on_a_written_out_example():
    scores = np.array([0.9, 0.5, 0.5, 0.5, 0.1])
    hits = np.array([False, False, True, True, True])
    found = {
        rule: average_precision(scores, hits, 4, ties=rule)
        for rule in ("stable", "reversed", "grouped", "best", "worst")
    }
    # by hand: precision at each hit, then the largest from there on (3/5 at the end), times 1/4
    assert found["stable"] == pytest.approx((3 / 5 + 3 / 5 + 3 / 5) / 4)
    assert found["reversed"] == pytest.approx((2 / 3 + 2 / 3 + 3 / 5) / 4)
    assert found["best"] == pytest.approx((2 / 3 + 2 / 3 + 3 / 5) / 4)
    assert found["grouped"] == found["worst"] == pytest.approx((3 / 5 + 3 / 5 + 3 / 5) / 4)


def test_any_order_of_equal_scores_lies_between_worst_and_best():
    rng = np.random.default_rng(3)
    scores, hits = np.round(rng.random(40), 1), rng.random(40) < 0.4
    low, high = (average_precision(scores, hits, 20, ties=rule) for rule in ("worst", "best"))
    values = {average_precision(scores, hits, 20, ties="stable", rows=rng.permutation(40)) for _ in range(200)}
    assert len(values) > 50
    assert low <= min(values) < max(values) <= high
    assert average_precision(scores, hits, 20, ties="grouped") == low


def test_class_without_truth_is_undefined_and_without_hits_is_zero():
    assert np.isnan(average_precision(np.array([1.0]), np.array([False]), 0))
    assert average_precision(np.array([1.0]), np.array([False]), 3) == 0.0
    assert average_precision(np.zeros(0), np.zeros(0, dtype=bool), 3) == 0.0


def test_curve_ends_where_the_last_hit_is_found():
    threshold, recall, precision = precision_recall(
        np.array([3.0, 2.0, 2.0, 1.0]), np.array([True, True, False, False]), 4
    )
    assert threshold.tolist() == [3.0, 2.0]
    assert recall.tolist() == [0.25, 0.5]
    assert precision.tolist() == [1.0, 2 / 3]


@pytest.mark.parametrize("seed", range(6))
def test_random_crowded_boxes_score_as_in_the_plain_loop(seed: int):
    predictions, truth = random_rows(seed)
    found = {rule: np.nanmean(values) for rule, values in _by_ties(predictions, truth).items()}
    assert found["stable"] == pytest.approx(har_reference.mean_average_precision(predictions, truth), abs=1e-12)
    grouped = har_reference.mean_average_precision(predictions, truth, "grouped")
    assert found["grouped"] == pytest.approx(grouped, abs=1e-12)
    assert found["worst"] < found["best"]


def test_state_gives_the_bits_of_one_pass_for_any_cut_and_order():
    predictions, truth = random_rows(11)
    whole = _by_ties(predictions, truth)
    table, true_table = prediction_boxes(predictions), truth_rows(truth)
    rng = np.random.default_rng(0)
    for _ in range(5):
        states = [HarState(MICROG_50, PAPER) for _ in range(4)]
        for rows, name in ((table, "predictions"), (true_table, "truth")):
            owner = rng.integers(0, 4, rows.num_rows)
            for place in rng.permutation(4):
                states[place].update(**{name: rows.take(rng.permutation(np.flatnonzero(owner == place)))})
        merged = HarState(MICROG_50, PAPER)
        for place in rng.permutation(4):
            merged.merge(states[place])
        got = merged.scores().classes.by_ties["map"]
        for rule, values in whole.items():
            assert got[rule].tobytes() == values.tobytes()


def test_overlap_of_boxes_that_do_not_touch_is_zero():
    apart = iou(np.array([LEFT]), np.array([RIGHT]))
    assert apart.tolist() == [0.0]


def test_boxes_are_assigned_one_to_one_by_falling_overlap():
    true = np.array([LEFT, (0.1, 0.1, 0.4, 0.8)])
    pred = np.array([(0.1, 0.1, 0.4, 0.82), LEFT, (0.1, 0.1, 0.4, 0.85), RIGHT])
    # 0 and 1 take their nearest; 2 overlaps both true boxes and finds them taken
    assert assign_boxes(np.zeros(4, int), pred, np.zeros(2, int), true).tolist() == [1, 0, -1, -1]
