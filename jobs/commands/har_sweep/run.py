"""What `microg har sweep` does: draws trials, leaves out those that ended, runs the rest, and ranks all."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from microg import storage
from microg.config import Resources
from microg.console import say_aside
from microg.data import schema
from microg.errors import ConfigError, DatasetError, describe
from microg.locks import exclusive
from microg.pipelines.core import cluster, session
from microg.pipelines.har.sweep import Halving, Trial, draw_trials, run_trials
from microg.runs import Run
from microg.system.hardware import usable_cores

if TYPE_CHECKING:
    from microg.jobs.commands.har_sweep.settings import SweepSettings
    from microg.pipelines.core.training.checkpoints import Progress

COMMAND = "har sweep"


def sweep_trials(settings: SweepSettings) -> list[Trial]:
    """Return all trials; their ids tell number and recipe. Raises `ConfigError` when a trial's values do not fit."""
    drawn = draw_trials(list(settings.configs), settings.domains, num_samples=settings.num_samples, seed=settings.seed)
    trials = []
    for number, (recipe, values) in enumerate(drawn):
        planned = settings.trial_config(recipe, values).epochs
        trials.append(Trial(f"{number:04d}_{recipe}", recipe, values, planned))
    return trials


def sweep(
    settings: SweepSettings,
    root: str,
    on_epoch: Callable[[Trial, dict[str, Any]], None],
    on_end: Callable[[Trial, str, str | None], None],
    *,
    max_concurrent: int | None,
    address: str | None,
    device: str | None = None,
) -> dict[str, Any]:
    """Run what is left of a sweep in run folder `root`, and return its document with one row a trial, best first.

    Args:
        settings: The search.
        root: The run folder.
        on_epoch: Takes each epoch's row of a trial.
        on_end: Takes each trial's status and error at its end.
        max_concurrent: Trials at once; None for as many as fit.
        address: Address of a Ray cluster.
        device: Where all trials compute, in place of what the recipes say.

    Raises:
        MicrogError: What the user can put right, before anything is started.
    """
    root = storage.absolute(root)
    trials = sweep_trials(settings)
    fingerprint = _check(settings, root, trials)
    with exclusive(root):
        run = Run.start(root, COMMAND, settings, dataset=fingerprint)
        left = [trial for trial in trials if (read_record(root, trial) or {}).get("status") not in ("done", "stopped")]
        if left:
            session.connect(Resources(address=address), dashboard=True)
            halving = (
                Halving(settings.grace_epochs, settings.reduction_factor) if settings.scheduler == "asha" else None
            )
            count, threads, device = concurrency(settings, len(left), max_concurrent, device)
            run.record_device(device)
            say_aside(f"{len(left)} trials on {device}, {count} at once")
            run_trials(
                root,
                left,
                _trainer(settings, root, address, threads, device),
                metric=settings.metric,
                halving=halving,
                max_concurrent=count,
                history={trial.trial_id: history(root, trial) for trial in trials},
                on_epoch=on_epoch,
                on_end=lambda trial, last, error: on_end(trial, _ended(root, trial, last, error), error),
            )
        rows = leaderboard(settings, root, trials)
        run.write_table("har_sweep", schema.from_rows("har_sweep", rows))
        files = write_plot(settings, root, rows)
        document = {
            "run": root,
            "metric": settings.metric,
            "trials": rows,
            "done_before": len(trials) - len(left),
            "files": files,
        }
        run.finish({key: value for key, value in document.items() if key != "run"})
        return document


def _check(settings: SweepSettings, root: str, trials: list[Trial]) -> str:
    """Find what keeps any trial from starting before the first one does; return the data's fingerprint."""
    from microg.pipelines.har.train.checks import check_and_plan

    checked: dict[tuple[Any, ...], str] = {}
    for trial in trials:
        config = settings.trial_config(trial.recipe, dict(trial.settings))
        data = (config.model.name, config.label_space, config.scheme, config.limit)
        key = (trial.recipe, *data, config.batch, config.micro, config.validation, config.weights)
        if key not in checked:
            checked[key] = check_and_plan(config, settings.dataset, trial_folder(root, trial)).fingerprint
    return next(iter(checked.values()))


def _trainer(
    settings: SweepSettings, root: str, address: str | None, threads: int, device: str
) -> Callable[[Trial], None]:
    def train_trial(trial: Trial) -> None:
        from ray.tune.integration.ray_train import TuneReportCallback

        from microg.pipelines.har.train.run import train

        config = settings.trial_config(trial.recipe, dict(trial.settings))
        resources = {**config.resources.model_dump(), "address": address, "device": device}
        config = config.replaced(resources={**resources, "threads": resources["threads"] or threads})
        train(config, settings.dataset, trial_folder(root, trial), callbacks=[TuneReportCallback()])

    return train_trial


