"""Tiny vision-language models: the real architectures with random weights, a tokenizer and a processor of their own.

A folder that `build` wrote loads like a checkpoint from the hub, in vLLM and in transformers, so that the path that
serves real models runs anywhere: no network, no GPU, a few megabytes. What such a model says is noise until somebody
trains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from microg.demo.tiny_models.save import write
from microg.demo.tiny_models.size import Size
from microg.registry import Registry

# What makes each, by transformers' model type.
ARCHITECTURES = Registry(
    "tiny model",
    {
        "internvideo2_5": "microg.demo.tiny_models.internvideo2_5:make",
        "internvl": "microg.demo.tiny_models.internvl:make",
        "llava": "microg.demo.tiny_models.llava:make",
        "llava_next_video": "microg.demo.tiny_models.llava_next_video:make",
        "llava_onevision": "microg.demo.tiny_models.llava_onevision:make",
        "mplug_owl3": "microg.demo.tiny_models.mplug_owl3:make",
        "qwen2_5_vl": "microg.demo.tiny_models.qwen2_5_vl:make",
        "qwen2_vl": "microg.demo.tiny_models.qwen2_vl:make",
        "video_llava": "microg.demo.tiny_models.video_llava:make",
    },
)
_TEXTS = (
    "An astronaut floats through the module and reaches for a handrail.",
    "Two astronauts in blue shirts drift beside the hatch, one of them upside down.",
    "How many people are in the video? Is the person holding a tool? Answer yes or no.",
    "What is the astronaut doing? The video does not tell. Unanswerable.",
    "Describe the video in one or two sentences. A person turns slowly and grasps a cable.",
)


def build(
    architecture: str,
    folder: str | Path,
    *,
    seed: int = 0,
    texts: Sequence[str] = (),
    phrases: Sequence[str] = (),
    size: Size | None = None,
    **changes: Any,
) -> Path:
    """Write a random model of `architecture` (a key of `ARCHITECTURES`) to `folder` and return the folder.

    `seed` decides the weights, `texts` (ours where there are none) what the tokenizer knows as whole words, `phrases`
    what it knows as one token, such as a prompt that is always the same; the same arguments give the same files.
    `changes` are fields of `size`. Raises `ConfigError` for an unknown architecture or a size that cannot be.
    """
    make, size = ARCHITECTURES.load(architecture), replace(size or Size(), **changes)
    return write(make, Path(folder), seed, texts or _TEXTS, size, phrases)
