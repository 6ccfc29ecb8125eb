"""Sweeps on Ray Tune: trials over recipes and settings, each a training run of its own, the weak ones stopped early.

Which trials there are is a pure function of the plan, so a sweep is resumed from its folder alone: trials that ended
are left out, the others go on from their own checkpoints, and the scheduler is told again what it had heard. A trial's
driver takes no CPU of its own; Ray Train's workers do the work and report every epoch.

Search spaces are written `lr=loguniform(1e-4,1e-1)` or `model.dropout=choice(0,0.5)`. Nothing in them is evaluated:
values are read as YAML.
"""

from __future__ import annotations

import itertools
import math
import os
import re
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import yaml

from microg import storage
from microg.errors import ConfigError, describe
from microg.pipelines.core.ray_errors import explain

# kind -> (least, greatest number of values; 0: any number), and what each means.
KINDS: dict[str, tuple[int, int]] = {
    "uniform": (2, 2),  # a real number between the two
    "loguniform": (2, 2),  # the same, evenly in the logarithm
    "randint": (2, 2),  # a whole number, from the first up to but without the second
    "choice": (1, 0),  # one of the values, drawn
    "grid": (1, 0),  # each of the values, every one in turn
}
_FORM = re.compile(r"\s*([A-Za-z_][\w.]*)\s*=\s*([a-z]+)\s*\((.*)\)\s*", re.DOTALL)
_EXAMPLE = "for example --space lr=loguniform(1e-4,1e-1), --space batch_size=grid(8,16)"


@dataclass(frozen=True)
class Domain:
    """Where one setting's value comes from: `key` as in `--set`, `kind` of `KINDS`, and its values."""

    key: str
    kind: str
    values: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.key}={self.kind}({','.join(map(str, self.values))})"


def parse_space(texts: Iterable[str]) -> tuple[Domain, ...]:
    """Read domains in the order given. Raises `ConfigError` naming the one at fault and how it should look.

    >>> parse_space(["lr=loguniform(1e-4,1e-1)", "model.roi_scale=choice(published, true)"])[0].values
    (0.0001, 0.1)
    """
    domains = tuple(_parse(text) for text in texts)
    keys = [domain.key for domain in domains]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ConfigError(f"--space names {', '.join(twice)} more than once", "give each setting one domain")
    return domains


def _parse(text: str) -> Domain:
    match = _FORM.fullmatch(text)
    if match is None:
        raise ConfigError(f"--space {text!r} is not of the form key=kind(values)", _EXAMPLE)
    key, kind, inside = match.groups()
    if kind not in KINDS:
        raise ConfigError(f"--space {text!r}: there is no domain {kind!r}", f"domains are {', '.join(KINDS)}")
    values = tuple(_value(part, text) for part in inside.split(",")) if inside.strip() else ()
    least, greatest = KINDS[kind]
    if len(values) < least or (greatest and len(values) > greatest):
        wanted = f"{least} values" if greatest == least else f"at least {least} value"
        raise ConfigError(f"--space {text!r}: {kind} takes {wanted}, not {len(values)}", _EXAMPLE)
    if greatest == 2:
        values = _bounds(text, kind, values)
    return Domain(key, kind, values)


def _value(part: str, text: str) -> Any:
    try:
        value = yaml.safe_load(part)
    except yaml.YAMLError as error:
        raise ConfigError(f"--space {text!r}: {part.strip()!r} is not a value: {error}", _EXAMPLE) from error
    if isinstance(value, str):  # YAML 1.1 takes 1e-4 for text
        try:
            return float(value)
        except ValueError:
            return value
    if value is None:
        raise ConfigError(f"--space {text!r} has an empty value", _EXAMPLE)
    return value


