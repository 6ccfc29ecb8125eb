"""Settings of `microg har train`: from the recipe's section `train` with one of its variants, `--set`, and options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from microg.config import load_config, merged, read_recipe
from microg.errors import ConfigError
from microg.pipelines.har.train.settings import TrainConfig

DEFAULT_VARIANT = "published"


def load_har_train_config(
    recipe: str | None, overrides: Iterable[str] = (), *, variant: str | None = None, options: Mapping[str, Any] = {}
) -> TrainConfig:
    """Build the settings: the recipe's `train` section, on top of it the variant's, then `--set`, then `options`.

    `options` are dotted keys with values; those that are None were not given. A recipe with variants has `published` as
    its default. Raises `ConfigError` naming the key at fault, or the variants there are.
    """
    values: dict[str, Any] = {}
    if recipe is not None:
        document = _read(recipe)
        values = dict(document["train"])
        variants = values.pop("variants", {}) or {}
        if variants:
            variant = variant or DEFAULT_VARIANT
        if variant is not None:
            if variant not in variants:
                known = f"its variants are {', '.join(variants)}" if variants else "it has none: leave --variant out"
                raise ConfigError(f"{recipe} has no variant {variant!r}", known)
            values = merged(values, variants[variant] or {})
        values |= {"row": document.get("row"), "variant": variant}
    elif variant is not None:
        raise ConfigError(f"--variant {variant} needs a recipe", "give --recipe recipes/har/NAME.yaml")
    given = {key: value for key, value in options.items() if value is not None}
    return load_config(TrainConfig, None, [*overrides, given], **values)


def _read(recipe: str) -> dict[str, Any]:
    document = read_recipe(recipe)
    if not isinstance(document.get("train"), dict):
        raise ConfigError(f"{recipe} has no mapping 'train'", "it trains nothing: zero-shot rows are for 'har predict'")
    return document
