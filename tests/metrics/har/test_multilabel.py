"""F1, precision, recall and AUROC: counts, averages, whose labels a box has, and misses."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from benchmarks import har_reference
from microg.data.label_space import MICROG_50
from microg.metrics.har.multilabel import (
    MultilabelState,
    auroc,
    auroc_of,
    confusion,
    multilabel_scores,
    precision_recall_f1,
    truth_by_box,
    truth_by_key,
)
from tests.support.har_cases import LEFT, RIGHT, prediction_rows, problem_of, random_rows, truth_rows


def _everything(problem) -> np.ndarray:
    return np.arange(len(problem.truth.label))


def test_two_people_of_a_key_frame_share_labels_by_key_and_not_by_box():
    predictions = [("a_001", 5, *LEFT, 1, 1.0), ("a_001", 5, *RIGHT, 1, -1.0)]
    problem = problem_of(predictions, [("a_001", 5, *LEFT, 1), ("a_001", 5, *RIGHT, 3)])
    by_key = truth_by_key(problem.boxes, problem.truth, _everything(problem))
    by_box = truth_by_box(problem.boxes, problem.truth, _everything(problem))
    assert by_key.truth[:2].tolist() == [[True, True], [True, True]]
    assert by_box.truth[:2].tolist() == [[True, False], [False, True]]


def test_missing_key_frame_is_a_miss_under_both_lookups():
    predictions = [("a_001", 5, *LEFT, 1, 1.0)]
    truth = [("a_001", 5, *LEFT, 1), ("b_001", 9, *LEFT, 1), ("b_001", 9, *RIGHT, 1)]
    problem = problem_of(predictions, truth)
    for look in (truth_by_key, truth_by_box):
        cells = look(problem.boxes, problem.truth, _everything(problem))
        assert [int(part[0]) for part in confusion(cells.scores, cells.truth, -100.0)] == [1, 0, 2]


def test_box_off_every_true_box_has_no_labels_and_the_true_box_is_missed():
    problem = problem_of([("a_001", 5, *RIGHT, 1, 1.0)], [("a_001", 5, *LEFT, 1)])
    cells = truth_by_box(problem.boxes, problem.truth, _everything(problem))
    assert [int(part[0]) for part in confusion(cells.scores, cells.truth, 0.0)] == [0, 1, 1]


def test_counts_without_any_prediction_or_truth_give_zero_and_not_nan():
    assert [part.tolist() for part in precision_recall_f1([0, 0, 2], [0, 3, 0], [0, 0, 2])] == [
        [0, 0, 1],
        [0, 0, 0.5],
        [0, 0, 2 / 3],
    ]


def test_auroc_counts_pairs_and_its_bounds_are_those_of_untied_orders():
    scores, truth = np.array([1.0, 1.0, 1.0, 2.0, 0.0]), np.array([True, False, True, False, False])
    pairs = list(itertools.product(scores[truth], scores[~truth]))
    assert auroc(scores, truth) == sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)
    found = auroc_of(np.sort(scores), scores[truth])
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
    problem = problem_of(predictions, truth)
    cells = truth_by_box(problem.boxes, problem.truth, _everything(problem))
    found = multilabel_scores(cells, 0.0, all_classes=False)
    assert found["f1"]["macro"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["recall"]["weighted"] == pytest.approx((2 * 1 + 2 * 0.5) / 4)
    assert found["recall"]["micro"] == 0.75
    assert found["precision"]["micro"] == 1.0
    everywhere = multilabel_scores(cells, 0.0, all_classes=True)
    assert everywhere["f1"]["macro"] == pytest.approx((1 + 2 / 3) / 50)
    assert everywhere["auroc"]["macro"] == found["auroc"]["macro"]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("lookup", "threshold", "all_classes"), [("key", 0.5, True), ("box", 0.0, False)])
def test_random_boxes_score_as_in_the_plain_loop(seed: int, lookup: str, threshold: float, all_classes: bool):
    predictions, truth = random_rows(seed)
    problem = problem_of(predictions, truth)
    look = truth_by_key if lookup == "key" else truth_by_box
    found = multilabel_scores(
        look(problem.boxes, problem.truth, _everything(problem)), threshold, all_classes=all_classes
    )
    boxes = har_reference.boxes_with_labels(predictions, truth, lookup)
    expected = har_reference.multilabel(boxes, MICROG_50.ids, threshold, all_classes)
    assert {name: found[name]["macro"] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_state_gives_the_bits_of_one_pass_for_any_cut_and_order():
    predictions, truth = random_rows(5)
    table, true_table = prediction_rows(predictions), truth_rows(truth)
    rng = np.random.default_rng(1)
    settings = {"lookup": "box", "threshold": 0.0, "all_classes": False}
    results = []
    for cuts in (1, 3, 7):
        states = [MultilabelState.empty(MICROG_50, **settings) for _ in range(cuts)]
        for rows, name in ((table, "predictions"), (true_table, "truth")):
            for state, part in zip(states, np.array_split(rng.permutation(rows.num_rows), cuts), strict=True):
                state.update(**{name: rows.take(part)})
        merged = MultilabelState.empty(MICROG_50, **settings)
        for place in rng.permutation(cuts):
            merged.merge(states[place])
        results.append(merged.compute())
    for result in results[1:]:
        for name, values in results[0].items():
            assert result[name].pop("per_class").tobytes() == values["per_class"].tobytes()
            assert result[name] == {key: value for key, value in values.items() if key != "per_class"}
