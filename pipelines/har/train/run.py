"""Training a HAR model on Ray Train: one function that trains a run to its end, from wherever it was left.

Our own checkpoints are the only truth: Ray Train starts workers, joins them for data-parallel training and restarts
them when one dies; each new group goes on from the run folder. Commands and Tune trials call the same function.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from microg.console import say_aside
from microg.locks import exclusive
from microg.pipelines.core.shared_files import share
from microg.pipelines.core.training.checkpoints import Progress, RunFiles
from microg.pipelines.core.training.fit import Watch, WorkerJob, connect, fit, place_workers, where
from microg.pipelines.har.train.checks import TrainingSetup, check_and_plan
from microg.pipelines.har.train.settings import TrainConfig
from microg.runs import Run

COMMAND = "har train"


def train(
    config: TrainConfig, dataset: str, run_root: str, *, callbacks: Sequence[Any] = (), watch: Watch | None = None
) -> dict[str, Any]:
    """Train `config` on `dataset` in the run folder `run_root` until its last epoch, and return what came out.

    A run that was left, however it ended, goes on from its last checkpoint; a finished one returns at once.
    `callbacks` are Ray Train's (`TuneReportCallback()` in a Tune trial): each epoch reports a row of table `har_train`
    with `best_map`. `watch` gets the workers' progress about twice a second. Ctrl-C (`KeyboardInterrupt`) saves after
    the step under way and stops, a second one stops at once. Raises `RunConflictError` when the folder holds another
    run, and `MicrogError` for what the user can mend.
    """
    setup = check_and_plan(config, dataset, run_root)
    root = setup.context.root
    with exclusive(root):
        run = Run.start(root, COMMAND, setup.config, dataset=setup.fingerprint)
        files = RunFiles(root)
        before = files.progress()
        restarts, device = 0, None
        if not before.finished:
            restarts, device = _fit(setup, run, callbacks, watch or (lambda _: None))
        progress = files.progress()
        result = summary(setup, progress) | {"resumed_from": _place(before) if run.resumed else None}
        result |= {"restarts": restarts, "device": device, "already_finished": before.finished}
        if not before.finished:
            run.finish(result)
        return result


def summary(setup: TrainingSetup, progress: Progress) -> dict[str, Any]:
    """Return what a run's progress amounts to."""
    history = progress.history
    return {
        "run": setup.context.root,
        "model": setup.config.model.name,
        "variant": setup.config.variant,
        "epochs": progress.epoch,
        "complete": progress.finished,
        "best": progress.best,
        "weights": RunFiles(setup.context.root).best if progress.best else None,
        "failures": progress.failures,
        "key_frames": {"train": setup.context.plan.train, "val": setup.context.plan.val},
        "history": history,
        "throughput": throughput(history),
    }


def throughput(history: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the closing block of all epochs (see `microg.pipelines.core.telemetry`), with the share of training spent
    waiting.

    The rate is that of training without validation. The bottleneck is `validation` where it takes more time than
    training, `decoding` where workers wait for clips more than a third of the time, else `model`.
    """
    if not history:
        return None
    total = {name: sum(row[name] or 0 for row in history) for name in ("clips", "train_s", "wait_s", "step_s", "val_s")}
    share = total["wait_s"] / max(total["train_s"], 1e-9)
    bottleneck = "validation" if total["val_s"] > total["train_s"] else "decoding" if share > 1 / 3 else "model"
    clips, stages = max(total["clips"], 1), {"wait": "wait_s", "step": "step_s", "validate": "val_s"}
    return {
        "unit": "clips",
        "rows": total["clips"],
        "failed": sum(row["failed"] or 0 for row in history),
        "wall_s": total["train_s"] + total["val_s"],
        "rows_per_s": total["clips"] / max(total["train_s"], 1e-9),
        "stages": {stage: total[name] / clips for stage, name in stages.items()},
        "wait_share": share,
        "bottleneck": bottleneck,
    }


def _place(progress: Progress) -> dict[str, int]:
    return {"epoch": progress.epoch, "iteration": progress.iteration}


def _fit(setup: TrainingSetup, run: Run, callbacks: Sequence[Any], watch: Watch) -> tuple[int, str]:
    """Run Ray Train in a thread and watch it from this one; return how often workers were restarted, and the device."""
    context, resources = setup.context, setup.config.resources
    connect(resources)
    from microg.models.video.decoders.registry import require_decoder
    from microg.pipelines.har.train.stream import run_dataset
    from microg.pipelines.har.train.worker import WorkerArguments, train_worker

    gpus, device = place_workers(resources)
    run.record_device(device, decoder=require_decoder(setup.config.decoder))
    say_aside(where(resources, gpus, device))
    rows = (setup.train_rows, context.val_rows)
    plan, views, decode_cpus = context.plan, context.views, resources.decode_cpus

    # a run that is gone on with has its own state
    initial = context.weights if RunFiles(context.root).progress().state is None else None
    weights = None if initial is None else share(initial)

    def samples() -> Any:  # called for each new group of workers: it goes on where the last one was saved
        return run_dataset(plan, RunFiles(context.root).progress().position, rows, views, cpus=decode_cpus)

    job = WorkerJob(
        root=context.root,
        work=train_worker,
        arguments=WorkerArguments(context=context, weights=weights),
        samples=samples,
        callbacks=callbacks,
    )
    return fit(job, resources, gpus, device, watch), device
