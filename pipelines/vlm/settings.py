"""Settings of a generation run, and the model card they mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from microg.config import DEVICE, Config, Device, Resources
from microg.errors import ConfigError
from microg.metrics.text.registry import metric
from microg.models.video.decoders.registry import DECODER, DecoderName
from microg.models.vlm.api.gate import Limits
from microg.models.vlm.api.response import RetryPolicy
from microg.models.vlm.base import Placement, Sampling
from microg.models.vlm.cards import ModelCard, card, folder_card, is_checkpoint, names, plain_name, run_by
from microg.models.vlm.engines.registry import ENGINES, engine_class
from microg.models.vlm.prompts import Prompt, prompt
from microg.models.vlm.sampling import FramePolicy, Uniform
from microg.texts.items import GENERATED, TASKS, Task

_VOLATILE = (
    "model url dataset tasks all_clips limit settings api cache max_cost device tensor_parallel "
    "pipeline_parallel batch live_scores end_scores clips_per_block decoder resources trust_remote_code"
)


_SCREENING = "screening-v1"


class PromptIds(Config):
    """Which prompt asks each task."""

    caption: str = Field(default="caption-v1", description="Prompt that asks for a caption.")
    vqa: str = Field(default="vqa-v1", description="Prompt that asks a question.")
    # none by default, so that runs made before there was one can go on
    screening: str | None = Field(
        default=None, description=f"Prompt that asks whether a clip shows weightlessness; without it {_SCREENING}."
    )


def prompt_for(ids: PromptIds, task: Task) -> Prompt:
    """Return the prompt of a task. Raises `ConfigError` when there is none of that name, or it is for another."""
    chosen = prompt(getattr(ids, task) or _SCREENING)
    if chosen.task != task:
        raise ConfigError(f"prompt {chosen.id} is for task {chosen.task}, not {task}", "see 'microg vlm prompts'")
    return chosen


class SamplingSettings(Config):
    """How the text of a reply is drawn; the default is greedy."""

    max_tokens: int = Field(default=256, ge=1, description="Most tokens of one reply, thinking included.")
    temperature: float = Field(default=0.0, ge=0, description="Temperature of sampling; 0 is greedy.")
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="Probability of the most likely tokens from which the next one is drawn."
    )
    seed: int | None = Field(default=0, description="Seed of sampling, where the engine takes one.")
    stop: tuple[str, ...] = Field(default=(), description="Texts at which a reply ends.")

    def of(self, prompt: Prompt) -> Sampling:
        """Return the sampling of a prompt's requests."""
        return Sampling(**self.model_dump(), json_schema=prompt.json_schema)


class ApiSettings(Config):
    """What a provider allows, over all actors, and how often a request is sent again."""

    requests_per_minute: float | None = Field(
        default=None, gt=0, description="Requests a minute; without it what the provider's replies say."
    )
    tokens_per_minute: float | None = Field(
        default=None, gt=0, description="Tokens a minute; without it what the provider's replies say."
    )
    concurrency: int = Field(default=16, ge=1, le=1000, description="Most requests under way at once.")
    attempts: int = Field(default=6, ge=1, description="Most times that one request is sent.")
    timeout_s: float = Field(default=120.0, gt=0, description="Seconds that one attempt may take.")
    deadline_s: float = Field(default=300.0, gt=0, description="Seconds that all attempts of a request may take.")
    first_wait_s: float = Field(
        default=0.5, gt=0, description="Seconds before the second attempt; later waits are longer."
    )
    give_up_after: int = Field(
        default=16,
        ge=1,
        description="An actor sends no more of its block after so many requests in a row failed for all attempts.",
    )
    poll_s: float = Field(default=30.0, gt=0, description="Seconds between two looks at a batch job.")

    def limits(self) -> Limits:
        """Return them as the gate takes them."""
        return Limits(self.requests_per_minute, self.tokens_per_minute, self.concurrency)

    def engine(self) -> dict[str, Any]:
        """Return them as an API engine's settings."""
        retry = RetryPolicy(self.attempts, self.deadline_s, self.timeout_s, self.first_wait_s)
        return {"concurrency": self.concurrency, "retry": retry, "give_up_after": self.give_up_after}


