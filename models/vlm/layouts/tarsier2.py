"""Tarsier2 (Tarsier2-Recap-7b, Tarsier2-7b-0115): a Qwen2-VL in other clothes.

Its config.json names model type `llava` and holds Qwen2-VL's whole configuration as `text_config`; of the weights
`vision_tower.*` is Qwen2-VL's picture encoder and `language_model.*` its language model. Sources: bytedance/tarsier,
vLLM 0.23 and LightLLM, which read it so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from microg.errors import ConfigError
from microg.models.vlm.layouts.chatml import chat_template
from microg.models.vlm.layouts.convert import Plan, Source, read_config, weight_files

_RENAME = {
    "vision_tower.": "model.visual.",
    "language_model.model.": "model.language_model.",
    "language_model.lm_head.": "lm_head.",
}
# Qwen2-VL's, which vLLM asked it with.
_TEMPLATE = chat_template("<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>")


def plan(folder: Path, parts: Mapping[str, Path]) -> Plan:
    """Return how a Tarsier2 becomes the Qwen2-VL that it is. Raises `ConfigError` for a Tarsier of another kind."""
    import torch
    from transformers import (
        AutoTokenizer,
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    if parts:
        raise ConfigError(f"Tarsier2 has no parts besides its folder: {', '.join(parts)}")
    held = read_config(folder / "config.json")
    inner: Any = held.get("text_config")
    if not isinstance(inner, dict) or inner.get("model_type") != "qwen2_vl":
        raise ConfigError(
            f"{folder} is a Tarsier on another language model than Qwen2-VL",
            "Tarsier2 can be converted, Tarsier cannot",
        )
    own = {name: value for name, value in inner.items() if name not in ("model_type", "architectures", "auto_map")}
    vision = own.pop("vision_config", None) or held.get("vision_config") or {}
    if isinstance(vision, dict):
        vision = {name: value for name, value in vision.items() if name not in ("model_type", "auto_map")}
    dtype = held.get("dtype") or held.get("torch_dtype") or own.get("torch_dtype") or "bfloat16"
    own.pop("torch_dtype", None)
    config = Qwen2VLConfig(**own, vision_config=vision, dtype=dtype)
    with torch.device("meta"):
        model = Qwen2VLForConditionalGeneration(config)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    pictures = Qwen2VLImageProcessor.from_pretrained(folder)
    # every frame up to its own limit, as its authors process them
    videos = Qwen2VLVideoProcessor(
        size=dict(pictures.size),
        patch_size=pictures.patch_size,
        merge_size=pictures.merge_size,
        temporal_patch_size=pictures.temporal_patch_size,
        cap_pixels_per_frame=False,
    )
    processor = Qwen2VLProcessor(pictures, tokenizer, videos, chat_template=_TEMPLATE)
    sources = tuple(Source(file, _RENAME) for file in weight_files(folder))
    return Plan("tarsier2-recap-7b", model, processor, sources)
