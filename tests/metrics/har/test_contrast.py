"""What an AVA model loses from one test set to another: against loops, and which classes are compared."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from microg.actions.rows import Predictions, Truth, score_matrix
from microg.actions.transfer import onto_ava
from microg.data.crosswalk import jhmdb_crosswalk
from microg.data.label_space import AVA_80_SPACE, JHMDB_21_SPACE, MICROG_50
from microg.data.taxonomy import JHMDB_21, TO_JHMDB_21
from microg.errors import ConfigError, MetricError
from microg.metrics.bootstrap import interval
from microg.metrics.har.contrast import Contrast, Selection, TestSet, contrast
from tests.support.har_cases import LEFT, RIGHT, ava_predictions, prediction_boxes, truth_rows

TO_AVA = jhmdb_crosswalk().labels
SAME = {action_id: action_id for action_id in MICROG_50.ids if action_id != 28}
JHMDB = ("catch", "shoot_bow", "shoot_gun", "walk", "wave", "golf", "run")


def test_every_action_of_jhmdb_is_in_the_map_once_or_left_out_with_a_reason() -> None:
    walk = jhmdb_crosswalk()
    names = [JHMDB_21_SPACE.names[pair.action_id] for pair in walk.pairs]
    assert sorted([*names, *walk.left_out]) == sorted(JHMDB_21)
    assert all(pair.why for pair in walk.pairs)
    assert all(walk.left_out.values())
    assert {pair.ava_id for pair in walk.pairs} <= set(AVA_80_SPACE.ids)
    shared = {pair.ava_id: name for pair, name in zip(walk.pairs, names, strict=True) if pair.ava_id in MICROG_50.ids}
    assert shared == TO_JHMDB_21  # the way through MicroG-4M's ids leads to the same classes
    assert {row["ava"] for row in walk.to_dict()["pairs"]} >= {"catch (an object)", "shoot", "kick (an object)"}


def jhmdb_truth() -> Truth:
    ids = {name: action_id for action_id, name in JHMDB_21_SPACE.names.items()}
    rows = [
        (f"f{clip % 5}_{clip:03d}", frame, *LEFT, ids[JHMDB[clip % len(JHMDB)]])
        for clip in range(28)
        for frame in (3, 9)
    ]
    return Truth(truth_rows(rows))


def microg_truth() -> Truth:
    actions = (12, 14, 69, 28, 17)
    rows = [
        (f"m{clip % 4}_{clip:03d}", 45, *box, actions[(clip + place) % len(actions)])
        for clip in range(30)
        for place, box in enumerate((LEFT, RIGHT))
    ]
    return Truth(truth_rows(rows))


@pytest.fixture(scope="module")
def sets() -> dict[str, TestSet]:
    parts = {"jhmdb": (jhmdb_truth(), JHMDB_21_SPACE, TO_AVA), "microg": (microg_truth(), MICROG_50, SAME)}
    return {
        name: TestSet(said=ava_predictions(truth, labels, seed), truth=truth, space=space, labels=labels)
        for seed, (name, (truth, space, labels)) in enumerate(parts.items())
    }


@pytest.fixture(scope="module")
def found(sets: dict[str, TestSet]) -> Contrast:
    return contrast(sets, resamples=40, seed=3)


def by_hand(said: Predictions, truth: Truth, labels: Mapping[int, int], ids: tuple[int, ...]) -> dict[str, float]:
    """Return mAP and AUROC of distinct scores by loops over boxes, for boxes that are each other's only match."""
    scores, _ = score_matrix(said.boxes, len(said.space))
    true: dict[tuple, set[int]] = {}
    for row in truth.rows.to_pylist():
        box = (row["clip_id"], row["frame"], row["x1"])
        true.setdefault(box, set()).add(labels.get(row["action_id"], -1))
    boxes = [(row["clip_id"], row["frame"], row["x1"]) for row in said.boxes.to_pylist()]
    precisions, areas = [], []
    for action_id in ids:
        column = scores[:, said.space.ids.index(action_id)]
        marks = np.array([action_id in true[box] for box in boxes])
        if not marks.any():
            continue
        ordered = marks[np.argsort(-column)]
        precision = [ordered[: place + 1].mean() for place in range(len(ordered))]
        best = [max(precision[place:]) for place in range(len(ordered))]
        precisions.append(np.mean([best[place] for place in np.flatnonzero(ordered)]))
        pairs = [high > low for high in column[marks] for low in column[~marks]]
        areas.append(np.mean(pairs))
    return {"map": float(np.mean(precisions)), "auroc": float(np.mean(areas))}


