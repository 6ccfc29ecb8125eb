"""LLaVA-NeXT-Video: CLIP on every frame, its features averaged over squares of four, a Llama behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from microg.demo.tiny_models.save import Parts, clip_encoder, language_model
from microg.demo.tiny_models.size import Size
from microg.demo.tiny_models.tokenizer import chat_template, train

_IMAGE, _VIDEO = "<image>", "<video>"
# The pooling needs image_size // patch**2 to be at least 1.
_PATCH = 7
# Hub checkpoints, and vLLM, have the encoder one level deeper than transformers 5 saves it.
RENAME = {r"(vision_tower\.)(?!vision_model\.)": r"\1vision_model."}


def make(texts: Sequence[str], size: Size, phrases: Sequence[str] = ()) -> Parts:
    """Return the parts of a tiny LLaVA-NeXT-Video; a frame is (side / 14)^2 tokens."""
    from transformers import (
        LlavaNextImageProcessor,
        LlavaNextVideoConfig,
        LlavaNextVideoForConditionalGeneration,
        LlavaNextVideoProcessor,
        LlavaNextVideoVideoProcessor,
    )

    tokenizer = train(texts, [_IMAGE, _VIDEO], size.vocabulary, size.context, phrases=phrases)
    image, video = tokenizer.convert_tokens_to_ids([_IMAGE, _VIDEO])
    patches, side = (size.side // _PATCH) ** 2, size.side
    tiles = [[side, 2 * side], [2 * side, side], [2 * side, 2 * side]]
    config = LlavaNextVideoConfig(
        text_config=language_model("llama", tokenizer, size),
        vision_config=clip_encoder(size, _PATCH),
        image_token_index=image,
        video_token_index=video,
        image_grid_pinpoints=tiles,
        image_seq_length=patches,
        video_seq_length=patches // 4,
        tie_word_embeddings=False,
    )
    resize: dict[str, Any] = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    processor = LlavaNextVideoProcessor(
        video_processor=LlavaNextVideoVideoProcessor(**resize),
        image_processor=LlavaNextImageProcessor(**resize, image_grid_pinpoints=tiles),
        tokenizer=tokenizer,
        chat_template=chat_template(_IMAGE, _VIDEO),
        patch_size=_PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return Parts(LlavaNextVideoForConditionalGeneration, config, processor, RENAME)
