"""LLaVA as LLaVA-NeXT-Interleave has it: SigLIP on every picture, a Qwen2 behind; it takes pictures, no video."""

from __future__ import annotations

from collections.abc import Sequence

from microg.demo.tiny_models.llava_next_video import RENAME
from microg.demo.tiny_models.save import Parts, language_model, siglip_encoder
from microg.demo.tiny_models.size import Size
from microg.demo.tiny_models.tokenizer import chat_template, train

_IMAGE = "<image>"
_PATCH = 14


def make(texts: Sequence[str], size: Size, phrases: Sequence[str] = ()) -> Parts:
    """Return the parts of a tiny LLaVA; a picture is (side / 14)^2 tokens."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor, SiglipImageProcessor

    tokenizer = train(texts, [_IMAGE], size.vocabulary, size.context, phrases=phrases)
    config = LlavaConfig(
        text_config=language_model("qwen2", tokenizer, size),
        vision_config=siglip_encoder(size, _PATCH),
        image_token_index=tokenizer.convert_tokens_to_ids(_IMAGE),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )
    processor = LlavaProcessor(
        image_processor=SiglipImageProcessor(size={"height": size.side, "width": size.side}),
        tokenizer=tokenizer,
        patch_size=_PATCH,
        vision_feature_select_strategy="full",
        chat_template=chat_template(f"{_IMAGE}\n", ""),
    )
    return Parts(LlavaForConditionalGeneration, config, processor, RENAME)
