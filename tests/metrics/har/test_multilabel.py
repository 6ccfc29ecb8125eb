"""F1, precision, recall and AUROC: counts, averages, whose labels a box has, and misses."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import har_reference
from microg.data.label_space import MICROG_50
from microg.metrics.har.multilabel import auroc, confusion, f1, precision, recall, truth_by_box, truth_by_key
from microg.metrics.har.protocols import CORRECTED, PAPER, evaluate
from microg.metrics.har.ranking import Ranking
from microg.metrics.har.scores import HarState, score_protocol
from tests.support.har_cases import LEFT, RIGHT, prediction_boxes, problem_of, random_rows, truth_rows


def _everything(arrays) -> np.ndarray:
    return np.arange(len(arrays.truth.label))


def test_two_people_of_a_key_frame_share_labels_by_key_and_not_by_box():
    predictions = [("a_001", 5, *LEFT, 1, 1.0), ("a_001", 5, *RIGHT, 1, -1.0)]
    arrays = problem_of(predictions, [("a_001", 5, *LEFT, 1), ("a_001", 5, *RIGHT, 3)])
    by_key = truth_by_key(arrays.boxes, arrays.truth, _everything(arrays))
    by_box = truth_by_box(arrays.boxes, arrays.truth, _everything(arrays))
    assert by_key.truth[:2].tolist() == [[True, True], [True, True]]
    assert by_box.truth[:2].tolist() == [[True, False], [False, True]]


def test_missing_key_frame_is_a_miss_under_both_lookups():
    predictions = [("a_001", 5, *LEFT, 1, 1.0)]
    truth = [("a_001", 5, *LEFT, 1), ("b_001", 9, *LEFT, 1), ("b_001", 9, *RIGHT, 1)]
    arrays = problem_of(predictions, truth)
    for look in (truth_by_key, truth_by_box):
        cells = look(arrays.boxes, arrays.truth, _everything(arrays))
        assert [int(part[0]) for part in confusion(cells.scores, cells.truth, -100.0)] == [1, 0, 2]


def test_box_off_every_true_box_has_no_labels_and_the_true_box_is_missed():
    arrays = problem_of([("a_001", 5, *RIGHT, 1, 1.0)], [("a_001", 5, *LEFT, 1)])
    cells = truth_by_box(arrays.boxes, arrays.truth, _everything(arrays))
    assert [int(part[0]) for part in confusion(cells.scores, cells.truth, 0.0)] == [0, 1, 1]


def test_counts_without_any_prediction_or_truth_give_zero_and_not_nan():
    counts = [0, 0, 2], [0, 3, 0], [0, 0, 2]
    assert precision(*counts).tolist() == [0, 0, 1]
    assert recall(*counts).tolist() == [0, 0, 0.5]
    assert f1(*counts).tolist() == [0, 0, 2 / 3]


def test_auroc_counts_pairs_and_its_bounds_are_those_of_untied_orders():
    scores, truth = np.array([1.0, 1.0, 1.0, 2.0, 0.0]), np.array([True, False, True, False, False])
    pairs = list(itertools.product(scores[truth], scores[~truth]))
    assert auroc(scores, truth) == sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)
    found = Ranking.of(scores, truth, 2).auroc
    assert found.low == sum(a > b for a, b in pairs) / len(pairs)
    assert found.high == sum(a >= b for a, b in pairs) / len(pairs)
    assert np.isnan(auroc(scores, np.ones(5, dtype=bool)))


def test_averages_by_hand():
    """Class 1 perfect with 2 labels, class 3 half with 2, the other 48 without truth."""
    predictions, truth = [], []
    for number, (first, second) in enumerate([(1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)]):
        clip = f"a_00{number}"
        predictions += [(clip, 5, *LEFT, 1, first), (clip, 5, *LEFT, 3, second)]
        truth += [(clip, 5, *LEFT, 1)] if first > 0 else []
        truth += [(clip, 5, *LEFT, 3)] if number < 2 else []
    arrays = problem_of(predictions, truth)
    found = score_protocol(evaluate(arrays, CORRECTED), "logit").overall.values
    assert found["f1"]["macro"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["recall"]["weighted"] == pytest.approx((2 * 1 + 2 * 0.5) / 4)
    assert found["recall"]["micro"] == 0.75
    assert found["precision"]["micro"] == 1.0
    everywhere = score_protocol(evaluate(arrays, replace(CORRECTED, all_classes=True)), "logit").overall.values
    assert everywhere["f1"]["macro"] == pytest.approx((1 + 2 / 3) / 50)
    assert everywhere["auroc"]["macro"] == found["auroc"]["macro"]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("lookup", "threshold", "all_classes"), [("key", 0.5, True), ("box", 0.0, False)])
def test_random_boxes_score_as_in_the_plain_loop(seed: int, lookup: str, threshold: float, all_classes: bool):
    predictions, truth = random_rows(seed)
    arrays = problem_of(predictions, truth)
    protocol = replace(PAPER, lookup=lookup, raw_threshold=threshold, all_classes=all_classes)
    found = score_protocol(evaluate(arrays, protocol), "logit").overall.values
    boxes = har_reference.boxes_with_labels(predictions, truth, lookup)
    expected = har_reference.multilabel(boxes, MICROG_50.ids, threshold, all_classes)
    assert {name: found[name]["macro"] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_state_gives_the_bits_of_one_pass_for_any_cut_and_order():
    predictions, truth = random_rows(5)
    table, true_table = prediction_boxes(predictions), truth_rows(truth)
    rng = np.random.default_rng(1)
    results = []
    for cuts in (1, 3, 7):
        states = [HarState(MICROG_50, CORRECTED) for _ in range(cuts)]
        for rows, name in ((table, "predictions"), (true_table, "truth")):
            for state, part in zip(states, np.array_split(rng.permutation(rows.num_rows), cuts), strict=True):
                state.update(**{name: rows.take(part)})
        merged = HarState(MICROG_50, CORRECTED)
        for place in rng.permutation(cuts):
            merged.merge(states[place])
        results.append(merged.scores())
    for result in results[1:]:
        assert result.overall == results[0].overall
        for name, values in results[0].classes.values.items():
            assert result.classes.values[name].tobytes() == values.tobytes()
