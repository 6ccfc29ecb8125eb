"""Settings of a Qwen2 of which some layers also look at pictures."""

from __future__ import annotations

from typing import Any

from transformers.configuration_utils import PretrainedConfig


class HyperQwen2Config(PretrainedConfig):
    """Qwen2's fields, and `hyper_layers`: layers, counted from 1, that look at pictures."""

    model_type = "qwen2"
    keys_to_ignore_at_inference = ("past_key_values",)

    def __init__(self, hyper_layers: Any = (1, 9, 17, 25), **fields: Any) -> None:
        qwen2 = {
            "vocab_size": 151936,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "hidden_act": "silu",
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1000000.0,
            "use_cache": True,
        }
        for name, value in qwen2.items():
            setattr(self, name, fields.pop(name, value))
        self.hyper_layers = list(hyper_layers)
        super().__init__(**fields)
