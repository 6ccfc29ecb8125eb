"""What scoring commands share: their settings, and which runs they may be compared with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from microg import storage
from microg.config import Config, load_config, read_recipe, recipe_section
from microg.errors import MetricError

C = TypeVar("C", bound=Config)


def load_score_config(model: type[C], recipe: str | None, overrides: Iterable[str], options: Mapping[str, Any]) -> C:
    """Build the settings of class `model`: a recipe's keys `row` and `score`, then `overrides`, then options.

    Options that are None were not given; a mapping joins its section. Other keys of a recipe belong to other jobs.
    Raises `ConfigError` naming the key at fault.
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


def comparable_document(
    other: str, command: str, asked: Config, *, digest: str, truth: str, settings: Sequence[str]
) -> dict[str, Any]:
    """Return the document of another finished run of `command`.

    `digest` names the key of what both must have been scored on, which people call `truth`; `settings` are keys of the
    section `score` that must be equal. Raises `MetricError` saying what differs.
    """
    path = storage.join(other, "run.json")
    manifest = storage.read_json(path) if storage.exists(path) else {}
    metrics = storage.join(other, "metrics.json")
    if not isinstance(manifest, dict) or manifest.get("command") != command or not storage.exists(metrics):
        raise MetricError(f"{other} is no finished run of 'microg {command}'", "give its run folders to --compare")
    config = manifest["config"]
    if config[digest] != getattr(asked, digest):
        raise MetricError(f"{other} was scored on other {truth}", f"score both models on the same {truth}")
    for key in settings:
        there, here = config["score"][key], asked.model_dump()["score"][key]
        if there != here:
            raise MetricError(f"{other} was scored with {key} {there}, not {here}", "score both with the same settings")
    return storage.read_json(metrics)
