"""The engines by name; an engine's module is imported when a card or a command names it."""

from __future__ import annotations

import inspect
from typing import Any

from microg.errors import ConfigError
from microg.models.vlm.base import Engine
from microg.registry import Registry

# Names as model cards give them; a card may also name an engine of the user's own as module:object.
ENGINES = Registry(
    "engine",
    {
        "vllm": "microg.models.vlm.engines.vllm:VllmEngine",
        "transformers": "microg.models.vlm.engines.transformers:TransformersEngine",
        "repository": "microg.models.vlm.engines.repository.engine:RepositoryEngine",
        "openai": "microg.models.vlm.api.openai:OpenAiEngine",
        "gemini": "microg.models.vlm.api.gemini:GeminiEngine",
    },
)


def engine_class(name: str) -> type[Engine]:
    """Return the class of an engine. Raises `ConfigError` where there is none of this name, or it is no engine."""
    kind = ENGINES.load(name)
    if not (isinstance(kind, type) and issubclass(kind, Engine)):
        raise ConfigError(f"{name} is no engine", "an engine is a class that extends microg.models.vlm.base.Engine")
    return kind


def require_server(name: str, use: str, fix: str | None = None) -> None:
    """Raise `ConfigError` where `use` asks a server and the engine `name` runs models on this machine."""
    if engine_class(name).runs_here:
        servers = [each for each in ENGINES if not engine_class(each).runs_here]
        raise ConfigError(f"{use} through a server, and {name} runs models here", fix or f"one of {', '.join(servers)}")


def engine_settings_of(name: str) -> list[str]:
    """Return the settings that an engine has. Raises `ConfigError` where there is none of this name."""
    return [each for each in inspect.signature(engine_class(name)).parameters if each != "model"]


def open_engine(name: str, model: str, *, max_cost: float | None = None, **settings: Any) -> Engine:
    """Return the engine called `name` for a model's id.

    Args:
        name: Name in `ENGINES`, or `module:object`.
        model: Folder or hub id, or the provider's id.
        max_cost: Cap in dollars that must be held, by whoever asks.
        settings: Arguments of the engine's class.

    Raises:
        ConfigError: A setting is unknown, or a cap is asked for without a known price.
    """
    kind, known = engine_class(name), engine_settings_of(name)
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ConfigError(f"the engine {name} has no setting {', '.join(unknown)}", f"it has {', '.join(known)}")
    engine = kind(**{"model": model, **settings})
    if max_cost is not None and not engine.can_cap_costs:
        raise ConfigError(
            f"the price of {model} is not known, so a cap on costs cannot be held",
            "put it into a price table and name that in the environment variable MICROG_PRICES",
        )
    return engine
