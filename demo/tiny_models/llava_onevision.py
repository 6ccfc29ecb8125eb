"""LLaVA-OneVision: SigLIP on every frame, its features shrunk to half the side, a Qwen2 behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from microg.demo.tiny_models.llava_next_video import RENAME
from microg.demo.tiny_models.save import Parts, language_model, siglip_encoder
from microg.demo.tiny_models.size import Size
from microg.demo.tiny_models.tokenizer import chat_template, train

_IMAGE, _VIDEO = "<image>", "<video>"
_PATCH = 14
_HALF = [0.5, 0.5, 0.5]


def make(texts: Sequence[str], size: Size, phrases: Sequence[str] = ()) -> Parts:
    """Return the parts of a tiny LLaVA-OneVision; a frame is (side / 28)^2 tokens, and the video one more."""
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
    )

    tokenizer = train(texts, [_IMAGE, _VIDEO], size.vocabulary, size.context, phrases=phrases)
    image, video = tokenizer.convert_tokens_to_ids([_IMAGE, _VIDEO])
    side = size.side
    tiles = [[side, 2 * side], [2 * side, side], [2 * side, 2 * side]]
    config = LlavaOnevisionConfig(
        text_config=language_model("qwen2", tokenizer, size),
        vision_config=siglip_encoder(size, _PATCH),
        image_token_index=image,
        video_token_index=video,
        image_grid_pinpoints=tiles,
        tie_word_embeddings=False,
    )
    resize: dict[str, Any] = {"size": {"height": side, "width": side}, "image_mean": _HALF, "image_std": _HALF}
    processor = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(**resize, image_grid_pinpoints=tiles),
        tokenizer=tokenizer,
        video_processor=LlavaOnevisionVideoProcessor(**resize),
        num_image_tokens=(side // _PATCH) ** 2,
        vision_feature_select_strategy="full",
        chat_template=chat_template(f"{_IMAGE}\n", f"{_VIDEO}\n"),
    )
    return Parts(LlavaOnevisionForConditionalGeneration, config, processor, RENAME)
