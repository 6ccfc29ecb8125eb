"""Video-LLaVA: one CLIP for images, one for the frames of videos, a Llama behind; vLLM does not have it.

As the released checkpoint, the processor has no chat template: the model's card has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from microg.demo.tiny_models.save import Parts, clip_encoder, language_model
from microg.demo.tiny_models.size import Size
from microg.demo.tiny_models.tokenizer import train

_IMAGE, _VIDEO = "<image>", "<video>"
_PATCH = 14


def make(texts: Sequence[str], size: Size, phrases: Sequence[str] = ()) -> Parts:
    """Return the parts of a tiny Video-LLaVA; a frame is (side / 14)^2 + 1 tokens."""
    from transformers import (
        VideoLlavaConfig,
        VideoLlavaForConditionalGeneration,
        VideoLlavaImageProcessor,
        VideoLlavaProcessor,
        VideoLlavaVideoProcessor,
    )

    tokenizer = train(texts, [_IMAGE, _VIDEO], size.vocabulary, size.context, phrases=phrases)
    image, video = tokenizer.convert_tokens_to_ids([_IMAGE, _VIDEO])
    side, patches = size.side, (size.side // _PATCH) ** 2
    config = VideoLlavaConfig(
        text_config=language_model("llama", tokenizer, size),
        vision_config=clip_encoder(size, _PATCH),
        image_token_index=image,
        video_token_index=video,
        image_seq_length=patches,
        video_seq_length=8 * (patches + 1),
        tie_word_embeddings=False,
    )
    resize: dict[str, Any] = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    processor = VideoLlavaProcessor(
        image_processor=VideoLlavaImageProcessor(**resize),
        video_processor=VideoLlavaVideoProcessor(**resize),
        tokenizer=tokenizer,
        patch_size=_PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return Parts(VideoLlavaForConditionalGeneration, config, processor)
