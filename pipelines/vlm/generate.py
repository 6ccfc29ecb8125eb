"""Clips to `generations` on Ray Data: decode -> ask, in one streaming pass.

Every block's rows are committed as they are made: kill anything at any time and the same call does what is missing. An
item that fails becomes an error row with its reason. Pixels make one hop, from the decoding task to the engine's actor.
"""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from microg import storage
from microg.errors import ConfigError
from microg.models.vlm.cards import ModelCard
from microg.models.vlm.engines.registry import engine_class
from microg.models.vlm.prices import Price
from microg.models.vlm.prompts import Prompt
from microg.pipelines.core.cluster import decide_device, pool_size, spare_cores
from microg.pipelines.core.stage import Pipeline, run_stages
from microg.pipelines.vlm import answer_store
from microg.pipelines.vlm.answer_stage import ASK, GenerationContext
from microg.pipelines.vlm.clip_tables import DECODE
from microg.pipelines.vlm.live_scores import LiveSender
from microg.pipelines.vlm.questions import CLIPS, blocks_of, sizes_of
from microg.pipelines.vlm.settings import GenerateSettings, engine_settings
from microg.pipelines.vlm.shared_gate import shared_gate
from microg.system.weights import cache_folder
from microg.texts.items import Task

if TYPE_CHECKING:
    from microg.models.vlm.api.gate import GateStatus

# A block of clips is what is lost when an actor dies, and what a model of transformers fills its batches from. Other
# engines are asked about several blocks at once.
_BLOCK_CLIPS, _BLOCK_BYTES = 8, 96 * 2**20
# A model on a CPU answers few requests at once: pixels of more blocks would only take memory.
_CALLS_CPU = 2
# So that requests of one block are under way while the last of another come back.
_API_ACTORS, _API_CPUS = 2, 0.5


def with_device(settings: GenerateSettings, card: ModelCard) -> tuple[GenerateSettings, str]:
    """Return the settings with the resources of one actor on the connected Ray, and where the model runs.

    A model on GPUs takes `tensor_parallel` of them, or the fraction in `resources.gpus`; on CPUs there is one copy,
    unless `resources.max_actors` allows more, and on this machine it has all cores but one, which decodes. Raises
    `ConfigError` for a device that no actor can be given.
    """
    resources = settings.resources
    if card.api:
        few = {} if resources.max_actors else {"max_actors": max(_API_ACTORS, resources.min_actors)}
        fewer = {} if "cpus" in resources.model_fields_set else {"cpus": _API_CPUS}
        return settings.replaced(resources=resources.replaced(gpus=0.0, **few, **fewer)), card.engine
    if settings.tensor_parallel > 1:
        if 0 < resources.gpus != settings.tensor_parallel:
            raise ConfigError(
                f"resources.gpus={resources.gpus:g} with tensor_parallel={settings.tensor_parallel}",
                "leave resources.gpus out: one actor takes as many GPUs as the model is spread over",
            )
        resources = resources.replaced(gpus=float(settings.tensor_parallel))
    fix = "use --device cpu, or connect to a cluster that has one"
    if settings.tensor_parallel > 1:
        fix = f"one node must have {settings.tensor_parallel} GPUs: lower tensor_parallel, or use a smaller model"
    resources, device = decide_device(resources, settings.device, who=f"the model {card.title}", fix=fix)
    if device == "cpu":
        actors = resources.max_actors or resources.min_actors
        few = {} if "cpus" in settings.resources.model_fields_set else {"cpus": spare_cores(actors)}
        resources = resources.replaced(max_actors=actors, **few)
    return settings.replaced(resources=resources), device


PIPELINE = Pipeline(
    name="generate",
    source=CLIPS,
    stages=(DECODE, ASK),
    key="clip_id",
    failure="nothing can be answered",
)


def sized_pipeline(settings: GenerateSettings, card: ModelCard, device: str = "", **placement: Any) -> Pipeline:
    """Return the pipeline with the resources of one actor, and as many calls of it at once as its engine takes.

    `placement` are further options of Ray for where actors run.
    """
    at_once = engine_class(card.engine).calls_at_once
    if device == "cpu":
        at_once = min(at_once, _CALLS_CPU)
    return PIPELINE.with_stages(replace(ASK, calls_at_once=at_once)).sized("ask", settings.resources, **placement)


