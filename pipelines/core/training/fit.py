"""Running Ray Train for a training whose own checkpoints are the only truth, and watching it.

Ray Train starts workers, joins them for data-parallel training and restarts them when one dies; each new group goes on
from the run folder.
"""

from __future__ import annotations

import signal
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from microg import storage
from microg.config import Resources
from microg.errors import ConfigError, MicrogError, WorkerError
from microg.pipelines.core import cluster, session
from microg.pipelines.core.training.resources import TrainResources
from microg.pipelines.core.training.worker_group import Monitor, WorkerState
from microg.storage_faults import ends_run

_LOOK_EVERY_S = 0.5
_AHEAD_BYTES = 512 * 2**20  # how far decoding runs ahead of each worker

Watch = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class WorkerJob:
    """What the workers of a training do.

    Attributes:
        root: The run folder.
        work: Runs in every worker: `work(arguments, monitor, device)`, with a torch device.
        arguments: Given to each worker.
        samples: Makes the stream of samples from wherever the run is, for each new group of workers.
        callbacks: Ray Train's own, for Tune trials.
    """

    root: str
    work: Callable[[Any, Any, Any], None]
    arguments: Any
    samples: Callable[[], Any]
    callbacks: Sequence[Any] = field(default_factory=tuple)


def connect(resources: TrainResources) -> None:
    """Connect to Ray, or start a local one; starting it would else replace the handler of SIGTERM."""
    with _kept_handler(signal.SIGTERM):
        session.connect(Resources(address=resources.address))  # before Ray is imported: see `connect`


def fit(job: WorkerJob, resources: TrainResources, gpus: float, device: str, watch: Watch) -> int:
    """Run the workers to the end of their work on the connected Ray, and return how often they were restarted.

    Args:
        job: What they do.
        resources: What they may use.
        gpus: GPUs of one worker.
        device: "cpu" or "cuda".
        watch: Gets the workers' progress about twice a second.

    Raises:
        MicrogError: The workers' own error, or `WorkerError` where they failed too often.
        KeyboardInterrupt: The user stopped it; everything is saved.
    """
    import ray
    from ray.train import DataConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # on the driver's node: elsewhere the loss of a node would end a training that can go on without it
    here: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    monitor = ray.remote(num_cpus=0, scheduling_strategy=here)(Monitor).remote()
    scratch = storage.join(job.root, "ray")
    trainer = TorchTrainer(
        run_worker,
        train_loop_config={
            "work": job.work,
            "arguments": job.arguments,
            "monitor": monitor,
            "device": device,
            "threads": worker_threads(resources, device),
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
            callbacks=list(job.callbacks),
            failure_config=FailureConfig(max_failures=resources.max_failures),
        ),
        datasets={"samples": job.samples},
        dataset_config=DataConfig(execution_options=session.ordered_execution(_AHEAD_BYTES * resources.workers)),
    )
    try:
        return _fit_and_watch(trainer, monitor, watch)
    finally:
        storage.remove_tree(scratch)


def run_worker(config: dict[str, Any]) -> None:
    """Entry point of a worker (see `fit`).

    An error that a second attempt cannot mend is left with the monitor: the group that Ray then starts ends at once.
    """
    import ray
    import ray.train
    import ray.train.torch
    import torch

    monitor = config["monitor"]
    if ray.get(monitor.should_stop.remote()):
        return
    if config["threads"]:
        torch.set_num_threads(config["threads"])
    try:
        device = torch.device("cpu") if config["device"] == "cpu" else ray.train.torch.get_device()
        if device.type != config["device"]:
            raise ConfigError(
                f"training was to run on {config['device']}, but torch of this node has only {device.type}",
                "see 'microg doctor' on that node (a driver, a build of torch without CUDA), or use --device cpu",
            )
        config["work"](config["arguments"], monitor, device)
    except Exception as problem:
        error = ends_run(problem) or problem
        if isinstance(error, MicrogError) and not isinstance(error, WorkerError):
            ray.get(monitor.record_failure.remote(error))
        else:  # a fresh start may help
            ray.get(monitor.record_traceback.remote(traceback.format_exc()))
        raise


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


def place_workers(resources: TrainResources) -> tuple[float, str]:
    """Return the GPUs of one worker and the device of all, once the workers fit on the connected Ray.

    Raises `ConfigError` when they do not fit: fewer GPUs than workers never mean the CPU.
    """
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


def where(resources: TrainResources, gpus: float, device: str) -> str:
    """Return a line that says where training runs."""
    takes = f"{resources.worker_cpus:g} CPU" + (f" and {gpus:g} GPU" if gpus else "")
    return f"training on {device}: {resources.workers} worker{'s' * (resources.workers > 1)} of {takes}"


def worker_threads(resources: TrainResources, device: str) -> int:
    """Return torch's threads a worker: as set, else on a CPU this machine's cores but one, shared among workers.

    The one is for decoding. Threads that wait for one another on cores which are busy otherwise cost three times the
    time of one thread.
    """
    from microg.system.hardware import usable_cores

    if resources.threads or device == "cuda":
        return resources.threads
    return max(1, (int(usable_cores()) - 1) // resources.workers) if session.started_here() else 0
