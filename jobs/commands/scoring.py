"""What both scoring commands share: their run folders, which runs they compare with, and how tables print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

from rich.table import Table

from microg import storage
from microg.config import Config
from microg.errors import ConfigError, MetricError


def comparable_document(
    other: str, command: str, own: Config, *, digest: str, truth: str, settings: Sequence[str]
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
    if config[digest] != getattr(own, digest):
        raise MetricError(f"{other} was scored on other {truth}", f"score both models on the same {truth}")
    for key in settings:
        there, here = config["score"][key], own.model_dump()["score"][key]
        if there != here:
            raise MetricError(f"{other} was scored with {key} {there}, not {here}", "score both with the same settings")
    return storage.read_json(metrics)


def default_folder(command: str, predictions: str, run_config: Config) -> str:
    """Return a run folder named after the predictions, different for other contents or settings."""
    name = PurePosixPath(predictions.rstrip("/")).name.split(".")[0] or "predictions"
    return f"runs/{command.replace(' ', '_')}/{name}-{run_config.digest()[:8]}"


def runs_to_compare(first: list[str] | None, more: list[str] | None) -> list[str]:
    """Return the runs of `--compare` and after it. Raises `ConfigError` for arguments without `--compare`."""
    if more and not first:
        raise ConfigError(f"unexpected argument {more[0]!r}", "runs to compare with follow --compare")
    return [*(first or []), *(more or [])]


def new_table(title: str, *heads: str, right: Iterable[str] = ()) -> Table:
    """Return an empty table with columns to the left, and more to the `right`."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for head in heads:
        table.add_column(head)
    for head in right:
        table.add_column(head, justify="right")
    return table


def percent(value: float | None, digits: int = 2) -> str:
    """Return a fraction in percent, a dash for one that is undefined."""
    return "-" if value is None or value != value else f"{100 * value:.{digits}f}"


def span(low: float | None, high: float | None, digits: int = 2) -> str:
    """Return an interval in percent."""
    return f"{percent(low, digits)} to {percent(high, digits)}"
