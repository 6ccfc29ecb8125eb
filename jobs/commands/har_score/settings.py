"""Settings of `microg har score`: from the recipe's keys `row` and `score`, `--set`, and the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from microg import storage
from microg.config import Config
from microg.data.label_space import MICROG_50, LabelSpace, label_space
from microg.errors import ConfigError
from microg.jobs.commands.scoring import load_score_config


class HarScoreConfig(Config):
    """What to compute; `score_kind` and `label_space` None mean what the predictions declare.

    `onto` scores the classes that predictions, truth and this label space share; `truth_space` is that of the truth's
    labels then, None meaning MicroG-4M's for a dataset and otherwise that of the predictions.
    """

    protocol: Literal["paper", "corrected", "both"] = "both"
    score_kind: Literal["logit", "probability"] | None = None
    label_space: Literal["microg50", "ava80", "jhmdb21"] | None = None
    onto: Literal["microg50", "ava80", "jhmdb21"] | None = None
    truth_space: Literal["microg50", "ava80", "jhmdb21"] | None = None
    row: str | None = None
    split: Literal["train", "val", "test", "all"] = "test"
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
    """Build the settings of `microg har score` (see `load_score_config`)."""
    return load_score_config(HarScoreConfig, recipe, overrides, options)


def truth_label_space(path: str, predictions: LabelSpace, settings: HarScoreConfig) -> LabelSpace:
    """Return the label space of the truth at `path`. Raises `ConfigError` when one is declared without `onto`."""
    if settings.truth_space is not None:
        if settings.onto is None:
            raise ConfigError(
                "--truth-space is for scoring across label spaces", "say with --onto which classes to score"
            )
        return label_space(settings.truth_space)
    if settings.onto is not None and storage.exists(storage.join(path, "dataset.json")):
        return MICROG_50
    return predictions
