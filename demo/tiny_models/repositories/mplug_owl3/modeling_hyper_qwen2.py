"""A Qwen2 of which some layers also look at pictures, as transformers 4.4x had its models: caches know `seen_tokens`.

Such a layer takes the output of its self-attention and that of an attention of the same queries to pictures, and mixes
them by a gate that each head sets for each token. Keys of a picture are turned by the position that the picture has in
the text, all of one picture alike. A token sees the pictures before it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel

from .configuration_hyper_qwen2 import HyperQwen2Config


class Qwen2RMSNorm(nn.Module):
    """Divides by the root mean square."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype)


class Qwen2RotaryEmbedding(nn.Module):
    """Angles of positions, kept in buffers that no file holds."""

    def __init__(self, dim: int, most: int, base: float) -> None:
        super().__init__()
        rates = 1.0 / base ** (torch.arange(0, dim, 2).float() / dim)
        angles = torch.outer(torch.arange(most).float(), rates).repeat(1, 2)
        self.register_buffer("cos_cached", angles.cos().to(torch.get_default_dtype()), persistent=False)
        self.register_buffer("sin_cached", angles.sin().to(torch.get_default_dtype()), persistent=False)
        self.register_buffer("angles", angles, persistent=False)


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * sin


class Qwen2MLP(nn.Module):
    """Two layers with a gate."""

    def __init__(self, config: HyperQwen2Config) -> None:
        super().__init__()
        hidden, wide = config.hidden_size, config.intermediate_size
        self.gate_proj = nn.Linear(hidden, wide, bias=False)
        self.up_proj = nn.Linear(hidden, wide, bias=False)
        self.down_proj = nn.Linear(wide, hidden, bias=False)
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


class HyperQwen2SdpaAttention(nn.Module):
    """Self-attention, mixed with an attention to pictures where the layer has one."""

    def __init__(self, config: Any, layer_idx: int, looks: bool) -> None:
        super().__init__()
        self.layer_idx, self.looks = layer_idx, looks
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.size = config.hidden_size // self.heads
        self.q_proj = nn.Linear(config.hidden_size, self.heads * self.size)
        self.k_proj = nn.Linear(config.hidden_size, self.kv_heads * self.size)
        self.v_proj = nn.Linear(config.hidden_size, self.kv_heads * self.size)
        self.o_proj = nn.Linear(self.heads * self.size, config.hidden_size, bias=False)
        self.rotary_emb = Qwen2RotaryEmbedding(self.size, config.max_position_embeddings, config.rope_theta)
        if looks:
            self.v_kv_proj = nn.Linear(config.hidden_size, 2 * self.kv_heads * self.size)
            self.gate_proj = nn.Sequential(nn.Linear(self.size, self.size), nn.Sigmoid())
            self.places: torch.Tensor | None = None

    def forward(
        self,
        x: torch.Tensor,
        mask: torch.Tensor,
        position_ids: torch.Tensor,
        image_embeds: torch.Tensor | None,
        media_offset: torch.Tensor | None,
        past_key_value: Any,
    ) -> torch.Tensor:
        rows, length, _ = x.shape
        split = [
            (self.q_proj, self.heads),
            (self.k_proj, self.kv_heads),
            (self.v_proj, self.kv_heads),
        ]
        query, key, value = (layer(x).view(rows, length, heads, self.size).transpose(1, 2) for layer, heads in split)
        cos, sin = (
            cached[position_ids][:, None].to(x.dtype)
            for cached in (self.rotary_emb.cos_cached, self.rotary_emb.sin_cached)
        )
        query, key = _turned(query, cos, sin), _turned(key, cos, sin)
        if past_key_value is not None:
            key, value = past_key_value.update(key, value, self.layer_idx)
        said = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
        if image_embeds is not None and media_offset is not None:
            said = self._with_pictures(said, query, image_embeds, media_offset)
        return self.o_proj(said.transpose(1, 2).reshape(rows, length, -1))

    def _with_pictures(
        self, said: torch.Tensor, query: torch.Tensor, image_embeds: torch.Tensor, media_offset: torch.Tensor
    ) -> torch.Tensor:
        """Return `said`, (1, heads, tokens, size), with what the pictures, (pictures, patches, hidden), add to it."""
        length, (pictures, patches, _) = query.shape[2], image_embeds.shape
        seen = media_offset[0, :, 1]
        if length > 1:  # the whole prompt; later tokens see all pictures
            self.places = (seen[1:] - seen[:-1]).nonzero().squeeze(1) + 1
        kv = self.v_kv_proj(image_embeds).view(pictures * patches, self.kv_heads, 2, self.size)
        key, value = kv.permute(2, 1, 0, 3)[:, None]
        angles = self.rotary_emb.angles[self.places].repeat_interleave(patches, dim=0)
        key = _turned(key.float(), angles.cos(), angles.sin()).to(query.dtype)
        first = int((seen > 0).nonzero()[0]) if length > 1 else 0
        mask = None
        if length > 1:
            before = seen[first:, None] > torch.arange(pictures, device=seen.device)[None]
            mask = before.repeat_interleave(patches, dim=1)[None, None]
        looked = F.scaled_dot_product_attention(query[:, :, first:], key, value, attn_mask=mask, enable_gqa=True)
        gate = self.gate_proj(said[:, :, first:])
        mixed = said[:, :, first:] * (1 - gate) + looked * gate
        return torch.cat([said[:, :, :first], mixed], dim=2)


