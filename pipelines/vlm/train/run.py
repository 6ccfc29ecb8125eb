"""Fine-tuning on Ray Train: one function that tunes a run to its end, from wherever it was left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from microg import storage
from microg.console import say_aside
from microg.errors import ConfigError
from microg.locks import exclusive
from microg.models.vlm.cards import ModelCard, card_of
from microg.models.vlm.engines.checkpoint import Checkpoint, find
from microg.models.vlm.tuning.families import family_of
from microg.pipelines.core.shared_files import share_folder
from microg.pipelines.core.training.checkpoints import Progress, RunFiles
from microg.pipelines.core.training.fit import Watch, WorkerJob, connect, fit, place_workers, where
from microg.pipelines.core.training.plan import Plan
from microg.pipelines.vlm.train.lessons import Lessons, read_lessons
from microg.pipelines.vlm.train.loop import TABLE, TuneContext
from microg.pipelines.vlm.train.settings import TuneSettings
from microg.pipelines.vlm.train.validation import selectable
from microg.pipelines.vlm.train.worker import ADAPTER, MODEL, WorkerArguments, tune_worker
from microg.runs import Run

COMMAND = "vlm train"
# Of a card's settings, those that say how frames and words are shown.
_SHOWN = ("frames_as", "chat_template", "repeat_frames", "processor", "trust_remote_code")


@dataclass(frozen=True, kw_only=True)
class TuneSetup:
    """A run whose settings, model and data were checked.

    Attributes:
        settings: The settings, with everything filled in.
        card: The model's card.
        checkpoint: Where its files are.
        lessons: What it learns.
        context: What every worker needs.
    """

    settings: TuneSettings
    card: ModelCard
    checkpoint: Checkpoint
    lessons: Lessons
    context: TuneContext


def check_and_plan(settings: TuneSettings, dataset: str, root: str) -> TuneSetup:
    """Read and check everything that tuning needs, before anything is started or written.

    Raises:
        ConfigError: The model is none that can be tuned, or validation chooses by what is no score.
        DatasetError: There is nothing to learn.
    """
    if not settings.model:
        raise ConfigError("which model to tune is missing", "--model CARD or FOLDER; 'microg vlm models' lists cards")
    found = card_of(settings.model)
    if found.api:
        raise ConfigError(f"{found.title} is a provider's model: it cannot be tuned here", "choose an open model")
    found.require_converted()
    checkpoint = find(found.hub_id, found.settings.get("revision"))
    family_of(str(checkpoint.config.get("model_type")))
    if settings.validation.select not in selectable():
        raise ConfigError(
            f"the best epoch cannot be chosen by {settings.validation.select!r}", f"choose of {', '.join(selectable())}"
        )
    hashes = {task: settings.prompt_of(task).hash for task in settings.tasks}
    filled = settings.replaced(
        model_identity=checkpoint.identity,
        frames=(settings.frames or found.frames).model_dump(),
        prompt_hashes=hashes,
    )
    lessons = read_lessons(dataset, filled)
    plan = Plan(
        train=lessons.train.num_rows,
        val=lessons.val.num_rows,
        batch=filled.batch,
        micro_batch=1,
        workers=filled.resources.workers,
        epochs=filled.epochs,
        validate_every=filled.validation.every,
        seed=filled.seed,
        noun="clips",
    )
    context = TuneContext(
        root=storage.absolute(root),
        settings=filled,
        plan=plan,
        generated=_spread_over(lessons.val, filled.validation.generate),
        model=found.hub_id,
        revision=checkpoint.revision,
        engine=shown_by(found, filled),
    )
    return TuneSetup(settings=filled, card=found, checkpoint=checkpoint, lessons=lessons, context=context)


def shown_by(found: ModelCard, settings: TuneSettings) -> dict[str, Any]:
    """Return the engine's settings that say how frames and words are shown to a model."""
    shown = {name: found.settings[name] for name in _SHOWN if name in found.settings}
    processor = {**shown.get("processor", {}), **settings.processor}
    return {**shown, "processor": processor} if processor else shown


