"""What `microg har train` starts from, the settings of a recipe and its variants, and what it says at its end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from microg.config import load_config, merged, read_recipe
from microg.console import say
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


def show(result: dict[str, Any]) -> None:
    """Print a finished run's result: the curve, the best epoch, and where the time went."""
    if result["already_finished"]:
        say(f"{result['run']} is finished: {result['epochs']} epochs. Give another --run to train again.")
    _history(result["history"])
    best = result["best"]
    if best is not None:
        say(f"best epoch {best['epoch']}: {best['select']} mAP {best['map']:.4f} on val; weights {result['weights']}")
    if result["restarts"]:
        say(f"workers were restarted {result['restarts']} times")
    if (speed := result["throughput"]) is not None:
        say(
            f"{speed['rows']:,} clips in {speed['wall_s']:.0f} s: {speed['rows_per_s']:.2f} clips/s in training, "
            f"{speed['wait_share']:.0%} of it waiting for clips; validation "
            f"{speed['stages']['validate'] * speed['rows']:.0f} s; bottleneck: {speed['bottleneck']}"
        )
    for failure in result["failures"][:5]:
        say(f"failed: {failure}")
    if len(result["failures"]) > 5:
        say(f"failed: {len(result['failures']) - 5} more, see {result['run']}/checkpoints/progress.json")
    if result["complete"]:
        say(f"next: microg har predict DATASET --weights {result['run']} --run ...")


def _history(rows: list[dict[str, Any]]) -> None:
    say("epoch        lr    loss  clips/s  waiting  val loss  mAP paper  mAP corrected      F1")
    for row in [row for row in rows if row["val_map_paper"] is not None][-20:] or rows[-5:]:
        waiting = row["wait_s"] / max(row["train_s"], 1e-9)
        scores = [row[name] for name in ("val_loss", "val_map_paper", "val_map_corrected", "val_f1_corrected")]
        loss, paper, corrected, f1 = ("-" if score is None else f"{score:.4f}" for score in scores)
        say(
            f"{row['epoch']:5d}  {row['lr']:8.2e}  {row['loss']:.4f}  {row['clips_per_s']:7.2f}  {waiting:7.0%}  "
            f"{loss:>8}  {paper:>9}  {corrected:>13}  {f1:>6}{'  best' if row['best'] else ''}"
        )
