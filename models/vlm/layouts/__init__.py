"""Checkpoints in their authors' own layout, rewritten into one that an engine loads.

Nothing of the authors' code is needed for it: tensors get other names, config.json and the processor are written anew,
and every tensor of the new model has to be there in its shape. What a layout's module says about its files is from
public code; no published weights were at hand when it was written, so a folder that differs is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from microg.errors import ConfigError
from microg.registry import Registry

# What microg writes beside a model that it made: the frames that it was trained on, or the name of its card.
OWN_FACTS = "microg.json"
# What reads each, by the architecture that config.json names.
LAYOUTS = Registry(
    "layout",
    {
        "TarsierForConditionalGeneration": "microg.models.vlm.layouts.tarsier2:plan",
        "LlavaQwenForCausalLM": "microg.models.vlm.layouts.llava_video:plan",
        "LlavaLlamaForCausalLM": "microg.models.vlm.layouts.video_chatgpt:plan",
        "VideoChatGPTLlamaForCausalLM": "microg.models.vlm.layouts.video_chatgpt:plan",
    },
)


def architecture(config: Mapping[str, Any]) -> str:
    """Return the architecture that a config.json names, or ""."""
    named = config.get("architectures")
    return named[0] if isinstance(named, list) and named and isinstance(named[0], str) else ""


def refuse_unconverted(config: Mapping[str, Any], where: str) -> None:
    """Raise `ConfigError` for a checkpoint that has to be converted first."""
    if architecture(config) in LAYOUTS:
        raise ConfigError(
            f"{where} is in the layout of its authors ({architecture(config)}), which no engine here loads",
            "'microg vlm convert FOLDER OUT' rewrites such a folder; then --model OUT",
        )
