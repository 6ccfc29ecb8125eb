"""Training a HAR model on Ray Train: one function that trains a run to its end, from wherever it was left.

Our own checkpoints are the only truth: Ray Train starts workers, joins them for data-parallel training and restarts
them when one dies; each new group goes on from the run folder. Commands and Tune trials call the same function.
"""

from __future__ import annotations

import signal
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from microg import storage
from microg.config import Resources
from microg.console import say_aside
from microg.errors import WorkerError
from microg.locks import exclusive
from microg.pipelines.core import cluster, session
from microg.pipelines.core.shared_files import share
from microg.pipelines.har.train.checkpoints import Progress, RunFiles
from microg.pipelines.har.train.checks import TrainingSetup, check_and_plan
from microg.pipelines.har.train.settings import TrainConfig, TrainResources
from microg.pipelines.har.train.worker_group import Monitor, WorkerState
from microg.runs import Run

COMMAND = "har train"
_LOOK_EVERY_S = 0.5
_AHEAD_BYTES = 512 * 2**20  # how far decoding runs ahead of each worker

Watch = Callable[[dict[str, Any]], None]


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
    with _kept_handler(signal.SIGTERM):
        session.connect(Resources(address=resources.address))  # before Ray is imported: see `connect`
    import ray
    from ray.train import DataConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from microg.models.video.decoders.registry import require_decoder
    from microg.pipelines.har.train.stream import run_dataset
    from microg.pipelines.har.train.worker import train_worker

    gpus, device = place_workers(setup.config)
    run.record_device(device, decoder=require_decoder(setup.config.decoder))
    say_aside(_where(resources, gpus, device))
    # on the driver's node: elsewhere the loss of a node would end a training that can go on without it
    here: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    monitor = ray.remote(num_cpus=0, scheduling_strategy=here)(Monitor).remote()
    rows = (setup.train_rows, context.val_rows)
    plan, views, decode_cpus = context.plan, context.views, resources.decode_cpus

    # a run that is gone on with has its own state
    initial = context.weights if RunFiles(context.root).progress().state is None else None
    weights = None if initial is None else share(initial)

    def samples() -> Any:  # called for each new group of workers: it goes on where the last one was saved
        return run_dataset(plan, RunFiles(context.root).progress().position, rows, views, cpus=decode_cpus)

    scratch = storage.join(context.root, "ray")
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={
            "context": context,
            "monitor": monitor,
            "device": device,
            "weights": weights,
            "threads": worker_threads(setup.config, device),
        },
        torch_config=TorchConfig(backend="nccl" if device == "cuda" else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": resources.worker_cpus, **({"GPU": gpus} if gpus else {})},
        ),
        # a new name each time: Ray Train would take a finished one for done
        run_config=RunConfig(
            name=f"train-{uuid.uuid4().hex[:12]}",
            storage_path=scratch,
            callbacks=list(callbacks),
            failure_config=FailureConfig(max_failures=resources.max_failures),
        ),
        datasets={"samples": samples},
        dataset_config=DataConfig(execution_options=session.ordered_execution(_AHEAD_BYTES * resources.workers)),
    )
    try:
        return _fit_and_watch(trainer, monitor, watch), device
    finally:
        storage.remove_tree(scratch)


@contextmanager
def _kept_handler(number: signal.Signals) -> Iterator[None]:
    """Put a signal's handler back afterwards: starting Ray replaces that of SIGTERM by one that prints a stack."""
    handler = signal.getsignal(number)
    yield
    if threading.current_thread() is threading.main_thread() and callable(handler):
        signal.signal(number, handler)


def _fit_and_watch(trainer: Any, monitor: Any, watch: Watch) -> int:
    """Run `trainer.fit()` to its end. Raises the workers' own error, or `KeyboardInterrupt` once all is saved."""
    import ray

    ended: list[BaseException | None] = []

    def look() -> WorkerState:
        found: Any = ray.get(monitor.state.remote())
        return found

    def fit() -> None:
        try:
            trainer.fit()
            ended.append(None)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    interrupted, progress = False, {}
    while thread.is_alive():
        try:
            thread.join(_LOOK_EVERY_S)
            progress = look().progress or progress
            if progress and not interrupted:
                watch(progress)
        except KeyboardInterrupt:
            if interrupted:
                raise
            interrupted = True
            monitor.stop.remote()
            watch({**progress, "phase": "stopping"})
    state = look()
    if state.failure is not None:
        raise state.failure
    if interrupted:
        raise KeyboardInterrupt
    if ended and ended[0] is not None:
        # Ray's own report of a worker's error is cut short
        report = (state.traceback or str(ended[0])).splitlines()
        lines = [line.strip() for line in report if line.strip()] or ["no message"]
        raise WorkerError(
            f"training failed {state.starts} times, the last time with: {lines[-1]}",
            "run the same command again to resume; --debug shows the whole report",
        ) from (ended[0] if state.traceback is None else RuntimeError(state.traceback))
    return max(state.starts - 1, 0)


def place_workers(config: TrainConfig) -> tuple[float, str]:
    """Return the GPUs of one worker and the device of all, once the workers fit on the connected Ray.

    Raises `ConfigError` when they do not fit: fewer GPUs than workers never mean the CPU.
    """
    resources = config.resources
    workers, beside, device = bundles_of(resources)
    cluster.require(
        [*workers, *beside],
        who=f"training with {resources.workers} workers",
        fix="lower --num-workers or resources.worker_cpus, use --device cpu, or connect to a larger cluster",
        wait_s=resources.wait_s,
    )
    return workers[0]["GPU"], device


def bundles_of(resources: TrainResources) -> tuple[list[cluster.Bundle], list[cluster.Bundle], str]:
    """Return what the workers of a run take of the connected Ray, what decoding takes, and the device of all workers.

    `auto` is a GPU a worker where Ray has GPUs or its autoscaler can start some, unless `worker_gpus` is 0.
    """
    gpus, device = resources.worker_gpus or 0.0, resources.device
    with_gpu = {"CPU": resources.worker_cpus, "GPU": gpus or 1.0}
    beside: list[cluster.Bundle] = [{"CPU": resources.decode_cpus}]
    if device == "auto":
        no_gpus = resources.worker_gpus == 0 or not cluster.gpus_can_be_had(
            cluster.capacity(), [with_gpu] * resources.workers + beside
        )
        device = "cpu" if no_gpus and not gpus else "cuda"
    worker = with_gpu if device == "cuda" else {**with_gpu, "GPU": gpus}
    return [worker] * resources.workers, beside, device


def _where(resources: TrainResources, gpus: float, device: str) -> str:
    takes = f"{resources.worker_cpus:g} CPU" + (f" and {gpus:g} GPU" if gpus else "")
    return f"training on {device}: {resources.workers} worker{'s' * (resources.workers > 1)} of {takes}"


def worker_threads(config: TrainConfig, device: str) -> int:
    """Return torch's threads a worker: as set, else on a CPU this machine's cores but one, shared among workers.

    The one is for decoding. Threads that wait for one another on cores which are busy otherwise cost three times the
    time of one thread.
    """
    from microg.system.hardware import usable_cores

    if config.resources.threads or device == "cuda":
        return config.resources.threads
    return max(1, (int(usable_cores()) - 1) // config.resources.workers) if session.started_here() else 0
