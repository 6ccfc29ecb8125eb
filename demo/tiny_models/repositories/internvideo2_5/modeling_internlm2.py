"""The language model, as transformers 4.4x had its models: keys and values are cached in tuples."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel

from .configuration_internlm2 import InternLM2Config


class InternLM2RMSNorm(nn.Module):
    """Divides by the root mean square."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype)


class InternLM2RotaryEmbedding(nn.Module):
    """Angles of positions, kept in buffers that no file holds."""

    def __init__(self, dim: int, most: int, base: float) -> None:
        super().__init__()
        rates = 1.0 / base ** (torch.arange(0, dim, 2).float() / dim)
        angles = torch.outer(torch.arange(most).float(), rates).repeat(1, 2)
        self.register_buffer("cos_cached", angles.cos().to(torch.get_default_dtype()), persistent=False)
        self.register_buffer("sin_cached", angles.sin().to(torch.get_default_dtype()), persistent=False)


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * sin


class InternLM2Attention(nn.Module):
    """Attention whose queries, keys and values are one matrix: of each key's head its queries, itself, its value."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.size = config.hidden_size // self.heads
        width = (self.heads + 2 * self.kv_heads) * self.size
        self.wqkv = nn.Linear(config.hidden_size, width, bias=config.bias)
        self.wo = nn.Linear(self.heads * self.size, config.hidden_size, bias=config.bias)
        self.rotary_emb = InternLM2RotaryEmbedding(self.size, config.max_position_embeddings, config.rope_theta)

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor, position_ids: torch.Tensor, past: Any
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        rows, length, _ = x.shape
        parts = self.wqkv(x).view(rows, length, self.kv_heads, -1, self.size)
        query = parts[..., :-2, :].reshape(rows, length, self.heads, self.size).transpose(1, 2)
        key, value = (parts[..., at, :].transpose(1, 2) for at in (-2, -1))
        cos, sin = (
            cached[position_ids][:, None].to(x.dtype)
            for cached in (self.rotary_emb.cos_cached, self.rotary_emb.sin_cached)
        )
        query, key = _turned(query, cos, sin), _turned(key, cos, sin)
        if past is not None:
            key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        said = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
        return self.wo(said.transpose(1, 2).reshape(rows, length, -1)), (key, value)


class InternLM2MLP(nn.Module):
    """Two layers with a gate."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.w3 = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.w2 = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w2(self.act_fn(self.w1(x)) * self.w3(x))


class InternLM2DecoderLayer(nn.Module):
    """Attention and MLP."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.attention, self.feed_forward = InternLM2Attention(config), InternLM2MLP(config)
        self.attention_norm = InternLM2RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.ffn_norm = InternLM2RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: torch.Tensor, **more: Any) -> tuple[torch.Tensor, Any]:
        said, kept = self.attention(self.attention_norm(x), **more)
        x = x + said
        return x + self.feed_forward(self.ffn_norm(x)), kept


class InternLM2PreTrainedModel(PreTrainedModel):
    """What both classes below share."""

    config_class = InternLM2Config
    base_model_prefix = "model"


class InternLM2Model(InternLM2PreTrainedModel):
    """The layers."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.layers = nn.ModuleList(InternLM2DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = InternLM2RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_init()

    def forward(self, x: Any, attention_mask: Any, position_ids: Any, past: Any) -> BaseModelOutputWithPast:
        before = 0 if past is None else past[0][0].shape[2]
        at = torch.arange(before, before + x.shape[1], device=x.device)
        mask = at[:, None] >= torch.arange(before + x.shape[1], device=x.device)[None]
        if attention_mask is not None:
            mask = mask & attention_mask[:, None, None, :].bool()
        position_ids = at[None] if position_ids is None else position_ids
        kept: Any = ()
        for index, layer in enumerate(self.layers):
            x, keys_and_values = layer(
                x, mask=mask, position_ids=position_ids, past=None if past is None else past[index]
            )
            kept += (keys_and_values,)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(x), past_key_values=kept)


class InternLM2ForCausalLM(InternLM2PreTrainedModel):
    """The layers and what says tokens."""

    _tied_weights_keys = ("output.weight",)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = InternLM2Model(config)
        self.output = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> Any:
        return self.model.tok_embeddings

    def get_output_embeddings(self) -> Any:
        return self.output

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: Any = None,
        inputs_embeds: Any = None,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
    ) -> CausalLMOutputWithPast:
        x = self.model.tok_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        hidden = self.model(x, attention_mask, position_ids, past_key_values)
        logits: Any = self.output(hidden.last_hidden_state).float()
        return CausalLMOutputWithPast(logits=logits, past_key_values=hidden.past_key_values if use_cache else None)

    def prepare_inputs_for_generation(
        self,
        input_ids: Any,
        past_key_values: Any = None,
        attention_mask: Any = None,
        inputs_embeds: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        first = past_key_values is None
        if not first:
            cached = past_key_values[0][0].shape[2]
            input_ids = input_ids[:, cached if input_ids.shape[1] > cached else -1 :]
        position_ids = kwargs.get("position_ids")
        if position_ids is None and attention_mask is not None:
            position_ids = attention_mask.long().cumsum(-1) - 1
            position_ids = position_ids if first else position_ids[:, -input_ids.shape[1] :]
        shown = {"inputs_embeds": inputs_embeds} if first and inputs_embeds is not None else {"input_ids": input_ids}
        return {
            **shown,
            "position_ids": position_ids,
            "past_key_values": past_key_values,
            "use_cache": kwargs.get("use_cache"),
            "attention_mask": attention_mask,
        }