class GenerateSettings(Config):
    """What decides answers, and how and where they are made.

    Tasks and the number of clips may grow from one invocation to the next; what is decided by the engine's settings is
    checked by its fingerprint (`answer_store.claim`).
    """

    volatile: ClassVar[frozenset[str]] = frozenset(_VOLATILE.split())
    model: str = Field(
        default="",
        description="Model: a card of 'microg vlm models' or its file, a checkpoint folder (also at a URI), or "
        "with `url` the name that the server knows.",
    )
    model_id: str = Field(default="", description="Name under which answers are stored; filled in by the command.")
    engine: str | None = Field(
        default=None,
        description=f"Engine, of {', '.join(ENGINES)} or module:class of your own; without it as the card says.",
    )
    url: str | None = Field(default=None, description="OpenAI-compatible server that has the model.")
    dataset: str = Field(default="", description="Dataset folder with the clips to ask about.")
    tasks: tuple[Task, ...] = Field(default=TASKS, description="What is asked: caption, vqa, screening.")
    prompts: PromptIds = PromptIds()
    prompt_hashes: dict[str, str] = Field(
        default_factory=dict, description="Hashes of the prompts by task; filled in by the command."
    )
    frames: FramePolicy | None = Field(
        default=None, description="How frames of a clip are chosen; without it as the model card says."
    )
    decoder: DecoderName = Field(default="auto", description=DECODER)
    sampling: SamplingSettings = SamplingSettings()
    split: Literal["train", "val", "test"] | None = Field(
        default=None, description="Split whose clips are asked about; without it all clips."
    )
    scheme: str = Field(default="published", description="Split scheme of the dataset.")
    all_clips: bool = Field(default=False, description="Ask for captions also of clips that have none to compare with.")
    limit: int | None = Field(default=None, ge=1, description="Take only the first N clips.")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="Settings of the engine, on top of the card's, such as {max_num_seqs: 64}."
    )
    trust_remote_code: bool = Field(
        default=False,
        description="Run the Python code that the model's repository brings, with your rights: read it first.",
    )
    repository_code: str | None = Field(
        default=None,
        description="Hash or commit of the repository's code that was allowed to run; filled in by the command.",
    )
    api: ApiSettings = ApiSettings()
    cache: str | None = Field(
        default=None,
        description="File of the replies of API models; without it one in the run folder, where that is on this "
        "machine.",
    )
    max_cost: float | None = Field(
        default=None, ge=0, description="US dollars that this run may cost in all its invocations together."
    )
    batch: bool = Field(
        default=False, description="Use the provider's batch mode: OpenAI's is half the price, within a day."
    )
    live_scores: bool = Field(
        default=True, description="Show scores while answers come in, where the dataset has references."
    )
    end_scores: tuple[str, ...] = Field(
        default=(),
        description="Metrics that are too slow to run along and are measured when all answers are there, such as "
        "meteor and sbert; 'microg vlm score' has them all, with intervals.",
    )
    device: Device = Field(default="auto", description=DEVICE)
    tensor_parallel: int = Field(
        default=1, ge=1, description="GPUs that share each layer of one copy of the model (vLLM); best on one node."
    )
    pipeline_parallel: int = Field(
        default=1,
        ge=1,
        description="Groups of `tensor_parallel` GPUs that share the layers of one copy out (vLLM); also over nodes.",
    )
    clips_per_block: int = Field(
        default=0, ge=0, description="Clips that an actor is given at once; 0 suits the engine."
    )
    resources: Resources = Resources()

    def prompt_of(self, task: Task) -> Prompt:
        """Return the prompt of a task. Raises `ConfigError` when there is none of that name, or it is for another."""
        return prompt_for(self.prompts, task)

    def policy(self) -> FramePolicy:
        """Return how frames are sampled, once `resolve` filled it in."""
        if self.frames is None:
            raise ValueError("frames are not resolved")
        return self.frames


def resolve(settings: GenerateSettings) -> tuple[GenerateSettings, ModelCard]:
    """Return the settings with everything filled in that a card decides, and the card to run, engine settings included.

    Raises `ConfigError` for a model, prompt or engine that is not there, or that cannot run.
    """
    card = run_by(_card(settings), settings.engine)
    options = {**card.settings, **settings.settings}
    if settings.url is not None:
        options = {**options, "base_url": settings.url}
    if settings.trust_remote_code:
        options = {**options, "trust_remote_code": True}
    card = card.replaced(settings=options).require()
    card.require_converted()
    for name in settings.end_scores:
        metric(name)  # an unknown one is refused before the work
    if not settings.tasks:
        raise ConfigError("no task is asked for", f"tasks are {', '.join(GENERATED)}")
    hashes = {task: settings.prompt_of(task).hash for task in GENERATED if task in {*TASKS, *settings.tasks}}
    filled = settings.replaced(
        model_id=card.title if is_checkpoint(card.hub_id) else card.hub_id,
        engine=card.engine,
        frames=(settings.frames or card.frames).model_dump(),
        prompt_hashes=hashes,
        tasks=tuple(task for task in GENERATED if task in settings.tasks),
    )
    return filled, card


def engine_settings(settings: GenerateSettings, card: ModelCard, place: Placement | None = None) -> dict[str, Any]:
    """Return what a run adds to the card's engine settings: concurrency and retries, or where the model runs.

    Without `place` it is not known yet.
    """
    if card.api:
        added = settings.api.engine()
    else:
        added = engine_class(card.engine).settings_on(place or placement(settings, "auto"))
    return {name: value for name, value in added.items() if name not in card.settings}


def placement(settings: GenerateSettings, device: str, over_nodes: bool = False) -> Placement:
    """Return where one copy of the model runs."""
    spread = {"tensor_parallel": settings.tensor_parallel, "pipeline_parallel": settings.pipeline_parallel}
    return Placement(device=device, gpus=settings.resources.gpus, over_nodes=over_nodes, **spread)


def _card(settings: GenerateSettings) -> ModelCard:
    name = settings.model
    if not name:
        raise ConfigError("which model to ask is missing", "--model CARD; 'microg vlm models' lists them")
    if is_checkpoint(name):
        if settings.url is not None:
            raise ConfigError("a checkpoint folder is not asked through a server", "give --model or --url its name")
        return folder_card(name)
    if settings.url is None:
        return card(name)
    served = card(name) if name in names() or name.endswith((".yaml", ".yml")) else None
    if served is not None:
        own = served.settings if served.engine == "openai" else {}
        return served.replaced(engine="openai", runs="protocol", why="", to_run="", shutdown=None, settings=own)
    plain: Mapping[str, Any] = {"name": plain_name(name), "title": name, "hub_id": name, "engine": "openai"}
    return ModelCard(
        **plain, frames=Uniform(count=8), chat_template="the server's", context=1_000_000, runs="protocol", settings={}
    )
