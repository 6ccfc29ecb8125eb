"""What runs in each Ray Train worker: device, model, data-parallel wrapping, then the loop."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from microg.pipelines.core.shared_files import SharedFile
from microg.pipelines.har.train.loop import TrainingContext
from microg.pipelines.har.train.settings import TrainConfig


@dataclass(frozen=True, kw_only=True)
class WorkerArguments:
    """What a worker is given: the run's context, and its initial weights where it has any."""

    context: TrainingContext
    weights: SharedFile | None


def train_worker(arguments: WorkerArguments, monitor: Any, device: Any) -> None:
    """Train a run from wherever it is to its end, on a torch device; `monitor` is the actor beside the driver."""
    _train(arguments.context, monitor, device, arguments.weights)


def _train(context: TrainingContext, monitor: Any, device: Any, weights: SharedFile | None) -> None:
    import ray
    import ray.train

    from microg.pipelines.core.training.ahead import ahead
    from microg.pipelines.core.training.checkpoints import RunFiles
    from microg.pipelines.core.training.worker_group import RayWorkerGroup
    from microg.pipelines.har.train.loop import TrainLoop
    from microg.pipelines.har.train.stream import pieces, pinned

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
