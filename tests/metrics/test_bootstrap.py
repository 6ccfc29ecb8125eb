"""Resampling by weights, intervals shifted for bias, paired comparison."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from microg.actions.predictions import read_predictions
from microg.actions.truth import read_truth
from microg.data.label_space import MICROG_50
from microg.errors import MetricError
from microg.metrics.bootstrap import Distribution, compare, interval, resample_weights
from microg.metrics.har.arrays import arrays_from_rows
from microg.metrics.har.protocols import CORRECTED, evaluate
from microg.metrics.har.registry import resampled
from microg.metrics.har.resampling import bootstrap, units_of
from microg.metrics.har.scores import score_protocol
from tests.support.har_cases import LEFT, problem_of, random_rows


def _copied(rows: list[tuple], counts: dict[str, int], by_source: bool) -> list[tuple]:
    """Return rows with each unit's clips there as often as it was drawn, under new names; strays stay once."""
    result = []
    for row in rows:
        unit = row[0].rsplit("_", 1)[0] if by_source else row[0]
        for copy in range(counts.get(unit, 1)):
            result.append((f"c{copy}-{row[0]}", *row[1:]))
    return result


@pytest.mark.parametrize("unit", ["clip", "source"])
def test_weights_give_what_scoring_copies_of_the_drawn_clips_gives(unit):
    predictions, truth = random_rows(8, clips=14, classes=4)
    evaluation = evaluate(problem_of(predictions, truth), CORRECTED)
    names, _ = units_of(evaluation, unit)
    drawn = bootstrap(evaluation, 0.0, unit=unit, resamples=5, seed=3)
    weights = np.concatenate(list(resample_weights(len(names), 5, 3, 2)))
    for place in range(5):
        counts = dict(zip(names, weights[place, :-1].astype(int).tolist(), strict=True))
        copied = [_copied(rows, counts, unit == "source") for rows in (predictions, truth)]
        values = score_protocol(evaluate(problem_of(*copied), CORRECTED), "logit").overall.values
        for key, (metric, average) in resampled().items():
            assert drawn.values[key][place] == pytest.approx(values[metric.name][average], abs=1e-12)


def test_draws_depend_on_seed_and_number_and_not_on_chunks():
    whole = next(resample_weights(20, 10, 5, 10))
    assert np.array_equal(whole, np.concatenate(list(resample_weights(20, 10, 5, 3))))
    assert np.array_equal(whole[:4], next(resample_weights(20, 4, 5, 4)))
    assert not np.array_equal(whole, next(resample_weights(20, 10, 6, 10)))
    assert (whole[:, :-1].sum(axis=1) == 20).all()
    assert (whole[:, -1] == 1).all()


def test_detections_of_clips_without_truth_are_in_every_resample():
    predictions, truth = random_rows(8, clips=10)
    stray = [("zz_001", 5, *LEFT, 1, 9.0)]
    plain, with_stray = (evaluate(problem_of(rows, truth), CORRECTED) for rows in (predictions, predictions + stray))
    lower, higher = (bootstrap(part, 0.0, unit="clip", resamples=20).values["map"] for part in (with_stray, plain))
    assert (lower <= higher).all()
    assert (lower < higher).any()


def test_interval_is_shifted_by_the_bias_of_the_resamples():
    values = np.random.default_rng(0).normal(0.6, 0.05, 4000)
    found = interval(values, 0.5)
    assert (found.plain_low, found.plain_high) == (pytest.approx(0.502, abs=0.01), pytest.approx(0.698, abs=0.01))
    assert found.low == pytest.approx(found.plain_low - (values.mean() - 0.5))
    assert found.high == pytest.approx(found.plain_high - (values.mean() - 0.5))


def test_a_model_is_never_worse_than_one_it_beats_everywhere_and_even_with_itself():
    rng = np.random.default_rng(0)
    clips = [(f"a_{number:03d}", 5, *LEFT, 1 if number % 2 else 3) for number in range(30)]
    sure = [(*row[:6], action, 4.0 if action == row[6] else -4.0) for row in clips for action in (1, 3)]
    wild = [(*row[:7], float(rng.normal())) for row in sure]
    drawn, good = (
        bootstrap(evaluate(problem_of(rows, clips), CORRECTED), 0.0, unit="clip", resamples=100)
        for rows in (wild, sure)
    )
    assert compare(good, drawn, (0.9, 0.4), "f1").p_worse == 0.0
    assert compare(drawn, good, (0.4, 0.9), "f1").p_worse == 1.0
    even = compare(drawn, drawn, (0.4, 0.4), "map")
    assert (even.p_worse, even.p_worse_shifted, even.difference, even.low, even.high) == (0.5, 0.5, 0.0, 0.0, 0.0)


def test_shifted_share_agrees_with_the_shifted_interval():
    """Resamples say A is 0.1 better, the test set says 0.1 worse: the shift puts the resamples round -0.1."""
    rng = np.random.default_rng(1)
    base = rng.normal(0.5, 0.01, 1000)
    first, second = (
        Distribution("clip", 9, 0, "same", {"f1": values}) for values in (base + rng.normal(0.1, 0.02, 1000), base)
    )
    found = compare(first, second, (0.4, 0.5), "f1")
    assert found.low < -0.1 < found.high < 0
    assert found.p_worse < 0.001
    assert found.p_worse_shifted > 0.999


def test_resamples_of_another_test_set_or_seed_are_not_paired():
    predictions, truth = random_rows(8)
    evaluation = evaluate(problem_of(predictions, truth), CORRECTED)
    first, second = (bootstrap(evaluation, 0.0, unit="clip", resamples=5, seed=seed) for seed in (0, 1))
    with pytest.raises(MetricError, match="cannot be paired"):
        compare(first, second, (0.1, 0.1), "map")


def test_one_unit_is_too_few():
    evaluation = evaluate(problem_of([("a_001", 5, *LEFT, 1, 1.0)], [("a_001", 5, *LEFT, 1)]), CORRECTED)
    with pytest.raises(MetricError, match="only 1 clip"):
        bootstrap(evaluation, 0.0, unit="clip")


@pytest.mark.parametrize("model", ["I3D_NLN_8x8_R50", "X3D_L"])
@pytest.mark.parametrize("unit", ["clip", "source"])
def test_intervals_agree_with_the_oracle_within_the_noise_of_resampling(oracles: Path, model: str, unit):
    folder = oracles / "har_scores"
    predictions = read_predictions(str(folder / f"det_test_{model}.parquet"))
    truth = read_truth(str(folder / "gt_test.csv.gz"), MICROG_50)
    drawn: Distribution = bootstrap(
        evaluate(arrays_from_rows(predictions.boxes, truth.rows, MICROG_50), CORRECTED), 0.0, unit=unit, resamples=500
    )
    expected = json.loads((folder / "expected.json").read_text())["models"][model]["corrected"]
    found = interval(drawn.values["map"], expected["map41"])
    deviation = expected[f"boot_se_{unit}"]
    # 500 draws: the mean is known to 1/20 of the deviation, the 2.5% and 97.5% points to about 1/8
    assert found.mean == pytest.approx(expected[f"boot_mean_{unit}"], abs=0.18 * deviation)
    assert found.deviation == pytest.approx(deviation, rel=0.12)
    low, high = expected[f"map_ci95_{unit}_shifted"]
    assert found.low == pytest.approx(low, abs=0.45 * deviation)
    assert found.high == pytest.approx(high, abs=0.45 * deviation)