def _spread_over(clips: pa.Table, count: int) -> frozenset[str]:
    """Return the ids of so many clips, spread evenly over the table."""
    ids = clips["clip_id"].to_pylist()
    count = min(count, len(ids))
    return frozenset(ids[number * len(ids) // count] for number in range(count))


def tune(settings: TuneSettings, dataset: str, root: str, watch: Watch = lambda progress: None) -> dict[str, Any]:
    """Tune a model in a run folder until its last epoch, and return what came out.

    A run that was left, however it ended, goes on from its last checkpoint; a finished one returns at once. `watch`
    gets the workers' progress about twice a second. Ctrl-C saves after the step under way and stops.

    Raises:
        RunConflictError: The folder holds another run.
        MicrogError: For what the user can mend.
    """
    setup = check_and_plan(settings, dataset, root)
    root = setup.context.root
    with exclusive(root):
        run = Run.start(root, COMMAND, setup.settings, dataset=setup.lessons.fingerprint)
        before = RunFiles(root).progress()
        restarts, device = 0, None
        if not before.finished or not _exported(setup):
            restarts, device = _fit(setup, run, watch)
        result = summary(setup, RunFiles(root).progress())
        result |= {"restarts": restarts, "device": device, "already_finished": before.finished}
        result["resumed_from"] = {"epoch": before.epoch, "iteration": before.iteration} if run.resumed else None
        if not before.finished:
            run.finish(result)
        return result


def _exported(setup: TuneSetup) -> bool:
    name, config = (MODEL, "config.json") if setup.settings.method == "full" else (ADAPTER, "adapter_config.json")
    return storage.exists(storage.join(setup.context.root, name, config))


def _fit(setup: TuneSetup, run: Run, watch: Watch) -> tuple[int, str]:
    context, settings = setup.context, setup.settings
    resources = settings.resources
    connect(resources)
    from microg.models.video.decoders.registry import require_decoder
    from microg.pipelines.vlm.train.stream import run_dataset

    gpus, device = place_workers(resources)
    if settings.method == "qlora" and device == "cpu":
        raise ConfigError("method qlora needs a GPU", "use --method lora, or connect to a cluster that has one")
    if settings.precision == "auto":
        precision = "bfloat16" if device == "cuda" else "float32"
        context = TuneContext(**{**vars(context), "settings": settings.replaced(precision=precision)})
    run.record_device(device, decoder=require_decoder(settings.decoder))
    say_aside(where(resources, gpus, device))
    rows = (setup.lessons.train, setup.lessons.val)
    policy = settings.policy()

    def samples() -> Any:  # called for each new group of workers: it goes on where the last one was saved
        start = RunFiles(context.root).progress().position
        return run_dataset(context.plan, start, rows, policy, settings.decoder, cpus=resources.decode_cpus)

    local = setup.checkpoint.revision is None and storage.is_local(context.model)
    arguments = WorkerArguments(context=context, folder=share_folder(context.model) if local else None)
    job = WorkerJob(root=context.root, work=tune_worker, arguments=arguments, samples=samples)
    return fit(job, resources, gpus, device, watch), device


def summary(setup: TuneSetup, progress: Progress) -> dict[str, Any]:
    """Return what a run's progress amounts to."""
    root = setup.context.root
    return {
        "run": root,
        "model": setup.card.name,
        "method": setup.settings.method,
        "epochs": progress.epoch,
        "complete": progress.finished,
        "best": progress.best,
        "learnt": storage.join(root, MODEL if setup.settings.method == "full" else ADAPTER),
        "lessons": {split: setup.lessons.count(split) for split in ("train", "val")},
        "frames": setup.settings.policy().label(),
        "history": progress.history,
        "failures": progress.failures,
        "table": storage.join(root, "tables", f"{TABLE}.parquet"),
        "notes": list(setup.lessons.notes),
    }
