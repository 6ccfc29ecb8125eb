"""How scoring commands build their settings: a recipe's keys `row` and `score`, then `--set`, then options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from microg.config import Config, load_config, read_recipe, recipe_section

C = TypeVar("C", bound=Config)


def load_score_config(model: type[C], recipe: str | None, overrides: Iterable[str], options: Mapping[str, Any]) -> C:
    """Build the settings of class `model`. Options that are None were not given; a mapping joins its section.

    Other keys of a recipe belong to other jobs. Raises `ConfigError` naming the key at fault.
    """
    values: dict[str, Any] = {}
    if recipe is not None:
        values = dict(recipe_section(recipe, "score"))
        row = read_recipe(recipe).get("row")
        values |= {} if row is None else {"row": row}
    settings = load_config(model, None, overrides, **values).model_dump()
    for name, value in options.items():
        if isinstance(value, Mapping):
            settings[name] |= {key: item for key, item in value.items() if item is not None}
        elif value is not None:
            settings[name] = value
    return load_config(model, None, (), **settings)
