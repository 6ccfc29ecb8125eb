"""What scoring finds odd, by name and count; and slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from microg.actions.predictions import read_predictions
from microg.actions.truth import read_truth
from microg.data.label_space import AVA_80_SPACE, MICROG_50
from microg.errors import MetricError
from microg.metrics.har.arrays import arrays_from_rows
from microg.metrics.har.findings import check_overlap, constant_scores, find
from microg.metrics.har.protocols import CORRECTED, protocols
from microg.metrics.har.scores import make_slices
from microg.metrics.har.scoring import rows_digest, score
from tests.support.har_cases import (
    LEFT,
    RIGHT,
    inputs,
    prediction_boxes,
    prediction_rows,
    problem_of,
    random_rows,
    truth_rows,
)


def _codes(predictions: list[tuple], truth: list[tuple]) -> dict[str, int]:
    return {finding.code: finding.count for finding in find(problem_of(predictions, truth))}


def _scattered(boxes: int, constant: int) -> tuple[list[tuple], list[tuple]]:
    """Return `boxes` boxes at different places with random scores, the first `constant` of them with equal ones."""
    rng = np.random.default_rng(0)
    predictions, truth = [], []
    for number in range(boxes):
        far = number < constant
        box = (0.5 + number / 1000, 0.2, 0.9, 0.8) if far else (0.01 + number / 1000, 0.1, 0.4, 0.8)
        scores = (-3.0, 0.5, -1.0) if far else rng.normal(size=3).round(4).tolist()
        predictions += [(f"a_{number:03d}", 5, *box, action, s) for action, s in zip((1, 3, 5), scores, strict=True)]
        truth.append((f"a_{number:03d}", 5, *box, 1))
    return predictions, truth


def test_nothing_is_found_where_nothing_is_odd():
    assert _codes(*_scattered(40, 0)) == {}


def test_roi_scale_defect_is_told_from_the_scores():
    finding = constant_scores(problem_of(*_scattered(60, 6)))
    assert finding is not None
    assert (finding.code, finding.count) == ("roi-scale", 6)
    assert "RoI-scale defect: 6 of 60 boxes" in str(finding)
    assert "beyond 50% of the frame" in str(finding)


def test_few_constant_boxes_and_a_dead_model_get_other_words():
    few = constant_scores(problem_of(*_scattered(200, 3)))
    dead = constant_scores(problem_of(*_scattered(60, 40)))
    assert few is not None
    assert dead is not None
    assert few.code == dead.code == "constant-scores"
    assert "outside the crop" in few.message
    assert "hardly looks at its input" in dead.message


def test_one_box_seen_again_in_other_clips_is_no_constant_score():
    predictions, truth = _scattered(5, 0)
    again = [[(f"b{copy}_{row[0]}", *row[1:]) for copy in range(20) for row in rows] for rows in (predictions, truth)]
    assert constant_scores(problem_of(*again)) is None


@pytest.mark.parametrize(("model", "count"), [("X3D_L", 114), ("MVITv2_S_16x4", 108), ("I3D_NLN_8x8_R50", None)])
def test_published_models_with_the_roi_scale_defect_are_found(oracles: Path, model: str, count: int | None):
    folder = oracles / "har_scores"
    predictions = read_predictions(str(folder / f"det_test_{model}.parquet"))
    truth = read_truth(str(folder / "gt_test.csv.gz"), MICROG_50)
    found = {
        finding.code: finding.count for finding in find(arrays_from_rows(predictions.boxes, truth.rows, MICROG_50))
    }
    expected = {"duplicate-boxes": 1, "duplicate-truth": 6} | ({"roi-scale": count} if count else {})
    assert found == expected


def test_missing_stray_duplicate_and_lost_boxes_are_counted():
    predictions = [
        ("a_001", 5, *LEFT, 1, 1.0),
        ("a_001", 5, *LEFT, 1, 1.0),
        ("a_001", 5, 0.4, 0.4, 0.5, 0.5, 1, 0.2),
        ("b_001", 5, *LEFT, 1, 1.0),
    ]
    truth = [("a_001", 5, *LEFT, 1), ("a_001", 5, *RIGHT, 1), ("c_001", 5, *RIGHT, 1), ("c_001", 5, *RIGHT, 1)]
    assert _codes(predictions, truth) == {
        "missing-key-frames": 1,
        "boxes-without-truth": 1,
        "boxes-off-truth": 1,
        "missed-boxes": 1,
        "duplicate-boxes": 1,
        "duplicate-truth": 1,
    }


def test_finding_names_its_examples():
    finding = next(
        f for f in find(problem_of([("a_001", 5, *LEFT, 1, 1.0)], [("a_001", 5, *LEFT, 1), ("b_001", 7, *LEFT, 1)]))
    )
    assert str(finding).startswith("missing key frames: 1 of 2 have no prediction")
    assert "(e.g. b_001:7)" in str(finding)


def test_boxes_competing_by_file_order_are_told():
    predictions = [("a_001", 5, *LEFT, 1, -3.0), ("a_001", 5, 0.1, 0.1, 0.4, 0.85, 1, 4.0)]
    assert _codes(predictions, [("a_001", 5, *LEFT, 1)]) == {"claims-by-file-order": 2}


def test_pixel_boxes_against_normalised_ones_are_told():
    codes = _codes([("a_001", 5, 85.0, 48.0, 340.0, 430.0, 1, 1.0)], [("a_001", 5, *LEFT, 1)])
    assert codes["pixel-boxes"] == 1


def test_class_28_of_ava_is_another_action():
    rows = prediction_boxes([("a_001", 5, *LEFT, 28, 1.0)], AVA_80_SPACE), truth_rows([("a_001", 5, *LEFT, 28)])
    assert [finding.code for finding in find(arrays_from_rows(*rows, AVA_80_SPACE))] == ["other-meaning"]


def test_no_common_key_frame_is_refused_and_says_how_far_they_agree():
    truth = [("a_001", 5, *LEFT, 1)]
    with pytest.raises(MetricError, match="share 1 clips but no key frame") as caught:
        check_overlap(problem_of([("a_001", 6, *LEFT, 1, 1.0)], truth))
    assert "a_001:6 is predicted, a_001:5 is true" in str(caught.value)
    with pytest.raises(MetricError, match="of 1 predicted clips none is in the truth"):
        check_overlap(problem_of([("b_001", 5, *LEFT, 1, 1.0)], truth))


def test_slices_part_key_frames_and_classes():
    predictions = [("film_001", 5, *LEFT, 1, 1.0), ("tour_001", 5, *LEFT, 12, 1.0), ("tour_001", 5, *RIGHT, 17, 1.0)]
    truth = [(*row[:7],) for row in predictions]
    arrays = problem_of(predictions, truth)
    slices = make_slices(
        arrays, np.bincount(arrays.truth.label, minlength=50), {"film_001": "movie", "tour_001": "real"}
    )
    assert set(slices) == {
        ("origin", "movie"),
        ("origin", "real"),
        ("persons", "one"),
        ("persons", "several"),
        ("group", "person movement"),
        ("group", "object manipulation"),
        ("support", "<5"),
    }
    keys = {
        name: [arrays.clips[arrays.key_clip[k]] for k in np.flatnonzero(part.keys)]
        for name, part in slices.items()
        if part.keys is not None
    }
    assert keys["origin", "movie"] == keys["persons", "one"] == ["film_001"]
    assert keys["origin", "real"] == keys["persons", "several"] == ["tour_001"]
    assert "origin" not in {kind for kind, _ in make_slices(arrays, np.ones(50))}


def test_a_slice_of_key_frames_scores_as_if_it_were_all_there_is():
    predictions, truth = random_rows(6)
    report = score(*inputs(predictions, truth), protocols("both"))
    persons = {}
    for row in truth:
        persons.setdefault(row[:2], set()).add(row[2:6])
    for name, wanted in (("one", lambda n: n == 1), ("several", lambda n: n > 1)):
        part = [[row for row in rows if wanted(len(persons.get(row[:2], ())))] for rows in (predictions, truth)]
        alone = score(*inputs(*part), protocols("both"))
        for protocol, result in report.results.items():
            assert result.slices["persons", name].values == alone.results[protocol].overall.values
            assert result.slices["persons", name].boxes == alone.results[protocol].overall.boxes


def test_slices_of_classes_average_those_classes():
    predictions, truth = random_rows(6)
    result = score(*inputs(predictions, truth), (CORRECTED,)).results["corrected"]
    support = result.classes.support
    some = (support >= 5) & (support <= 50)
    assert result.slices["support", "5-50"].values["map"]["macro"] == result.classes.values["map"][some].mean()
    assert result.slices["support", "5-50"].classes == some.sum() > 0


def test_one_source_gives_no_interval_over_sources_and_says_so():
    predictions, truth = [], []
    for number in range(4):
        predictions.append((f"a_{number:03d}", 5, *LEFT, 1, float(number)))
        truth.append((f"a_{number:03d}", 5, *LEFT, 1))
    report = score(*inputs(predictions, truth), (CORRECTED,), resamples=10)
    assert [drawn.unit for drawn in report.distributions] == ["clip"]
    assert "only one source" in str(report.findings[-1])


def test_digest_of_truth_ignores_the_order_of_rows_and_that_of_predictions_does_not():
    predictions, truth = (
        build(rows) for build, rows in zip((prediction_rows, truth_rows), random_rows(3), strict=True)
    )
    turned, other = (
        build(rows[::-1]) for build, rows in zip((prediction_rows, truth_rows), random_rows(3), strict=True)
    )
    assert rows_digest(truth, ordered=False) == rows_digest(other, ordered=False)
    assert rows_digest(predictions, ordered=True) != rows_digest(turned, ordered=True)
    assert rows_digest(truth, ordered=False) != rows_digest(truth.slice(1), ordered=False)
