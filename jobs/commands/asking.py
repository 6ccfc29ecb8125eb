"""Asking a language model about a dataset's texts, for commands that make or label texts: settings, cache, costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, ClassVar

from pydantic import Field

from microg import storage
from microg.config import DEVICE, Config, Device
from microg.console import ProgressDisplay, say
from microg.errors import ConfigError
from microg.models.vlm.api.budget import Budget
from microg.models.vlm.api.cache import ResponseCache, generate_cached
from microg.models.vlm.api.gate import LocalGate
from microg.models.vlm.base import Engine, Placement, Reply, Request, Sampling
from microg.models.vlm.cards import card_of, is_checkpoint, names, run_by
from microg.models.vlm.engines.registry import ENGINES, engine_class, engine_settings_of, open_engine
from microg.models.vlm.prompts import Prompt
from microg.models.vlm.qa import Ask


class AskConfig(Config):
    """Which model is asked, and how."""

    # Where and how a model runs; what decides its answers is part of the key under which they are cached.
    volatile: ClassVar[frozenset[str]] = frozenset({"settings", "device", "trust_remote_code"})
    model: str = Field(
        description="A model card of 'microg vlm models', a checkpoint folder, or with `base_url` or `engine` what the "
        "server or the engine calls it."
    )
    base_url: str | None = Field(default=None, description="OpenAI-compatible server that has the model.")
    engine: str | None = Field(
        default=None,
        description=f"Engine, of {', '.join(ENGINES)} or module:class of your own; without it as the card says.",
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, description="Settings of the engine, on top of the card's, such as {context: 8192}."
    )
    device: Device = Field(default="auto", description=DEVICE)
    trust_remote_code: bool = Field(
        default=False,
        description="Run the Python code that the model's repository brings, with your rights: read it first.",
    )
    limit: int | None = Field(default=None, description="Take only the first N rows.")
    max_tokens: int = Field(default=2000, ge=1, description="Most tokens of one reply, thinking included.")
    seed: int = Field(default=0, description="Seed of sampling.")
    prompts: dict[str, str] = Field(
        default_factory=dict, description="Hashes of the prompts by name; filled in by the command."
    )


def require_local(run_folder: str) -> None:
    """Raise `ConfigError` where the run folder is not on this machine."""
    if not storage.is_local(run_folder):
        raise ConfigError(
            f"{run_folder} is not on this machine", "the cache and the account of costs need a local folder"
        )


def open_model(settings: AskConfig, use: str, max_cost: float | None, gate: LocalGate | None = None) -> Engine:
    """Return the engine that asks the model.

    Args:
        settings: Which model, by which engine.
        use: What it is for, as errors say it: `questions are made`.
        max_cost: Cap in dollars.
        gate: What keeps a provider's pace and the budget; engines that run models here have none.

    Raises:
        ConfigError: There is no such model or engine, or it cannot answer what shows no frames.
    """
    name, model, own = _chosen(settings)
    kind = engine_class(name)
    if not kind.answers_text:
        texts = [each for each in ENGINES if engine_class(each).answers_text]
        raise ConfigError(
            f"{use} from texts alone, and the engine {name} answers only about frames",
            f"--engine of {', '.join(texts)}, or --url with a server that has the model",
        )
    if kind.runs_here:
        added = kind.settings_on(Placement(device=settings.device))
    else:
        added = {} if gate is None else {"gate": gate}
    consent = {"trust_remote_code": True} if settings.trust_remote_code else {}
    options = {**added, **own, **settings.settings, **consent}
    return open_engine(name, model, max_cost=max_cost, **options)


def _chosen(settings: AskConfig) -> tuple[str, str, dict[str, Any]]:
    """Return the engine's name, the model's id, and what its card or the command line says of it."""
    if settings.base_url is not None:
        name = settings.engine or "openai"
        if "base_url" not in engine_settings_of(name):
            servers = [each for each in ENGINES if "base_url" in engine_settings_of(each)]
            raise ConfigError(f"the engine {name} asks no server", f"leave out --url, or --engine {servers[0]}")
        return name, settings.model, {"base_url": settings.base_url}
    if settings.engine is not None and settings.model not in names() and not _is_file(settings.model):
        return settings.engine, settings.model, {}
    found = card_of(settings.model)
    found = run_by(found, settings.engine).require()
    found.require_converted()
    return found.engine, found.hub_id, dict(found.settings)


def _is_file(model: str) -> bool:
    return model.endswith((".yaml", ".yml")) or is_checkpoint(model)


def check_ready(settings: AskConfig, use: str, max_cost: float | None) -> None:
    """Raise `ConfigError` where no request can succeed, before a folder is made."""
    engine = open_model(settings, use, max_cost)
    engine.check_consent()
    engine.check_ready()


def cost_at_most(engine: Engine, requests: Sequence[tuple[Prompt, Request, int]], most_tokens: int) -> float | None:
    """Return what requests cost at most, each so many times, in dollars; None where the price is not known."""
    if engine.runs_here:
        return 0.0
    total = 0.0
    for template, request, times in requests:
        cost = engine.estimate(request, Sampling(most_tokens, json_schema=template.json_schema)).cost
        if cost is None:
            return None
        total += times * cost
    return round(total, 4)


@contextmanager
def asking(settings: AskConfig, use: str, run_folder: str, max_cost: float | None, most: int) -> Iterator[Ask]:
    """Give what asks the model, with every reply cached and paid for in the run folder; `most` requests are expected.

    The same run asks only what has no reply there yet.
    """
    folder = storage.local_path(run_folder)
    engine = open_model(
        settings, use, max_cost, gate=LocalGate(budget=Budget(max_cost, journal=folder / "account.sqlite"))
    )
    with (
        closing(engine),
        ResponseCache(folder / "replies.sqlite") as cache,
        ProgressDisplay(use, most, unit="requests") as progress,
    ):

        def ask(template: Prompt, requests: Sequence[Request]) -> Iterator[Reply]:
            sampling = Sampling(settings.max_tokens, seed=settings.seed, json_schema=template.json_schema)
            for reply in generate_cached(engine, requests, sampling, cache):
                progress.advance(1, reply.status == "error")
                yield reply

        yield ask


def show(values: dict[str, Any]) -> None:
    """Print a plan or a summary."""
    for name, value in values.items():
        say(f"{name.replace('_', ' ')}: {'unknown' if value is None else value}")
