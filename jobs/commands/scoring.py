"""Which runs a scoring command may be compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from microg import storage
from microg.config import Config
from microg.errors import MetricError


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
