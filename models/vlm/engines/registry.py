"""From a model card to its engine; an engine's module is imported when it is opened."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from microg.errors import ConfigError
from microg.models.vlm.api.gate import Gate
from microg.models.vlm.api.retry import RetryPolicy
from microg.models.vlm.base import Engine
from microg.models.vlm.cards import ModelCard

# Engine names of model cards -> module and class; a class takes the model's id and the card's settings.
ENGINES: dict[str, str] = {
    "vllm": "microg.models.vlm.engines.vllm:VllmEngine",
    "transformers": "microg.models.vlm.engines.transformers:TransformersEngine",
    "openai": "microg.models.vlm.api.openai:OpenAiEngine",
    "gemini": "microg.models.vlm.api.gemini:GeminiEngine",
}


def open_engine(card: ModelCard, *, gate: Gate | None = None, max_cost: float | None = None, **settings: Any) -> Engine:
    """Return the engine that runs `card`, with its settings and then `settings`.

    `gate` is for API engines: the one shared with others, which holds the cap `max_cost` in dollars. Raises
    `ConfigError` when the model cannot run, a setting is unknown, or a cap is asked for without a known price.
    """
    card.require()
    if card.engine not in ENGINES:
        raise ConfigError(f"{card.title} needs the engine {card.engine}, which is not here", f"engines: {[*ENGINES]}")
    module, _, name = ENGINES[card.engine].partition(":")
    kind = getattr(import_module(module), name)
    given = {"model": card.hub_id, **card.settings, **settings, **({} if gate is None else {"gate": gate})}
    if isinstance(given.get("retry"), Mapping):
        given["retry"] = _retry(given["retry"])
    known = [field.name for field in dataclasses.fields(kind) if field.init]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ConfigError(f"the engine {card.engine} has no setting {', '.join(unknown)}", f"it has {', '.join(known)}")
    engine = kind(**given)
    require_price(engine, max_cost)
    return engine


def _retry(given: Mapping[str, Any]) -> RetryPolicy:
    known = [field.name for field in dataclasses.fields(RetryPolicy)]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ConfigError(f"the setting retry has no {', '.join(unknown)}", f"it has {', '.join(known)}")
    return RetryPolicy(**given)


def require_price(engine: Engine, max_cost: float | None) -> None:
    """Raise `ConfigError` where a cap on costs is asked for that cannot be held: the price is not known."""
    from microg.models.vlm.api.engine import ApiEngine

    if max_cost is not None and isinstance(engine, ApiEngine) and engine.price is None and not engine.local:
        raise ConfigError(
            f"the price of {engine.model} is not known, so a cap on costs cannot be held",
            "put it into a price table and name that in the environment variable MICROG_PRICES",
        )