def concurrency(
    settings: SweepSettings, trials: int, most: int | None, device: str | None = None
) -> tuple[int, int, str]:
    """Return how many trials run at once, torch's threads a worker, and the device of all.

    As many as the cluster has room for, nodes that its autoscaler can add included, and a CPU that decodes.

    Args:
        settings: Whose recipes say what a trial takes.
        trials: Trials that are left.
        most: Trials at once that the user wants; None for as many as fit.
        device: Where all compute, in place of what the recipes say.

    Raises:
        ConfigError: They do not fit.
    """
    from microg.pipelines.core.training.fit import bundles_of

    all_resources = [config.resources for config in settings.configs.values()]
    widest = max(all_resources, key=lambda one: (one.workers * one.worker_cpus, one.workers))
    workers, beside, device = bundles_of(widest.replaced(device=device or widest.device))
    trial = [*workers, {"CPU": 0.01}]  # the process that watches the trial's workers
    fix = "lower --max-concurrent or resources.worker_cpus, use --device cpu, or connect to a larger cluster"
    cores = usable_cores()
    if session.started_here() and device == "cpu":  # as many CPUs again are declared as there are cores
        trials = min(trials, max(1, int(cores / (widest.workers * widest.worker_cpus))))
    fits = cluster.most_that_fit(trial, beside, max(trials, most or 0))
    if most is not None and fits < most:
        raise ConfigError(
            f"{most} trials at once do not fit: Ray has {cluster.capacity()}, enough for {fits}",
            fix,
        )
    count = max(1, most or min(fits, trials))
    wanted = count if most is not None else 1
    cluster.require(
        [*beside, *trial * wanted], who=f"a sweep of {wanted} trials at once", fix=fix, wait_s=widest.wait_s
    )
    threads = max(1, int(cores) // (count * widest.workers)) if session.started_here() else 0
    return count, threads, device


def trial_folder(root: str, trial: Trial) -> str:
    """Return the run folder of a trial's training."""
    return storage.join(root, "trials", trial.trial_id)


def _record_path(root: str, trial: Trial) -> str:
    return storage.join(trial_folder(root, trial), "trial.json")


def read_record(root: str, trial: Trial) -> dict[str, Any] | None:
    """Return how a trial ended, None while it has not. Raises `DatasetError` when its record is damaged."""
    path = _record_path(root, trial)
    record = storage.read_json(path) if storage.exists(path) else None
    if record is not None and not (isinstance(record, dict) and isinstance(record.get("status"), str)):
        raise DatasetError(f"{path} does not say how a trial ended", "delete it: the trial goes on where it stopped")
    return record


def _ended(root: str, trial: Trial, last: dict[str, Any] | None, error: str | None) -> str:
    """Record how a trial ended and return its status."""
    epoch = (last or {}).get("epoch") or 0
    if error is not None:
        status = "error"
    elif epoch >= trial.epochs or _progress(root, trial).finished:
        status = "done"
    else:
        status = "stopped"
    storage.write_json(_record_path(root, trial), {"status": status, "epoch": epoch, "error": error})
    return status


def _progress(root: str, trial: Trial) -> Progress:
    from microg.pipelines.core.training.checkpoints import RunFiles

    return RunFiles(trial_folder(root, trial)).progress()


def history(root: str, trial: Trial) -> list[dict[str, Any]]:
    """Return the epochs that a trial has done, rows of table `har_train`."""
    return _progress(root, trial).history


def leaderboard(settings: SweepSettings, root: str, trials: list[Trial]) -> list[dict[str, Any]]:
    """Return rows of table `har_sweep`, by falling best score; trials without one come last."""
    rows = []
    for trial in trials:
        record = read_record(root, trial) or {"status": "unfinished", "error": ""}
        row: dict[str, Any] = {
            "trial_id": trial.trial_id,
            "recipe": trial.recipe,
            "settings": json.dumps(dict(trial.settings)),
            "status": record["status"],
            "epochs": trial.epochs,
            "metric": settings.metric,
            "run": f"trials/{trial.trial_id}",
            "error": record["error"] or "",
        }
        try:
            epochs = history(root, trial)
        except Exception as error:  # one damaged folder must not hide the others
            rows.append(row | {"error": row["error"] or describe(error)})
            continue
        scored = [epoch for epoch in epochs if epoch.get(settings.metric) is not None]
        best = max(scored, key=lambda epoch: epoch[settings.metric], default=None)
        row |= {"epochs_done": len(epochs), "train_s": sum(epoch["train_s"] or 0.0 for epoch in epochs)}
        if best is not None:
            row |= {"best_epoch": best["epoch"], "best": best[settings.metric]}
        rows.append(row)
    return sorted(rows, key=lambda row: (-row.get("best", -math.inf), row["trial_id"]))


def write_plot(settings: SweepSettings, root: str, rows: list[dict[str, Any]]) -> list[str]:
    """Draw the parallel coordinates of all trials; returns the paths."""
    from microg.reports.plots.training import parallel_coordinates

    keys = [domain.key for domain in settings.domains]
    score = settings.metric.replace("_", " ").replace("map", "mAP")
    drawn = [
        {**json.loads(row["settings"]), "recipe": row["recipe"], "status": row["status"], score: row.get("best")}
        for row in rows
    ]
    plot = parallel_coordinates(drawn, ["recipe", *keys], score, f"Sweep of {len(rows)} trials")
    return [] if plot is None else plot.save(storage.join(root, "plots"))