def run_generation(
    clips: pa.Table,
    root: str,
    settings: GenerateSettings,
    card: ModelCard,
    *,
    device: str,
    on_clip: Callable[[dict[str, Any]], str | None] | None = None,
    price: Price | None = None,
    live: LiveSender | None = None,
) -> tuple[dict[str, Any], GateStatus | None]:
    """Answer the questions of `clips` into `root` on the connected Ray.

    Args:
        clips: Rows of `microg.pipelines.vlm.questions.CLIPS`.
        root: The run folder.
        settings: As `with_device` returns them.
        card: The model.
        device: Where it runs.
        on_clip: Takes each clip's report (see `microg.pipelines.vlm.answer_stage.REPORT`) and returns a note for the
            progress line.
        price: Of an API model, where it is known.
        live: Gets the states of what is answered.

    Returns:
        The closing block, and an API's account.

    Raises:
        ConfigError: Ray cannot give what `settings.resources` ask for.
        WorkerError: Nothing can be answered: the engine cannot be opened or no request can succeed, `root` cannot be
            written, or Ray gives up.
    """
    import ray

    cache = gate = None
    if card.api:
        files = api_files(root, settings)
        cache = files.cache
        # a gate of this run: its account goes on where the run's earlier invocations left it
        name = f"{card.engine}-{uuid.uuid4().hex[:8]}"
        gate = shared_gate(name, settings.api.limits(), cap=settings.max_cost, spent=files.spent, journal=files.account)
    try:
        prompts: dict[Task, Prompt] = {task: settings.prompt_of(task) for task in settings.tasks}
        more = engine_settings(settings, card, device)
        if price is not None:  # workers need not find the price table
            more["price"] = price
        context = GenerationContext(
            root=root,
            card=card,
            prompts=prompts,
            samplings={task: settings.sampling.of(prompt) for task, prompt in prompts.items()},
            gate=gate,
            cache=cache,
            max_cost=settings.max_cost,
            settings=more,
            live=live,
        )
        policy = settings.policy()
        pipeline = sized_pipeline(settings, card, device, **(_on_this_node() if card.api else {}))
        pipeline = pipeline.bound(decode={"policy": policy}, ask={"context": context})
        most = settings.clips_per_block
        if not most:  # all actors have something to do
            most = min(_BLOCK_CLIPS, math.ceil(clips.num_rows / pool_size(settings.resources)))
        blocks = blocks_of(clips, sizes_of(clips, policy), most, _BLOCK_BYTES)
        rows = sum(map(len, clips["task"].to_pylist()))
        block = run_stages(pipeline, blocks, total=rows, device=device, on_report=on_clip)
        return block, None if gate is None else gate.status()
    finally:
        if gate is not None:
            ray.kill(gate.actor)


@dataclass(frozen=True)
class ApiFiles:
    """Files on this machine: replies of an API, and the account of costs; spent: dollars until now, at least."""

    cache: str
    account: str
    spent: float


def api_files(root: str, settings: GenerateSettings) -> ApiFiles:
    """Return what an API model needs beside its run folder.

    The files lie in the run folder, or in this user's cache folder where that is on S3 or the like: another machine
    that goes on with the run asks again what was under way, and takes from the rows what was spent.
    """
    if storage.is_local(root):
        folder, spent = storage.local_path(root), 0.0
    else:
        folder = cache_folder() / "api" / hashlib.sha256(root.encode()).hexdigest()[:16]
        spent = answer_store.spent(root)
    return ApiFiles(settings.cache or str(folder / "replies.sqlite"), str(folder / "account.sqlite"), spent)


def _on_this_node() -> dict[str, Any]:
    """Return Ray options that keep actors where the cache is: a file that nodes do not share safely."""
    import ray

    return {"label_selector": {"ray.io/node-id": ray.get_runtime_context().get_node_id()}}
