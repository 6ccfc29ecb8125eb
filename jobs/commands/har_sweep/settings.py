"""Settings of `microg har sweep`: recipes, the space searched, and how weak trials are stopped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, Field

from microg import storage
from microg.config import Config, load_config, merged, nested, recipe_path, settings_of
from microg.errors import ConfigError
from microg.jobs.commands.har_train import load_har_train_config
from microg.pipelines.har.sweep import Domain, parse_space
from microg.pipelines.har.train.settings import TrainConfig


class SweepSettings(Config):
    """A search over recipes and their settings."""

    volatile = frozenset({"dataset", "num_samples"})
    dataset: str = Field(description="Dataset folder with samples and splits; its content counts, not its place.")
    configs: dict[str, TrainConfig] = Field(
        description="Training settings of each recipe by its name, before a trial's own values are put in."
    )
    space: tuple[str, ...] = Field(description="Settings that are searched, as KEY=DOMAIN.")
    num_samples: int = Field(
        default=1, ge=1, description="Draws for each recipe and grid point; a sweep that is resumed may have more."
    )
    seed: int = Field(default=0, ge=0, description="Seed of the draws.")
    scheduler: Literal["asha", "fifo"] = Field(
        default="asha", description="asha stops weak trials early; fifo lets all finish."
    )
    grace_epochs: int = Field(default=1, ge=1, description="Scheduler asha: epochs that every trial gets.")
    reduction_factor: float = Field(
        default=3.0, gt=1, description="Scheduler asha: one trial of so many goes on at each rung."
    )

    @property
    def domains(self) -> tuple[Domain, ...]:
        """The space, parsed."""
        return parse_space(self.space)

    @property
    def metric(self) -> str:
        """Name of the score that trials are compared by, as in table `har_train`."""
        return f"val_map_{next(iter(self.configs.values())).validation.select}"

    def trial_config(self, recipe: str, values: dict[str, Any]) -> TrainConfig:
        """Return the training settings of one trial. Raises `ConfigError` when its values do not fit the recipe."""
        settings = self.configs[recipe].model_dump()
        for key, value in values.items():
            settings = merged(settings, nested(key, value))
        return load_config(TrainConfig, None, (), **settings)


def load_sweep_settings(
    dataset: str,
    recipes: Sequence[str],
    space: Sequence[str],
    overrides: Iterable[str],
    *,
    variant: str | None = None,
    limit: int | None = None,
    **options: Any,
) -> SweepSettings:
    """Build the settings; every value at the edge of the space is tried on every recipe before anything runs.

    `recipes` are paths, or names in recipes/har; keys of the space may be short where that is unique (`lr`). Epochs are
    validated one by one unless `--set validation.every=N` says otherwise. Raises `ConfigError`.
    """
    if not recipes:
        raise ConfigError("a sweep needs at least one recipe", "for example --recipe tiny, or recipes/har/tiny.yaml")
    configs: dict[str, TrainConfig] = {}
    overrides = ["validation.every=1", *overrides]
    for recipe in recipes:
        path = recipe_path(recipe)
        name = PurePosixPath(path).stem
        if name in configs:
            raise ConfigError(f"two recipes are called {name!r}", "give their files different names")
        configs[name] = load_har_train_config(path, overrides, variant=variant, options={"limit": limit})
    domains = [Domain(full_key(TrainConfig, domain.key), domain.kind, domain.values) for domain in parse_space(space)]
    given = {name: value for name, value in options.items() if value is not None}
    settings = load_config(
        SweepSettings,
        None,
        (),
        dataset=storage.absolute(dataset),
        configs=configs,
        space=tuple(str(domain) for domain in domains),
        **given,
    )
    if len({config.validation.select for config in settings.configs.values()}) > 1:
        raise ConfigError("recipes select by different scores", "say --set validation.select=corrected (or paper)")
    _try_edges(settings)
    return settings


def _try_edges(settings: SweepSettings) -> None:
    for recipe in settings.configs:
        for domain in settings.domains:
            for value in domain.values if domain.kind in ("choice", "grid") else domain.values[:1]:
                try:
                    settings.trial_config(recipe, {domain.key: value})
                except ConfigError as error:
                    raise ConfigError(
                        f"--space {domain} does not fit recipe {recipe}: {error.what}", error.fix
                    ) from error


def full_key(model: type[BaseModel], key: str) -> str:
    """Return the dotted key of a setting given by it or by its last part.

    Raises `ConfigError` when there is none, or several.
    """
    keys = [setting.key for setting in settings_of(model)]
    if key in keys:
        return key
    found = [candidate for candidate in keys if candidate.endswith(f".{key}")]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError(f"--space: there is no setting {key!r}", f"settings are {', '.join(keys)}")
    raise ConfigError(f"--space: {key!r} may be {' or '.join(found)}", "give the whole key")
