"""How large a tiny model is."""

from __future__ import annotations

from dataclasses import dataclass

from microg.errors import ConfigError


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
