"""Tiny models in the layout in which their authors published them, which `microg vlm convert` reads.

Names of files, tensors and settings are those of the published repositories, written down here apart from the
converter, so that one can be tested against the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from microg.registry import Registry

# What writes each, by the name of a model card.
PUBLISHED = Registry(
    "published layout",
    {
        "llava-video-7b": "microg.demo.tiny_models.published.llava_video:write",
        "tarsier2-recap-7b": "microg.demo.tiny_models.published.tarsier2:write",
        "video-chatgpt": "microg.demo.tiny_models.published.video_chatgpt:write",
    },
)


def build_published(name: str, folder: str | Path, *, seed: int = 0, **changes: Any) -> Path:
    """Write a random model as the card `name` has it published to `folder` and return the folder.

    `changes` are fields of `microg.demo.tiny_models.size.Size`. Raises `ConfigError` for an unknown name.
    """
    folder = Path(folder)
    folder.mkdir(parents=True)
    PUBLISHED.load(name)(folder, seed=seed, **changes)
    return folder


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """Write a configuration file as they do."""
    file.write_text(json.dumps(value, indent=2) + "\n")
