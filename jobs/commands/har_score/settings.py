"""Settings of `microg har score`: from the recipe's keys `row` and `score`, `--set`, and the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from microg import storage
from microg.config import Config, load_config, recipe_section
from microg.data.dataset import Dataset
from microg.data.label_space import LABEL_SPACES, LabelSpace, label_space
from microg.data.vocabulary import Vocabulary
from microg.errors import ConfigError

_Space = Literal["microg50", "ava80", "jhmdb21"]


class HarScoreConfig(Config):
    """What to compute."""

    protocol: Literal["paper", "corrected", "both"] = Field(default="both", description="Protocol of scoring.")
    score_kind: Literal["logit", "probability"] | None = Field(
        default=None, description="What scores are; without it what the file declares, or logit."
    )
    label_space: str | None = Field(
        default=None,
        description="Label space of the predictions (microg50, ava80, jhmdb21, or that of a dataset's own actions); "
        "without it what the file declares, else a dataset's own actions, or microg50.",
    )
    onto: _Space | None = Field(
        default=None,
        description="Score the classes that predictions, truth and this label space share, by the declared maps.",
    )
    truth_space: _Space | None = Field(
        default=None,
        description="With `onto`: label space of the truth; without it what a dataset says, and for a file that of "
        "the predictions.",
    )
    row: str | None = Field(
        default=None, description="Published row to show beside, such as X3D_L (test) or X3D_L/val/30."
    )
    split: Literal["train", "val", "test", "all"] = Field(default="test", description="Split of a dataset folder.")
    scheme: str = Field(default="published", description="Split scheme of a dataset folder.")
    resamples: int = Field(default=1000, ge=0, le=1_000_000, description="Bootstrap resamples; 0 gives no intervals.")
    seed: int = Field(default=0, ge=0, description="Seed of the resamples.")
    match_order: Literal["file", "score"] = Field(
        default="file", description="Who claims a true box first: predictions by file (the reference) or by score."
    )


class HarScoreRun(Config):
    """What a run folder records: the settings, and the contents that were scored. Paths do not count."""

    volatile: ClassVar[frozenset[str]] = frozenset({"predictions", "groundtruth", "thresholds_from", "vocabulary"})
    predictions: str = Field(description="Where the predictions lie.")
    groundtruth: str = Field(description="Where the truth lies.")
    score_kind: str = Field(description="What the scores are: logit or probability.")
    label_space: str = Field(description="Label space of the predictions, once they are brought to the truth's.")
    vocabulary: dict[str, Any] | None = Field(
        default=None, description="The actions of the label space, where it is a dataset's own."
    )
    predictions_digest: str = Field(description="Digest of the predictions' rows, in order.")
    truth_digest: str = Field(description="Digest of the truth's rows, in any order.")
    thresholds_from: str | None = Field(default=None, description="Run that chose the thresholds of classes.")
    thresholds_digest: str | None = Field(default=None, description="Digest of those thresholds.")
    score: HarScoreConfig


def load_har_score_config(recipe: str | None, overrides: Iterable[str], options: Mapping[str, Any]) -> HarScoreConfig:
    """Build the settings of `microg har score`: the recipe's row and section `score`, `--set`, then options by key."""
    return load_config(HarScoreConfig, None, [*overrides, options], **recipe_section(recipe, "score", row="row"))


def truth_label_space(path: str, predictions: LabelSpace, settings: HarScoreConfig) -> LabelSpace:
    """Return the label space of the truth at `path`.

    Raises `ConfigError` when one is declared without `onto`, or the truth is numbered by another published one.
    """
    if settings.truth_space is not None:
        if settings.onto is None:
            raise ConfigError(
                "--truth-space is for scoring across label spaces", "say with --onto which classes to score"
            )
        return label_space(settings.truth_space)
    if not storage.exists(storage.join(path, "dataset.json")):
        return predictions
    vocabulary = Dataset.open(path).vocabulary
    own = vocabulary.space
    if settings.onto is not None:
        return own
    if own.shares_ids(predictions):
        return predictions
    if vocabulary.published and predictions.name in LABEL_SPACES:
        raise ConfigError(
            f"the labels of {path} are of {own.name}, the predictions of {predictions.name}",
            "say with --onto which classes to score",
        )
    return own


def truth_vocabulary(path: str) -> Vocabulary | None:
    """Return the actions of the dataset at `path`; None of a file, which tells none."""
    return Dataset.open(path).vocabulary if storage.exists(storage.join(path, "dataset.json")) else None
