"""What runs in each Ray Train worker: model, adapters, sharing out, the loop, and what it leaves on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa

from microg import storage
from microg.errors import ConfigError
from microg.models.vlm.base import Request, Sampling
from microg.pipelines.core.shared_files import SharedFolder
from microg.pipelines.core.training.worker_group import WorkerGroup
from microg.pipelines.vlm.train.loop import TuneContext
from microg.pipelines.vlm.train.settings import TuneSettings

ADAPTER, MODEL = "adapter", "model"
REPORT = "merge.json"
CONFIGS = ("adapter_config.json", "config.json")


@dataclass(frozen=True, kw_only=True)
class WorkerArguments:
    """What a worker is given: the run's context, and the model's folder where it is on the driver's machine."""

    context: TuneContext
    folder: SharedFolder | None


def tune_worker(arguments: WorkerArguments, monitor: Any, device: Any) -> None:
    """Tune a run from wherever it is to its end, on a torch device; `monitor` is the actor beside the driver."""
    import ray
    import ray.train

    from microg.pipelines.core.training.worker_group import RayWorkerGroup

    group = RayWorkerGroup(monitor, device)
    if group.rank == 0:
        ray.get(monitor.record_start.remote())
    shard: Any = ray.train.get_dataset_shard("samples")
    blocks = iter(shard.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2))
    context = arguments.context
    tune_part(context, group, device, blocks, None if arguments.folder is None else str(arguments.folder.path()))


def tune_part(
    context: TuneContext, group: WorkerGroup, device: Any, blocks: Iterator[pa.Table], folder: str | None = None
) -> bool:
    """Do one worker's part of a run; return False when it was asked to stop before the end.

    Args:
        context: The run.
        group: The workers.
        device: Torch device.
        blocks: This worker's decoded clips from where the run is, in order.
        folder: Where the model's files are on this node; None as the context says.
    """
    import torch

    from microg.models.vlm.engines.transformers import TransformersEngine
    from microg.models.vlm.tuning.adapters import prepare
    from microg.models.vlm.tuning.examples import clip_example
    from microg.models.vlm.tuning.loss import base_of
    from microg.pipelines.core.training.ahead import ahead
    from microg.pipelines.core.training.checkpoints import RunFiles
    from microg.pipelines.vlm.train.loop import TuneLoop
    from microg.pipelines.vlm.train.replicas import spread
    from microg.pipelines.vlm.train.stream import Composer, lessons

    settings = context.settings
    files = RunFiles(context.root)
    progress = files.progress()
    engine = TransformersEngine(folder or context.model, context.revision, device=str(device), **context.engine)
    torch.manual_seed(settings.seed)  # so every worker begins with the same adapters
    model = prepare(
        load_for_tuning(engine, settings, device),
        settings.method,
        settings.adapter,
        checkpointing=settings.gradient_checkpointing,
    )
    replicas = spread(model, group.world, settings.sharding)
    base = base_of(model)
    engine.adopt(base)
    composer = Composer(
        partial(clip_example, base, engine.chat, options=dict(engine.processor)),
        {task: settings.prompt_of(task) for task in settings.tasks},
        settings.questions,
        settings.seed,
    )
    work = lessons(blocks, context.plan, group.rank, progress.position, composer)
    answerer = partial(_answers, engine, Sampling(max_tokens=settings.validation.max_tokens))
    loop = TuneLoop(context, group, replicas, answerer, progress, files.load(progress))
    finished = loop.run(ahead(work, settings.resources.prefetch))
    if finished and group.rank == 0:
        export(context.root, settings, model, engine, files.load_best())
    return finished


def load_for_tuning(engine: Any, settings: TuneSettings, device: Any) -> Any:
    """Return the engine's model as it is tuned: frozen weights in the run's number format, or in four bits.

    Raises:
        ConfigError: Four bits are not to be had here, or the model cannot be loaded.
    """
    from microg.models.vlm.engines.transformers import load_model

    half = settings.precision == "bfloat16" and settings.method != "full"
    if settings.method != "qlora":
        return load_model(engine.checkpoint, "bfloat16" if half else "float32", str(device), engine.trust_remote_code)
    if find_spec("bitsandbytes") is None:
        raise ConfigError("method qlora needs the package bitsandbytes", "uv sync --extra qlora")
    from transformers import BitsAndBytesConfig

    four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    return load_model(engine.checkpoint, "bfloat16", str(device), engine.trust_remote_code, quantization_config=four)


def _answers(engine: Any, sampling: Sampling, requests: Sequence[Request]) -> list[str]:
    """Return what the model says to requests, in their order; what fails is an empty text."""
    replies = {reply.key: reply.text or "" for reply in engine.generate(requests, sampling)}
    return [replies.get(request.key, "") for request in requests]


def export(root: str, settings: TuneSettings, model: Any, engine: Any, best: dict[str, Any]) -> None:
    """Write what was learnt, as others take it: adapters in peft's layout, or a whole checkpoint.

    Args:
        root: The run folder.
        settings: The run's settings.
        model: The model in training.
        engine: The engine that showed it frames.
        best: The parameters that learnt, of the best epoch.
    """
    from microg.models.vlm.engines.transformers import load_model
    from microg.models.vlm.tuning.adapters import load_trainable_state, prepare, save_adapter

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if settings.method == "full":
            whole = load_model(engine.checkpoint, "float32", "cpu", engine.trust_remote_code)
            whole = prepare(whole, "full", settings.adapter, checkpointing=False)
            load_trainable_state(whole, best)
            save_checkpoint(whole.to(dtype=_kind(engine.stored_as)), engine, folder, settings)
            target = storage.join(root, MODEL)
        else:
            save_adapter(model, best, folder)
            target = storage.join(root, ADAPTER)
        put_folder(folder, target)


def _kind(name: str) -> Any:
    from microg.models.vlm.engines.transformers import number_format

    return number_format(name)


def save_checkpoint(model: Any, engine: Any, folder: Path, settings: TuneSettings) -> None:
    """Write a model with its processor, and what it was trained with, so that it is asked the same way."""
    from microg.models.vlm.layouts import OWN_FACTS

    model.save_pretrained(str(folder), safe_serialization=True)
    engine.chat.processor.save_pretrained(str(folder))
    frames = settings.policy().model_dump(mode="json")
    storage.write_json(str(folder / OWN_FACTS), {"frames": frames, "prompts": settings.prompts.model_dump()})


def put_folder(folder: Path, target: str) -> None:
    """Copy the files of a folder to a path or URI; one that is there already is replaced.

    A merge's report comes first and the configuration last: by it readers know the folder, which is whole then.
    """
    storage.remove_tree(target)
    files = [path for path in folder.rglob("*") if path.is_file()]
    for file in sorted(files, key=lambda path: (path.name in CONFIGS, path.name != REPORT, path)):
        with file.open("rb") as opened:
            storage.write_blocks(
                storage.join(target, *file.relative_to(folder).parts), iter(lambda: opened.read(2**22), b"")
            )
