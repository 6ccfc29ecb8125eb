"""Clips to `generations` on Ray Data: decode -> ask, in one streaming pass.

Every block's rows are committed as they are made: kill anything at any time and the same call does what is missing. An
item that fails becomes an error row with its reason. Pixels make one hop, from the decoding task to the engine's actor.
"""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from microg import storage
from microg.errors import ConfigError
from microg.models.vlm.base import Placement
from microg.models.vlm.cards import ModelCard, is_checkpoint
from microg.models.vlm.engines.registry import engine_class
from microg.models.vlm.prices import Price
from microg.models.vlm.prompts import Prompt
from microg.pipelines.core.cluster import decide_device, parts_of_copy, pool_size, spare_cores
from microg.pipelines.core.shared_files import SharedFolder, share_folder
from microg.pipelines.core.stage import Pipeline, run_stages
from microg.pipelines.vlm import answer_store
from microg.pipelines.vlm.answer_stage import ASK, GenerationContext
from microg.pipelines.vlm.clip_tables import DECODE
from microg.pipelines.vlm.live_scores import LiveSender
from microg.pipelines.vlm.questions import CLIPS, blocks_of, sizes_of
from microg.pipelines.vlm.settings import GenerateSettings, engine_settings, placement
from microg.pipelines.vlm.shared_gate import shared_gate
from microg.system.weights import cache_folder
from microg.texts.items import Task

if TYPE_CHECKING:
    from microg.models.vlm.api.gate import GateStatus

# A block of clips is what is lost when an actor dies, what one actor may have left to do when the others are done, and
# what a model of transformers fills its batches from. Other engines are asked about several blocks at once.
_BLOCK_CLIPS, _BLOCK_BYTES = 8, 96 * 2**20
_BLOCKS_OF_ACTOR, _LEAST_REQUESTS = 32, 16
# A model on a CPU answers few requests at once: pixels of more blocks would only take memory.
_CALLS_CPU = 2
# So that requests of one block are under way while the last of another come back.
_API_ACTORS, _API_CPUS = 2, 0.5


def with_device(settings: GenerateSettings, card: ModelCard) -> tuple[GenerateSettings, Placement]:
    """Return the settings with the resources of one actor on the connected Ray, and where the model runs.

    A model on GPUs takes as many as `tensor_parallel` and `pipeline_parallel` say, on several nodes where none has them
    all, or the fraction in `resources.gpus`; on CPUs there is one copy, unless `resources.max_actors` allows more, and
    on this machine it has all cores but one, which decodes. Raises `ConfigError` for a device that no actor can be
    given.
    """
    resources = settings.resources
    if card.api:
        few = {} if resources.max_actors else {"max_actors": max(_API_ACTORS, resources.min_actors)}
        fewer = {} if "cpus" in resources.model_fields_set else {"cpus": _API_CPUS}
        settings = settings.replaced(resources=resources.replaced(gpus=0.0, **few, **fewer))
        return settings, placement(settings, card.engine)
    copy, parts = settings.tensor_parallel * settings.pipeline_parallel, 1
    fix = "use --device cpu, or connect to a cluster that has one"
    if copy > 1:
        if 0 < resources.gpus != copy:
            raise ConfigError(
                f"resources.gpus={resources.gpus:g} with tensor_parallel={settings.tensor_parallel} and "
                f"pipeline_parallel={settings.pipeline_parallel}",
                "leave resources.gpus out: one actor takes as many GPUs as the model is spread over",
            )
        resources = resources.replaced(gpus=float(copy))
        parts = 1 if settings.device == "cpu" else parts_of_copy(copy)
        fix = f"one copy takes {copy} GPUs: lower tensor_parallel or pipeline_parallel, or use a smaller model"
    who = f"the model {card.title}"
    resources, device = decide_device(resources, settings.device, who=who, fix=fix, parts=parts)
    if device == "cpu":
        actors = resources.max_actors or resources.min_actors
        few = {} if "cpus" in settings.resources.model_fields_set else {"cpus": spare_cores(actors)}
        resources = resources.replaced(max_actors=actors, **few)
    settings = settings.replaced(resources=resources)
    return settings, placement(settings, device, over_nodes=parts > 1)


PIPELINE = Pipeline(
    name="generate",
    source=CLIPS,
    stages=(DECODE, ASK),
    key="clip_id",
    failure="nothing can be answered",
)


def sized_pipeline(settings: GenerateSettings, card: ModelCard, place: Placement | None = None) -> Pipeline:
    """Return the pipeline with the resources of one actor, and as many calls of it at once as its engine takes.

    Without `place` it is not known yet where the model runs.
    """
    at_once, parts, where = engine_class(card.engine).calls_at_once, 1, {}
    if place is not None:
        at_once = min(at_once, _CALLS_CPU) if place.device == "cpu" else at_once
        parts = place.tensor_parallel * place.pipeline_parallel if place.over_nodes else 1
        where = _on_this_node() if card.api else {}
    return PIPELINE.sized("ask", settings.resources, calls_at_once=at_once, parts=parts, placement=where)


def run_generation(
    clips: pa.Table,
    root: str,
    settings: GenerateSettings,
    card: ModelCard,
    *,
    place: Placement,
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
        place: Where it runs.
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
        more = engine_settings(settings, card, place)
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
            checkpoint=_checkpoint(card),
        )
        policy = settings.policy()
        pipeline = sized_pipeline(settings, card, place).bound(
            decode={"policy": policy, "decoder": settings.decoder}, ask={"context": context}
        )
        rows = sum(map(len, clips["task"].to_pylist()))
        actors = pool_size(settings.resources, pipeline.stages[-1].parts)
        most = settings.clips_per_block or _clips_of_block(clips.num_rows, rows, actors)
        blocks = blocks_of(clips, sizes_of(clips, policy), most, _BLOCK_BYTES)
        block = run_stages(pipeline, blocks, total=rows, device=place.device, on_report=on_clip)
        return block, None if gate is None else gate.status()
    finally:
        if gate is not None:
            ray.kill(gate.actor)


def _checkpoint(card: ModelCard) -> SharedFolder | None:
    """Return the card's checkpoint where that is a folder of this machine."""
    local = not card.api and storage.is_local(card.hub_id) and is_checkpoint(card.hub_id)
    return share_folder(card.hub_id) if local else None


def _clips_of_block(clips: int, rows: int, actors: int) -> int:
    """Return the clips of a block: so few that actors end together, and so many that a block fills batches."""
    requests = max(rows / (actors * _BLOCKS_OF_ACTOR), _LEAST_REQUESTS)
    return max(1, min(_BLOCK_CLIPS, math.ceil(requests * clips / rows), math.ceil(clips / actors)))


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
