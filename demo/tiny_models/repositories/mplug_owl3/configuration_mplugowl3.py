"""Settings of mPLUG-Owl3: those of its language model, and `vision_config` for SigLIP."""

from __future__ import annotations

from typing import Any

from transformers.models.siglip.configuration_siglip import SiglipVisionConfig

from .configuration_hyper_qwen2 import HyperQwen2Config

_SO400M = {
    "hidden_size": 1152,
    "image_size": 384,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
}


class mPLUGOwl3Config(HyperQwen2Config):
    """Both parts in one."""

    model_type = "mplugowl3"

    def __init__(self, vision_config: Any = None, **fields: Any) -> None:
        self.vision_config = SiglipVisionConfig(**(vision_config or _SO400M))
        self.image_size = self.vision_config.image_size
        self.patch_size = self.vision_config.patch_size
        super().__init__(**fields)
