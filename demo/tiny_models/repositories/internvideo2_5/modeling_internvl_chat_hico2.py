"""InternVideo2.5: InternViT, patches merged over four frames, an InternLM2.5. A stand-in that MicroG-Bench wrote.

Classes, settings and weights are called as those of OpenGVLab/InternVideo2_5_Chat_8B; none of its code is here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import PreTrainedModel

from .configuration_internvl_chat import InternVLChatConfig
from .conversation import get_conv_template
from .modeling_intern_vit import InternVisionModel
from .modeling_internlm2 import InternLM2ForCausalLM


def merge_once(x: torch.Tensor, sizes: torch.Tensor, alike: torch.Tensor, count: int) -> tuple[Any, Any]:
    """Return tokens (rows, n - count, channels) and their sizes: of the even tokens those that are most like an odd one
    join it. `alike` (rows, n, k) says by what they are compared.
    """
    alike = alike / alike.norm(dim=-1, keepdim=True)
    best, partner = (alike[:, ::2] @ alike[:, 1::2].transpose(1, 2)).max(-1)
    order = best.argsort(dim=-1, descending=True)[..., None]
    joining, staying = order[:, :count], order[:, count:]
    target = partner[..., None].gather(1, joining)

    def merged(value: torch.Tensor) -> torch.Tensor:
        even, odd = value[:, ::2], value[:, 1::2]
        wide = (-1, -1, value.shape[-1])
        odd = odd.scatter_add(1, target.expand(wide), even.gather(1, joining.expand(wide)))
        return torch.cat([even.gather(1, staying.expand(wide)), odd], dim=1)

    total = merged(sizes)
    return merged(x * sizes) / total, total


class InternVLChatModel(PreTrainedModel):
    """The whole model; it has no `post_init`, as the published one."""

    config_class = InternVLChatConfig
    main_input_name = "pixel_values"
    base_model_prefix = "language_model"
    local_num_frames, num_tome_tokens = 4, 64
    num_image_token = num_tome_tokens // local_num_frames

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.vision_model = InternVisionModel(config.vision_config)
        self.language_model = InternLM2ForCausalLM(config.llm_config)
        wide, hidden = config.vision_config.hidden_size * 4, config.llm_config.hidden_size
        self.mlp1 = nn.Sequential(nn.LayerNorm(wide), nn.Linear(wide, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.img_context_token_id: int | None = None
        self.conv_template = get_conv_template(config.template)
        self.system_message = self.conv_template.system_message

    def merge_tokens(self, x: torch.Tensor, target: int) -> torch.Tensor:
        """Return (rows, target, channels): halves, as often as it takes."""
        heads, sizes = self.config.llm_config.num_attention_heads, torch.ones_like(x[..., :1])
        while (count := min(x.shape[1] - target, x.shape[1] // 2)) > 0:
            alike = x.reshape(*x.shape[:2], heads, -1).mean(2)
            x, sizes = merge_once(x, sizes, alike, count)
        return x

    def extract_feature(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return (frames, 16, hidden); frames come in groups of four."""
        x: Any = self.vision_model(pixel_values).last_hidden_state[:, 1:]
        frames, side, size = len(x), int(x.shape[1] ** 0.5), x.shape[-1]
        # a square of four patches becomes one token
        x = x.view(frames, side // 2, 2, side // 2, 2, size).permute(0, 1, 3, 2, 4, 5)
        x = x.reshape(frames // self.local_num_frames, -1, 4 * size)
        x = self.merge_tokens(x, self.num_tome_tokens)
        return self.mlp1(x.reshape(frames, -1, x.shape[-1]))

    def chat(
        self,
        tokenizer: Any,
        pixel_values: torch.Tensor | None,
        question: str,
        generation_config: dict[str, Any],
        history: Any = None,
        return_history: bool = False,
        num_patches_list: Any = None,
    ) -> str:
        """Return an answer; each `<image>` stands for the tokens of one frame."""
        if pixel_values is not None and "<image>" not in question:
            question = f"<image>\n{question}"
        counts = num_patches_list or ([] if pixel_values is None else [len(pixel_values)])
        if (0 if pixel_values is None else len(pixel_values)) != sum(counts):
            raise AssertionError("as many pictures as num_patches_list says")
        self.img_context_token_id = tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
        template = get_conv_template(self.config.template)
        template.system_message = self.system_message
        template.append_message(template.roles[0], question)
        template.append_message(template.roles[1], None)
        query = template.get_prompt()
        for count in counts:
            seen = "<IMG_CONTEXT>" * self.num_image_token * count
            query = query.replace("<image>", f"<img>{seen}</img>", 1)
        told = tokenizer(query, return_tensors="pt")
        end = template.sep.strip()
        generation_config["eos_token_id"] = tokenizer.convert_tokens_to_ids(end)
        ids = self.generate(
            pixel_values=pixel_values,
            input_ids=told["input_ids"].to(self.device),
            attention_mask=told["attention_mask"].to(self.device),
            **generation_config,
        )
        return tokenizer.batch_decode(ids, skip_special_tokens=True)[0].split(end)[0].strip()

    @torch.no_grad()
    def generate(
        self, pixel_values: Any = None, input_ids: Any = None, attention_mask: Any = None, **options: Any
    ) -> torch.Tensor:
        """Return the answer's tokens: the prompt goes in as embeddings."""
        shown = self.language_model.get_input_embeddings()(input_ids)
        if pixel_values is not None:
            seen = self.extract_feature(pixel_values).flatten(0, 1)
            shown[input_ids == self.img_context_token_id] = seen.to(shown.dtype)
        return self.language_model.generate(
            inputs_embeds=shown, attention_mask=attention_mask, use_cache=True, **options
        )
