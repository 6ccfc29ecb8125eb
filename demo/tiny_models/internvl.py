"""InternVL as transformers has it: a ViT of its own, four patches merged into one token, a Qwen2 behind."""

from __future__ import annotations

from collections.abc import Sequence

from microg.demo.tiny_models.save import Parts, language_model
from microg.demo.tiny_models.size import Size
from microg.demo.tiny_models.tokenizer import chat_template, train

_NAMES = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
_PATCH = 14


def make(texts: Sequence[str], size: Size, phrases: Sequence[str] = ()) -> Parts:
    """Return the parts of a tiny InternVL; a frame is (side / 28)^2 tokens between two that mark it."""
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
    )

    tokenizer = train(texts, list(_NAMES.values()), size.vocabulary, size.context, _NAMES, phrases)
    context, side = _NAMES["context_image_token"], size.side
    tokens = (side // _PATCH // 2) ** 2
    config = InternVLConfig(
        text_config=language_model("qwen2", tokenizer, size),
        vision_config={
            "model_type": "internvl_vision",
            "hidden_size": size.vision_hidden,
            "intermediate_size": 2 * size.vision_hidden,
            "num_hidden_layers": size.vision_layers,
            "num_attention_heads": size.vision_heads,
            "image_size": [side, side],
            "patch_size": [_PATCH, _PATCH],
        },
        image_token_id=tokenizer.convert_tokens_to_ids(context),
        image_seq_length=tokens,
        tie_word_embeddings=False,
    )
    square = {"height": side, "width": side}
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size=square),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(size=square),
        image_seq_length=tokens,
        chat_template=chat_template(f"{context}\n", f"{_NAMES['video_token']}\n"),
    )
    return Parts(InternVLForConditionalGeneration, config, processor)
