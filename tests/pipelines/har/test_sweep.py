"""Sweeps: which trials there are, which are stopped early, and that a resumed scheduler knows what it knew."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from microg.pipelines.har.sweep import EPOCH, Halving, Trial, draw_trials, halving_scheduler, parse_space

METRIC = "val_map_paper"
RECIPES = {"tiny": 4, "x3d_s": 4}


def test_every_recipe_meets_every_grid_value_and_the_same_draws():
    space = parse_space(["lr=loguniform(1e-4,1e-1)", "batch_size=grid(8,16)"])
    trials = draw_trials(RECIPES, space, num_samples=3, seed=0)
    assert len(trials) == 2 * 2 * 3
    of_recipe = {name: [settings for recipe, settings in trials if recipe == name] for name in RECIPES}
    assert of_recipe["tiny"] == of_recipe["x3d_s"]
    rates = [settings["lr"] for settings in of_recipe["tiny"]]
    assert len(set(rates)) == 3
    assert all(1e-4 <= rate <= 1e-1 for rate in rates)


def test_more_samples_keep_the_draws_there_were():
    space = parse_space(["lr=uniform(0,1)", "seed=randint(0,9)", "loss=choice(a,b)"])
    few, many = (draw_trials(RECIPES, space, num_samples=n, seed=7) for n in (2, 5))
    assert many[: len(few)] == few
    assert draw_trials(RECIPES, space, num_samples=5, seed=8) != many


def test_a_grid_alone_is_run_once_whatever_the_number_of_samples():
    assert len(draw_trials(RECIPES, parse_space(["lr=grid(0.1,0.01)"]), num_samples=9, seed=0)) == 4


def scheduler(epochs: int = 9, **options: Any) -> Any:
    trials = {f"t{number}": Trial(f"t{number}", "tiny", {}, epochs) for number in range(6)}
    return halving_scheduler(Halving(**options), METRIC, epochs, trials)


def tell(asha: Any, trial_id: str, epoch: int, value: float) -> str:
    """Report one epoch the way Tune does, under an id of Tune's own, and return the decision."""
    trial = SimpleNamespace(trial_id=f"tune-{trial_id}", config={"trial_id": trial_id})
    if trial_id not in asha._trial_info:
        asha.on_trial_add(None, trial)
    return asha.on_trial_result(None, trial, {EPOCH: epoch, METRIC: value})


def test_a_trial_below_the_best_third_is_stopped_at_a_rung():
    asha = scheduler(grace_epochs=1, reduction_factor=3)
    assert tell(asha, "t0", 1, 0.5) == "CONTINUE"
    assert tell(asha, "t1", 1, 0.9) == "CONTINUE"
    assert tell(asha, "t2", 1, 0.1) == "STOP"
    assert tell(asha, "t1", 2, 0.0) == "CONTINUE"  # no rung


@pytest.mark.parametrize("remembered", [True, False])
def test_a_resumed_scheduler_decides_as_if_it_had_never_stopped(remembered: bool):
    asha = scheduler(grace_epochs=1, reduction_factor=3)
    if remembered:
        asha.remember("t0", [{EPOCH: 1, METRIC: 0.8}])
        asha.remember("t1", [{EPOCH: 1, METRIC: 0.9}, {EPOCH: 2, METRIC: 0.9}])
    assert tell(asha, "t2", 1, 0.1) == ("STOP" if remembered else "CONTINUE")


def test_a_trial_that_goes_on_is_not_counted_twice_at_a_rung():
    asha = scheduler(grace_epochs=1, reduction_factor=3)
    asha.remember("t0", [{EPOCH: 1, METRIC: 0.8}, {EPOCH: 2, METRIC: 0.2}])
    tell(asha, "t0", 2, 0.2)
    rungs = dict(asha._brackets[0]._rungs)
    assert rungs[1] == {"t0": 0.8}


def test_a_trial_that_reports_its_last_epoch_may_finish():
    asha = scheduler(epochs=9, grace_epochs=1, reduction_factor=3)
    tell(asha, "t0", 9, 0.9)
    assert tell(asha, "t1", 9, 0.1) == "CONTINUE"


def test_an_epoch_without_validation_decides_nothing():
    asha = scheduler(grace_epochs=1)
    trial = SimpleNamespace(trial_id="x", config={"trial_id": "t0"})
    asha.on_trial_add(None, trial)
    assert asha.on_trial_result(None, trial, {EPOCH: 1}) == "CONTINUE"
    assert asha.on_trial_result(None, trial, {EPOCH: 1, METRIC: None}) == "CONTINUE"
    assert not any(recorded for _, recorded in asha._brackets[0]._rungs)
