"""Tiny vision-language models: the real architectures with random weights, a tokenizer and a processor of their own.

A folder that `build` wrote loads like a checkpoint from the hub, in vLLM and in transformers, so that the path that
serves real models runs anywhere: no network, no GPU, a few megabytes. What such a model says is noise until somebody
trains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from microg.errors import ConfigError

# transformers' model type -> the module that makes it.
ARCHITECTURES: dict[str, str] = {
    "internvl": "microg.demo.tiny_models.internvl",
    "llava_next_video": "microg.demo.tiny_models.llava_next_video",
    "qwen2_5_vl": "microg.demo.tiny_models.qwen2_5_vl",
    "video_llava": "microg.demo.tiny_models.video_llava",
}
_TEXTS = (
    "An astronaut floats through the module and reaches for a handrail.",
    "Two astronauts in blue shirts drift beside the hatch, one of them upside down.",
    "How many people are in the video? Is the person holding a tool? Answer yes or no.",
    "What is the astronaut doing? The video does not tell. Unanswerable.",
    "Describe the video in one or two sentences. A person turns slowly and grasps a cable.",
)


@dataclass(frozen=True)
class Size:
    """How large a tiny model is; the default has about a million parameters.

    hidden, layers, heads, kv_heads: of the language model; hidden / heads is a multiple of 16 (of 32 for vLLM on a
    CPU). vision_hidden, vision_layers, vision_heads: of the picture encoder. side: a frame becomes about side x side
    pixels, a multiple of 28. vocabulary: tokens learnt from the texts at most, 256 bytes included. context: tokens.
    spread: standard deviation of the weights; None means what the architecture is trained from, which leaves the
    answers of an untrained model nearly blind to what it is shown.
    """

    hidden: int = 128
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    vision_hidden: int = 64
    vision_layers: int = 2
    vision_heads: int = 2
    side: int = 56
    vocabulary: int = 600
    context: int = 4096
    spread: float | None = 0.1

    def __post_init__(self) -> None:
        if self.hidden % (16 * self.heads) or self.heads % self.kv_heads:
            raise ConfigError("hidden must be a multiple of 16 x heads, and heads one of kv_heads")
        if self.vision_hidden % (8 * self.vision_heads):
            raise ConfigError("vision_hidden must be a multiple of 8 x vision_heads")
        if self.side % 28 or self.side < 28:
            raise ConfigError(f"side must be a multiple of 28 pixels, not {self.side}")


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
    if architecture not in ARCHITECTURES:
        raise ConfigError(f"there is no tiny model of {architecture!r}", f"architectures: {', '.join(ARCHITECTURES)}")
    from microg.demo.tiny_models.save import write

    module = import_module(ARCHITECTURES[architecture])
    return write(module.make, Path(folder), seed, texts or _TEXTS, replace(size or Size(), **changes), phrases)