class HyperQwen2DecoderLayer(nn.Module):
    """Attention and MLP; pictures pass the same norm as the text."""

    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__()
        self.looks = layer_idx + 1 in config.hyper_layers
        self.self_attn = HyperQwen2SdpaAttention(config, layer_idx, self.looks)
        self.mlp = Qwen2MLP(config)
        self.input_layernorm = Qwen2RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = Qwen2RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: torch.Tensor, image_embeds: torch.Tensor | None, **more: Any) -> torch.Tensor:
        looked_at = self.input_layernorm(image_embeds) if self.looks and image_embeds is not None else None
        x = x + self.self_attn(self.input_layernorm(x), image_embeds=looked_at, **more)
        return x + self.mlp(self.post_attention_layernorm(x))


class HyperQwen2PreTrainedModel(PreTrainedModel):
    """What both classes below share."""

    config_class = HyperQwen2Config
    base_model_prefix = "model"
    _supports_sdpa = True


class HyperQwen2Model(HyperQwen2PreTrainedModel):
    """The layers."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.layers = nn.ModuleList(HyperQwen2DecoderLayer(config, at) for at in range(config.num_hidden_layers))
        self.norm = Qwen2RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        image_embeds: torch.Tensor | None = None,
        media_offset: torch.Tensor | None = None,
        use_cache: bool | None = None,
    ) -> BaseModelOutputWithPast:
        length = input_ids.shape[1]
        before = past_key_values.get_usable_length(length) if use_cache else 0
        at = torch.arange(before, before + length, device=input_ids.device)
        mask = at[:, None] >= torch.arange(before + length, device=input_ids.device)[None]
        if attention_mask is not None:
            mask = mask & attention_mask[:, None, None, :].bool()
        x = self.embed_tokens(input_ids)
        for layer in self.layers:
            x = layer(
                x,
                image_embeds,
                mask=mask,
                position_ids=at[None] if position_ids is None else position_ids,
                media_offset=media_offset,
                past_key_value=past_key_values if use_cache else None,
            )
        return BaseModelOutputWithPast(last_hidden_state=self.norm(x), past_key_values=past_key_values)


class HyperQwen2ForCausalLM(HyperQwen2PreTrainedModel):
    """The layers and what says tokens."""

    _tied_weights_keys = ("lm_head.weight",)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = HyperQwen2Model(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> Any:
        return self.model.embed_tokens

    def get_output_embeddings(self) -> Any:
        return self.lm_head

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: Any = None,
        image_embeds: Any = None,
        media_offset: Any = None,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
    ) -> CausalLMOutputWithPast:
        hidden = self.model(
            input_ids, attention_mask, position_ids, past_key_values, image_embeds, media_offset, use_cache
        )
        logits: Any = self.lm_head(hidden.last_hidden_state).float()
        return CausalLMOutputWithPast(logits=logits, past_key_values=hidden.past_key_values)

    def prepare_inputs_for_generation(
        self,
        input_ids: Any,
        past_key_values: Any = None,
        attention_mask: Any = None,
        inputs_embeds: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        if isinstance(past_key_values, Cache):
            cached: Any = past_key_values
            input_ids = input_ids[:, cached.seen_tokens :]
            if (most := cached.get_max_length()) is not None:
                attention_mask = attention_mask[:, -most:]
        position_ids = kwargs.get("position_ids")
        if position_ids is None and attention_mask is not None:
            position_ids = (attention_mask.long().cumsum(-1) - 1)[:, -input_ids.shape[1] :]
        return {
            "input_ids": input_ids,
            "position_ids": position_ids,
            "past_key_values": past_key_values,
            "use_cache": kwargs.get("use_cache"),
            "attention_mask": attention_mask,
            "image_embeds": kwargs.get("image_embeds"),
            "media_offset": kwargs.get("media_offset"),
        }
