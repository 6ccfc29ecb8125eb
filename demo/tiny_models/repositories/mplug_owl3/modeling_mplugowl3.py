"""mPLUG-Owl3: SigLIP, one linear layer, and a Qwen2 that looks at pictures. A stand-in that MicroG-Bench wrote.

Classes, settings and weights are called as those of mPLUG/mPLUG-Owl3-7B-240728; none of its code is here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.models.siglip.modeling_siglip import (
    SiglipVisionTransformer,
)

from .configuration_mplugowl3 import mPLUGOwl3Config
from .image_processing_mplugowl3 import mPLUGOwl3ImageProcessor
from .modeling_hyper_qwen2 import HyperQwen2ForCausalLM, HyperQwen2PreTrainedModel
from .processing_mplugowl3 import mPLUGOwl3Processor


class mPLUGOwl3Model(HyperQwen2PreTrainedModel):
    """The whole model; it has no `post_init`, as the published one."""

    config_class = mPLUGOwl3Config
    terminators = ("<|im_end|>", "<|endoftext|>")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.language_model = HyperQwen2ForCausalLM(config)
        self.vision_model = SiglipVisionTransformer(config.vision_config)
        self.vision2text_model = nn.Linear(config.vision_config.hidden_size, config.hidden_size)

    def init_processor(self, tokenizer: Any) -> mPLUGOwl3Processor:
        """Return the processor, which the repository has no file for."""
        return mPLUGOwl3Processor(mPLUGOwl3ImageProcessor(self.config.image_size), tokenizer)

    def forward_image(self, pixel_values: torch.Tensor | None) -> torch.Tensor | None:
        """Return (pictures, patches, hidden): the second last layer's output, projected."""
        if pixel_values is None:
            return None
        states = self.vision_model(pixel_values.to(self.dtype), output_hidden_states=True).hidden_states
        return self.vision2text_model(states[-2])

    def forward(self, pixel_values: torch.Tensor | None = None, **inputs: Any) -> Any:
        return self.language_model(image_embeds=self.forward_image(pixel_values), **inputs)

    @torch.inference_mode()
    def generate(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        media_offset: Any = None,
        attention_mask: Any = None,
        tokenizer: Any = None,
        decode_text: bool = False,
        **options: Any,
    ) -> Any:
        """Return the answer's tokens, or its text."""
        ends = [tokenizer.convert_tokens_to_ids(text) for text in self.terminators]
        ids = self.language_model.generate(
            input_ids=input_ids,
            image_embeds=self.forward_image(pixel_values),
            media_offset=media_offset,
            attention_mask=attention_mask,
            pad_token_id=0,
            eos_token_id=ends,
            **options,
        )[:, input_ids.shape[1] :]
        if not decode_text:
            return ids
        kept = [[token for token in row if token] for row in ids.tolist()]
        return [tokenizer.decode(row[:-1] if row and row[-1] in ends else row).strip() for row in kept]
