"""`microg har sweep`: what is asked is checked before anything runs, and a sweep ends, resumes and ranks its trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from microg.errors import ConfigError
from microg.jobs.commands.har_sweep.run import sweep_trials
from microg.jobs.commands.har_sweep.settings import SweepSettings, full_key, load_sweep_settings
from microg.pipelines.har.train.settings import TrainConfig

RECIPE = """\
train:
  model: {{name: TINY}}
  batch: {batch}
  epochs: {epochs}
  schedule: {{lr: 0.1, starts: [0], relative: [1], warmup_epochs: 0}}
"""


@pytest.fixture
def recipes(tmp_path: Path) -> list[str]:
    paths = []
    for name, batch, epochs in (("small", 4, 3), ("large", 8, 2)):
        path = tmp_path / f"{name}.yaml"
        path.write_text(RECIPE.format(batch=batch, epochs=epochs))
        paths.append(str(path))
    return paths


def settings(recipes: list[str], *space: str, **options: Any) -> SweepSettings:
    values = {"variant": None, "limit": None, **options}
    return load_sweep_settings("data", recipes, space, [], **values)


def test_a_key_of_the_space_may_be_short_where_it_is_unique():
    assert full_key(TrainConfig, "lr") == "schedule.lr"
    assert full_key(TrainConfig, "optimizer.name") == "optimizer.name"
    with pytest.raises(ConfigError, match=r"may be model\.name or optimizer\.name"):
        full_key(TrainConfig, "name")
    with pytest.raises(ConfigError, match="no setting 'learning'"):
        full_key(TrainConfig, "learning")


def test_a_trial_is_its_recipe_with_the_values_drawn_and_validates_every_epoch(recipes: list[str]):
    asked = settings(recipes, "lr=grid(0.01,0.1)")
    trials = sweep_trials(asked)
    assert [trial.trial_id for trial in trials] == ["0000_small", "0001_small", "0002_large", "0003_large"]
    assert [trial.epochs for trial in trials] == [3, 3, 2, 2]
    config = asked.trial_config("large", dict(trials[2].settings))
    assert (config.schedule.lr, config.batch, config.validation.every) == (0.01, 8, 1)


def test_a_value_that_a_recipe_cannot_take_is_refused_before_anything_runs(recipes: list[str]):
    with pytest.raises(ConfigError, match=r"schedule\.lr=grid\(-1\) does not fit recipe small"):
        settings(recipes, "lr=grid(-1)")
    with pytest.raises(ConfigError, match=r"micro_batch=choice\(4,3\) does not fit recipe small"):
        settings(recipes, "micro_batch=choice(4,3)")


def test_recipes_must_be_there_and_have_different_names(recipes: list[str], tmp_path: Path):
    with pytest.raises(ConfigError, match="at least one recipe"):
        settings([])
    with pytest.raises(ConfigError, match="two recipes are called 'small'"):
        settings([recipes[0], recipes[0]])
    with pytest.raises(ConfigError, match="none is not there"):
        settings([str(tmp_path / "none")])


def test_a_sweep_may_grow_when_it_is_resumed_but_not_change(recipes: list[str]):
    space = "lr=loguniform(0.001,0.1)"
    small, grown, other = (settings(recipes, space, num_samples=n, seed=s) for n, s in ((1, 0), (3, 0), (1, 1)))
    assert small.digest() == grown.digest() != other.digest()
    assert sweep_trials(grown)[:2] == sweep_trials(small)
