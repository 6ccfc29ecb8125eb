"""Settings of `microg har transfer`: the recipe's section `predict`, `--set`, and the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from pydantic import Field

from microg.config import Config, load_config, recipe_section
from microg.pipelines.har.predict import PredictSettings


class HarTransferConfig(Config):
    """How a model of AVA's actions is run on both test sets, and how sure the scores are to be."""

    predict: PredictSettings = PredictSettings()
    resamples: int = Field(default=1000, ge=0, le=1_000_000, description="Bootstrap resamples; 0 gives no intervals.")
    seed: int = Field(default=0, ge=0, description="Seed of the resamples.")


class HarTransferRun(Config):
    """What a run folder records: the settings, the map and the truth of both sets. Paths do not count."""

    volatile: ClassVar[frozenset[str]] = frozenset({"jhmdb", "microg"})
    jhmdb: str = Field(description="Dataset of JHMDB.")
    microg: str = Field(description="Dataset of MicroG-4M's actions.")
    crosswalk: str = Field(description="Map from JHMDB's actions to AVA's, with its version.")
    truth_digests: dict[str, str] = Field(description="Digest of the truth's rows of each set, in any order.")
    transfer: HarTransferConfig


def load_har_transfer_config(
    recipe: str | None, overrides: Iterable[str], options: Mapping[str, Any]
) -> HarTransferConfig:
    """Build the settings: the recipe's row and section `predict`, `--set`, then options by key."""
    predict = recipe_section(recipe, "predict", row="model")
    return load_config(HarTransferConfig, None, [*overrides, options], predict=predict)
