"""Models of the paper that transformers does not have, written for it here.

Each is a class of configuration, model and processor that transformers' own loaders find once it is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from microg.registry import Registry

# What makes each known, by the model type of config.json.
ARCHITECTURES = Registry(
    "architecture",
    {
        "llava_video": "microg.models.vlm.architectures.llava_video:register",
        "video_chatgpt": "microg.models.vlm.architectures.video_chatgpt:register",
    },
)


def make_known(config: Mapping[str, Any]) -> None:
    """Let transformers know the architecture of a config.json, where it is one of ours."""
    kind = config.get("model_type")
    if isinstance(kind, str) and kind in ARCHITECTURES:
        ARCHITECTURES.load(kind)()
