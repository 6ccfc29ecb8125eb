"""Qwen2.5-VL: a picture encoder with windowed attention, frames merged in pairs, rotary positions in three axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from microg.demo.tiny_models.save import Parts, language_model
from microg.demo.tiny_models.size import Size
from microg.demo.tiny_models.tokenizer import chat_template, train

_BEGIN, _END, _IMAGE, _VIDEO = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
_PATCH, _MERGE = 14, 2


def make(texts: Sequence[str], size: Size, phrases: Sequence[str] = ()) -> Parts:
    """Return the parts of a tiny Qwen2.5-VL."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

    vision = {
        "depth": size.vision_layers,
        "hidden_size": size.vision_hidden,
        "num_heads": size.vision_heads,
        "intermediate_size": 2 * size.vision_hidden,
        "out_hidden_size": size.hidden,
        "patch_size": _PATCH,
        "spatial_merge_size": _MERGE,
        "fullatt_block_indexes": [size.vision_layers - 1],
    }
    classes = Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLConfig, Qwen2_5_VLProcessor
    return family(classes, vision, texts, size, phrases)


def family(
    classes: tuple[Any, Any, Any], vision: dict[str, Any], texts: Sequence[str], size: Size, phrases: Sequence[str]
) -> Parts:
    """Return the parts of a model of the family: its classes of model, configuration and processor."""
    from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    model_class, config_class, processor_class = classes
    tokenizer = train(texts, [_BEGIN, _END, _IMAGE, _VIDEO], size.vocabulary, size.context, phrases=phrases)
    begin, end, image, video = tokenizer.convert_tokens_to_ids([_BEGIN, _END, _IMAGE, _VIDEO])
    half = size.hidden // size.heads // 2  # of a head's dimensions; shared among time, height and width as 2 : 3 : 3
    config = config_class(
        text_config={
            **language_model(f"{config_class.model_type}_text", tokenizer, size),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [half // 4, 3 * half // 8, 3 * half // 8],
            },
        },
        vision_config=vision,
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=begin,
        vision_end_token_id=end,
        tie_word_embeddings=False,
    )
    pixels = {"shortest_edge": (_PATCH * _MERGE) ** 2, "longest_edge": size.side**2}
    template = chat_template(f"{_BEGIN}{_IMAGE}{_END}", f"{_BEGIN}{_VIDEO}{_END}")
    # every frame up to its own limit, as released checkpoints have it, which say nothing of a cap
    video_processor = Qwen2VLVideoProcessor(size=pixels, cap_pixels_per_frame=False)
    processor = processor_class(Qwen2VLImageProcessor(size=pixels), tokenizer, video_processor, chat_template=template)
    return Parts(model_class, config, processor)
