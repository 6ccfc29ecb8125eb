"""Settings of `microg har score`: from the recipe's keys `row` and `score`, `--set`, and the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import yaml
from pydantic import Field

from microg import storage
from microg.config import Config, load_config
from microg.errors import ConfigError


class HarScoreConfig(Config):
    """What to compute; `score_kind` and `label_space` None mean what the predictions declare."""

    protocol: Literal["paper", "corrected", "both"] = "both"
    score_kind: Literal["logit", "probability"] | None = None
    label_space: Literal["microg50", "ava80"] | None = None
    row: str | None = None
    split: Literal["train", "val", "test"] = "test"
    scheme: str = "published"
    resamples: int = Field(default=1000, ge=0, le=1_000_000)
    seed: int = Field(default=0, ge=0)
    match_order: Literal["file", "score"] = "file"


class HarScoreRun(Config):
    """What a run folder records: the settings, and the contents that were scored. Paths do not count."""

    volatile: ClassVar[frozenset[str]] = frozenset({"predictions", "groundtruth"})
    predictions: str
    groundtruth: str
    score_kind: str
    label_space: str
    predictions_digest: str
    truth_digest: str
    score: HarScoreConfig


def load_har_score_config(recipe: str | None, overrides: Iterable[str], options: Mapping[str, Any]) -> HarScoreConfig:
    """Build the settings: the recipe's `row` and `score` section, then `--set`, then options that were given.

    Other keys of a recipe belong to other jobs. Raises `ConfigError` naming the key at fault.
    """
    values: dict[str, Any] = {}
    if recipe is not None:
        if not storage.exists(recipe):
            raise ConfigError(f"configuration file {recipe} is not there")
        try:
            loaded = yaml.safe_load(storage.read_bytes(recipe))
        except yaml.YAMLError as error:
            raise ConfigError(f"{recipe} is not valid YAML: {error}") from error
        section = loaded.get("score", {}) if isinstance(loaded, dict) else None
        if not isinstance(section, dict):
            raise ConfigError(f"{recipe} has no mapping 'score'", "a recipe names a row and a section score")
        values = dict(section)
        if "row" in loaded:
            values["row"] = loaded["row"]
    settings = load_config(HarScoreConfig, None, overrides, **values)
    given = {name: value for name, value in options.items() if value is not None}
    return load_config(HarScoreConfig, None, (), **{**settings.model_dump(), **given})