def _bounds(text: str, kind: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the two bounds of a range, checked."""
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ConfigError(f"--space {text!r}: {kind} takes two numbers, not {value!r}", _EXAMPLE)
    low, high = values
    if kind == "randint" and not all(float(value).is_integer() for value in values):
        raise ConfigError(f"--space {text!r}: randint takes whole numbers", _EXAMPLE)
    if low >= high:
        raise ConfigError(f"--space {text!r}: the lower bound {low} is not below the upper bound {high}", _EXAMPLE)
    if kind == "loguniform" and low <= 0:
        raise ConfigError(f"--space {text!r}: loguniform needs bounds above 0", _EXAMPLE)
    return (int(low), int(high)) if kind == "randint" else (float(low), float(high))


EPOCH = "epoch"
# A trial's driver only waits; with the default of one CPU, waiting drivers would starve the workers they wait for.
_DRIVER_CPUS = 0.01


@dataclass(frozen=True)
class Trial:
    """One training run of a sweep: `settings` by key as in `--set`; it ends after `epochs` unless stopped."""

    trial_id: str
    recipe: str
    settings: Mapping[str, Any]
    epochs: int


@dataclass(frozen=True)
class Halving:
    """Asynchronous successive halving: after `grace_epochs`, and each `reduction_factor` times as many, the best
    1/`reduction_factor` of the trials that came as far go on."""

    grace_epochs: int = 1
    reduction_factor: float = 3.0


def draw_trials(
    recipes: Collection[str], space: Sequence[Domain], *, num_samples: int, seed: int
) -> list[tuple[str, dict[str, Any]]]:
    """Return (recipe, settings) of each trial: every recipe and grid value, `num_samples` draws of the rest.

    Draws are common to all recipes, so that recipes are compared at equal settings; a larger `num_samples` keeps the
    draws of a smaller one.
    """
    random = np.random.default_rng(seed)
    grids = [[(domain.key, value) for value in domain.values] for domain in space if domain.kind == "grid"]
    drawn = [domain for domain in space if domain.kind != "grid"]
    result = []
    for _ in range(num_samples if drawn else 1):
        draw = {domain.key: _draw(domain, random) for domain in drawn}
        for recipe in recipes:
            for point in itertools.product(*grids):
                result.append((recipe, {**draw, **dict(point)}))
    return result


def _draw(domain: Domain, random: np.random.Generator) -> Any:
    if domain.kind == "choice":
        return domain.values[int(random.integers(len(domain.values)))]
    low, high = domain.values
    if domain.kind == "randint":
        return int(random.integers(low, high))
    if domain.kind == "loguniform":
        return float(f"{np.exp(random.uniform(np.log(low), np.log(high))):.4g}")
    return float(f"{random.uniform(low, high):.4g}")


def run_trials(
    root: str,
    trials: Sequence[Trial],
    train_trial: Callable[[Trial], None],
    *,
    metric: str,
    halving: Halving | None,
    max_concurrent: int,
    history: Mapping[str, Sequence[Mapping[str, Any]]],
    on_epoch: Callable[[Trial, dict[str, Any]], None],
    on_end: Callable[[Trial, dict[str, Any] | None, str | None], None],
) -> None:
    """Run `trials`; a failing one does not stop the others.

    `train_trial` runs in the trial's driver and reports each epoch to Tune (`EPOCH`, and `metric` where the epoch was
    validated). `history` holds the epochs that trials, also such as have ended, reported before. `on_epoch` hears of
    every epoch; `on_end` of a trial's end, with its last report and the reason when it failed. Raises `WorkerError`
    when Tune itself gives up.
    """
    # progress is shown by the caller; Ctrl-C must end the command, not look like a finished sweep
    for name, value in {
        "RAY_AIR_NEW_OUTPUT": "0",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    }.items():
        os.environ.setdefault(name, value)
    from ray import tune
    from ray.exceptions import RayError

    by_id = {trial.trial_id: trial for trial in trials}
    scratch = storage.join(root, "ray")
    scheduler = None
    if halving is not None:
        longest = max(trial.epochs for trial in trials)
        scheduler = halving_scheduler(halving, metric, longest, by_id)
        for trial_id, epochs in history.items():
            scheduler.remember(trial_id, epochs)
    tuner = tune.Tuner(
        tune.with_resources(_driver(train_trial, by_id), {"CPU": _DRIVER_CPUS}),
        param_space={"trial_id": tune.grid_search(list(by_id))},
        tune_config=tune.TuneConfig(
            scheduler=scheduler,
            max_concurrent_trials=max_concurrent,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(
            # what Tune keeps is not read again: a new name each time, and nothing left behind
            name=f"tune-{uuid.uuid4().hex[:12]}",
            storage_path=scratch,
            verbose=0,
            callbacks=[_listener(by_id, on_epoch, on_end)],
        ),
    )
    try:
        tuner.fit()
    except (RayError, tune.TuneError) as error:
        raise explain(error) from error
    finally:
        storage.remove_tree(scratch)


def _name(trial: Any) -> str:
    return trial.config["trial_id"]


def _driver(train_trial: Callable[[Trial], None], by_id: Mapping[str, Trial]) -> Callable[[dict[str, Any]], None]:
    def drive(config: dict[str, Any]) -> None:
        train_trial(by_id[config["trial_id"]])

    return drive


def halving_scheduler(halving: Halving, metric: str, longest: int, by_id: Mapping[str, Trial]) -> Any:
    """Return Tune's asynchronous halving of trials of at most `longest` epochs, which are known by our ids."""
    from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

    class Scheduler(AsyncHyperBandScheduler):
        """ASHA by our ids of trials, that takes in earlier epochs and lets a trial that reports its last one finish."""

        def remember(self, trial_id: str, epochs: Sequence[Mapping[str, Any]]) -> None:
            named: Any = SimpleNamespace(trial_id=trial_id)  # the same in every invocation
            super().on_trial_add(None, named)  # pyright: ignore[reportArgumentType]
            for report in epochs:
                self._heard(None, named, dict(report))

        def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
            named: Any = SimpleNamespace(trial_id=trial.config["trial_id"])
            super().on_trial_add(tune_controller, named)

        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            trial_id = trial.config["trial_id"]
            decision = self._heard(tune_controller, SimpleNamespace(trial_id=trial_id), result)
            last = result.get(EPOCH, 0) >= by_id[trial_id].epochs
            return TrialScheduler.CONTINUE if last else decision

        def _heard(self, tune_controller: Any, named: Any, result: dict[str, Any]) -> str:
            if result.get(metric) is None:  # an epoch without validation
                return TrialScheduler.CONTINUE
            return super().on_trial_result(tune_controller, named, result)

        def on_trial_remove(self, tune_controller: Any, trial: Any, result: Any = None) -> None:
            self._trial_info.pop(trial.config["trial_id"], None)

        on_trial_complete = on_trial_remove

    return Scheduler(
        time_attr=EPOCH,
        metric=metric,
        mode="max",
        max_t=max(longest, halving.grace_epochs),
        grace_period=halving.grace_epochs,
        reduction_factor=halving.reduction_factor,
        stop_last_trials=False,
    )


def _listener(
    by_id: Mapping[str, Trial],
    on_epoch: Callable[[Trial, dict[str, Any]], None],
    on_end: Callable[[Trial, dict[str, Any] | None, str | None], None],
) -> Any:
    from ray import tune

    class Listener(tune.Callback):
        def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict, **info: Any) -> None:
            on_epoch(by_id[trial.config["trial_id"]], result)

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            on_end(by_id[trial.config["trial_id"]], trial.last_result, None)

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            on_end(by_id[trial.config["trial_id"]], trial.last_result, _reason(trial.get_pickled_error()))

    return Listener()


def _reason(error: BaseException | None) -> str:
    """Return one line that says why a trial failed: the innermost cause that has a message."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        error = getattr(error, "cause", None) or error.__cause__
    return describe(seen[-1]) if seen else "unknown error"
