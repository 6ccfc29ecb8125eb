"""Settings of the whole; as the published class, it cannot be made without any."""

from __future__ import annotations

from typing import Any

from transformers.configuration_utils import PretrainedConfig

from .configuration_intern_vit import InternVisionConfig
from .configuration_internlm2 import InternLM2Config


class InternVLChatConfig(PretrainedConfig):
    """`vision_config`, `llm_config` and what joins them."""

    model_type = "internvl_chat"
    is_composition = True

    def __init__(self, vision_config: Any = None, llm_config: Any = None, **fields: Any) -> None:
        known = {
            "downsample_ratio": 0.5,
            "force_image_size": None,
            "select_layer": -1,
            "template": "internvl2_5",
            "ps_version": "v2",
        }
        for name, value in known.items():
            setattr(self, name, fields.pop(name, value))
        super().__init__(**fields)
        self.vision_config = InternVisionConfig(**(vision_config or {}))
        if llm_config is not None:
            self.llm_config = InternLM2Config(**llm_config)

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "llm_config": self.llm_config.to_dict()}