def test_scores_are_those_of_loops_over_boxes(sets: dict[str, TestSet], found: Contrast) -> None:
    assert found.matched == (14, 69)
    assert set(found.unmatched) == set(TO_JHMDB_21) - {14, 69}
    assert found.unmatched[10] == ("microg",)
    assert found.unmatched[12] == ("jhmdb",)
    identity = {action_id: action_id for action_id in AVA_80_SPACE.ids}
    for name, part in sets.items():
        choices: dict[Selection, tuple[int, ...]] = {
            "mapped": tuple(sorted(set(part.labels.values()))),
            "matched": found.matched,
        }
        if name == "microg":
            choices["published"] = AVA_80_SPACE.ids
        assert set(found.sets[name]) == set(choices)
        for selection, ids in choices.items():
            labels = identity if selection == "published" else part.labels
            expected = by_hand(part.said, part.truth, labels, ids)
            scored = found.sets[name][selection]
            for metric, value in expected.items():
                for protocol in ("paper", "corrected"):
                    if (metric, protocol, name) != ("auroc", "paper", "microg"):  # which looks truth up by key frame
                        assert scored.value(protocol, metric) == pytest.approx(value, abs=1e-12), (name, selection)
    mapped = found.sets["jhmdb"]["mapped"].to_dict()
    assert (mapped["classes"], mapped["with_truth"]) == (14, 5)  # bow and gun are one class of AVA
    assert (mapped["labels"], mapped["labels_left_out"]) == (48, 8)  # golf
    assert found.sets["microg"]["published"].to_dict()["with_truth"] == 5
    assert found.sets["microg"]["mapped"].to_dict()["with_truth"] == 4  # AVA's 28 is "drive"


def test_the_drop_and_its_interval_are_those_of_independent_resamples(found: Contrast) -> None:
    drop = found.drop("jhmdb", "microg", "matched")
    one, other = (found.sets[name]["matched"] for name in ("jhmdb", "microg"))
    for metric in ("map", "auroc"):
        difference = one.value("corrected", metric) - other.value("corrected", metric)
        first, second = (
            next(drawn for drawn in part.report.distributions if drawn.unit == "clip").values[metric]
            for part in (one, other)
        )
        values = np.array([first[place] - second[place - 1] for place in range(40)])
        limits = interval(values[~np.isnan(values)], difference)
        assert drop["corrected"][metric] == {"value": difference, "low": limits.low, "high": limits.high}
        assert drop["paper"][metric]["low"] is None
    cell = one.to_dict()["protocols"]["corrected"]["map"]
    assert cell["low"] < cell["high"]


def test_without_resamples_there_are_no_intervals(sets: dict[str, TestSet]) -> None:
    drop = contrast(sets).drop("jhmdb", "microg", "mapped")
    assert drop["corrected"]["map"]["value"] is not None
    assert drop["corrected"]["map"]["low"] is None


def test_what_cannot_be_compared_is_refused(sets: dict[str, TestSet]) -> None:
    nothing = Truth(truth_rows([("m0_000", 45, *LEFT, 17)]))
    with pytest.raises(MetricError, match="nothing to compare"):
        contrast({**sets, "microg": TestSet(said=sets["microg"].said, truth=nothing, space=MICROG_50, labels=SAME)})
    ours = Predictions(prediction_boxes([("m0_000", 45, *LEFT, 12, 1.0)]), "logit", MICROG_50)
    with pytest.raises(ConfigError, match="not of AVA's classes"):
        onto_ava(ours, nothing, SAME, (12,))
