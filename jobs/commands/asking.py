"""Asking a language model about a dataset's texts, for commands that make or label texts: settings, cache, costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import Field

from microg import storage
from microg.config import Config
from microg.console import ProgressDisplay, say
from microg.errors import ConfigError
from microg.models.vlm.api.budget import Budget
from microg.models.vlm.api.cache import ResponseCache, generate_cached
from microg.models.vlm.api.gate import LocalGate
from microg.models.vlm.base import Engine, Reply, Request, Sampling
from microg.models.vlm.cards import card, open_card
from microg.models.vlm.engines.registry import open_engine, require_server
from microg.models.vlm.prompts import Prompt
from microg.models.vlm.qa import Ask


class AskConfig(Config):
    """Which model is asked, and how."""

    model: str = Field(description="A model card of 'microg vlm models', or with `base_url` a model's name.")
    base_url: str | None = Field(default=None, description="OpenAI-compatible server that has the model.")
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


def open_model(settings: AskConfig, use: str, max_cost: float | None, **more: Any) -> Engine:
    """Return the engine that asks the model; `use` says in an error what it is for, as `questions are made`."""
    if settings.base_url is not None:
        return open_engine("openai", settings.model, max_cost=max_cost, base_url=settings.base_url, **more)
    found = card(settings.model).require()
    require_server(
        found.engine,
        use,
        f"serve it ('vllm serve {found.hub_id}') and give --model {found.hub_id} --url http://127.0.0.1:8000/v1",
    )
    return open_card(found, max_cost=max_cost, **more)


def cost_at_most(engine: Engine, requests: Sequence[tuple[Prompt, Request, int]], most_tokens: int) -> float | None:
    """Return what requests cost at most, each so many times, in dollars; None where the price is not known."""
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
