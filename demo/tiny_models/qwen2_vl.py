"""Qwen2-VL: like Qwen2.5-VL, with a picture encoder whose attention sees the whole frame."""

from __future__ import annotations

from collections.abc import Sequence

from microg.demo.tiny_models.qwen2_5_vl import family
from microg.demo.tiny_models.save import Parts
from microg.demo.tiny_models.size import Size


def make(texts: Sequence[str], size: Size, phrases: Sequence[str] = ()) -> Parts:
    """Return the parts of a tiny Qwen2-VL."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor

    vision = {
        "depth": size.vision_layers,
        "embed_dim": size.vision_hidden,
        "hidden_size": size.hidden,
        "num_heads": size.vision_heads,
        "mlp_ratio": 2,
    }
    classes = Qwen2VLForConditionalGeneration, Qwen2VLConfig, Qwen2VLProcessor
    return family(classes, vision, texts, size, phrases)
