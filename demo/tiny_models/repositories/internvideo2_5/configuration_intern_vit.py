"""Settings of the picture encoder."""

from __future__ import annotations

from typing import Any

from transformers.configuration_utils import PretrainedConfig


class InternVisionConfig(PretrainedConfig):
    """InternViT-300M's fields."""

    model_type = "intern_vit_6b"

    def __init__(self, **fields: Any) -> None:
        known = {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 448,
            "patch_size": 14,
            "qkv_bias": True,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-6,
            "initializer_factor": 0.1,
        }
        for name, value in known.items():
            setattr(self, name, fields.pop(name, value))
        super().__init__(**fields)
