"""Settings of the language model."""

from __future__ import annotations

from typing import Any

from transformers.configuration_utils import PretrainedConfig


class InternLM2Config(PretrainedConfig):
    """InternLM2.5's fields; rotary positions are stretched only beyond `max_position_embeddings`."""

    model_type = "internlm2"

    def __init__(self, **fields: Any) -> None:
        known = {
            "vocab_size": 92553,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "hidden_act": "silu",
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1000000,
            "bias": False,
            "use_cache": True,
        }
        for name, value in known.items():
            setattr(self, name, fields.pop(name, value))
        super().__init__(**fields)
