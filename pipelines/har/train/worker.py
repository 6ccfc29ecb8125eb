"""What runs in each Ray Train worker: device, model, data-parallel wrapping, then the loop."""

from __future__ import annotations

import traceback
from dataclasses import replace
from typing import Any

from microg.errors import ConfigError, MicrogError, WorkerError
from microg.pipelines.core.shared_files import SharedFile
from microg.pipelines.har.train.loop import TrainingContext
from microg.pipelines.har.train.settings import TrainConfig
from microg.storage_faults import ends_run


def train_worker(arguments: dict[str, Any]) -> None:
    """Entry point of a worker; `arguments` hold `context`, the actor `monitor`, the `device` that training computes on,
    initial `weights` as a `SharedFile` or None, and `threads` of torch (0: as it is).

    An error that a second attempt cannot mend is left with the monitor: the group that Ray then starts ends at once.
    """
    import ray
    import ray.train
    import ray.train.torch
    import torch

    context: TrainingContext = arguments["context"]
    monitor = arguments["monitor"]
    if ray.get(monitor.should_stop.remote()):
        return
    if arguments["threads"]:
        torch.set_num_threads(arguments["threads"])
    try:
        device = torch.device("cpu") if arguments["device"] == "cpu" else ray.train.torch.get_device()
        if device.type != arguments["device"]:
            raise ConfigError(
                f"training was to run on {arguments['device']}, but torch of this node has only {device.type}",
                "see 'microg doctor' on that node (a driver, a build of torch without CUDA), or use --device cpu",
            )
        _train(context, monitor, device, arguments["weights"])
    except Exception as problem:
        error = ends_run(problem) or problem
        if isinstance(error, MicrogError) and not isinstance(error, WorkerError):
            ray.get(monitor.record_failure.remote(error))
        else:  # a fresh start may help
            ray.get(monitor.record_traceback.remote(traceback.format_exc()))
        raise


def _train(context: TrainingContext, monitor: Any, device: Any, weights: SharedFile | None) -> None:
    import ray
    import ray.train

    from microg.pipelines.har.train.checkpoints import RunFiles
    from microg.pipelines.har.train.loop import TrainLoop
    from microg.pipelines.har.train.stream import ahead, pieces, pinned
    from microg.pipelines.har.train.worker_group import RayWorkerGroup

    group = RayWorkerGroup(monitor, device)
    if group.rank == 0:
        ray.get(monitor.record_start.remote())
    files = RunFiles(context.root)
    progress = files.progress()
    if weights is not None and not progress.state:
        context = replace(context, weights=str(weights.path()))
    model, stepper = build_model_and_stepper(context, device, files.load(progress), distributed=group.world > 1)
    shard: Any = ray.train.get_dataset_shard("samples")
    blocks = iter(shard.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2))
    space = context.config.space
    work = pieces(blocks, context.plan, group.rank, progress.position, context.views, space)
    work = ahead(map(pinned, work) if device.type == "cuda" else work, context.config.resources.prefetch)
    TrainLoop(context, group, model, stepper, progress).run(work)


def build_model_and_stepper(
    context: TrainingContext, device: Any, state: dict[str, Any] | None, *, distributed: bool
) -> tuple[Any, Any]:
    """Return the model and its stepper on `device`: as `state` left them, or with initial weights."""
    import torch
    from torch import nn

    from microg.models.har.checkpoints import load_weights
    from microg.models.har.training.optimizers import build_optimizer
    from microg.models.har.training.step import Stepper

    config = context.config
    model: nn.Module = new_model(config)
    if state is not None:
        model.load_state_dict(state["model"])
    elif context.weights is not None:
        asked = config.weights
        load_weights(model, context.weights, allow_missing=asked.allow_missing, layout=asked.layout, key=asked.key)
    if config.step.sync_batch_norm and distributed:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if config.step.channels_last:
        model = model.to(memory_format=torch.channels_last_3d)  # pyright: ignore[reportCallIssue]
    model = model.to(device)
    optimizer = build_optimizer(model, config.optimizer, config.schedule.lr)
    wrapped: Any = model
    if distributed:
        # Buffers stay as they are: running statistics are combined after each step, from all workers.
        ids = [device] if device.type == "cuda" else None
        wrapped = nn.parallel.DistributedDataParallel(model, device_ids=ids, broadcast_buffers=False)
    if config.step.compile:
        wrapped = torch.compile(wrapped, dynamic=True)
    stepper = Stepper(wrapped, optimizer, config.step, config.optimizer, device)
    if state is not None:
        stepper.load_state(state)
    return model, stepper


def new_model(config: TrainConfig) -> Any:
    """Return the model of a run with random weights: the same ones for the same seed."""
    import torch

    from microg.models.har.backbones.registry import build

    torch.manual_seed(config.seed)
    settings = config.model
    return build(
        settings.name,
        num_classes=len(config.space),
        roi_scale=settings.roi_scale,
        dropout=settings.dropout,
        drop_path=settings.drop_path,
    )
