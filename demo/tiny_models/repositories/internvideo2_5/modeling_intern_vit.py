"""The picture encoder: a ViT whose residual branches are scaled."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutput
from transformers.modeling_utils import PreTrainedModel

from .configuration_intern_vit import InternVisionConfig


class InternVisionEmbeddings(nn.Module):
    """Patches, a class token before them, and positions."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.side = config.image_size // config.patch_size
        self.class_embedding = nn.Parameter(torch.randn(1, 1, config.hidden_size))
        self.patch_embedding = nn.Conv2d(3, config.hidden_size, config.patch_size, config.patch_size)
        self.position_embedding = nn.Parameter(torch.randn(1, self.side**2 + 1, config.hidden_size))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        patches = self.patch_embedding(pixel_values)
        rows, _, height, width = patches.shape
        grid = self.position_embedding[:, 1:].float().reshape(1, self.side, self.side, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=(height, width), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
        places = torch.cat([self.position_embedding[:, :1], grid.to(patches.dtype)], dim=1)
        first = self.class_embedding.expand(rows, 1, -1).to(patches.dtype)
        return torch.cat([first, patches.flatten(2).transpose(1, 2)], dim=1) + places


class InternAttention(nn.Module):
    """Attention of all patches to all."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=config.qkv_bias)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, length, size = x.shape
        query, key, value = self.qkv(x).reshape(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        said = F.scaled_dot_product_attention(query, key, value)
        return self.proj(said.transpose(1, 2).reshape(rows, length, size))


class InternMLP(nn.Module):
    """Two layers."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.act = ACT2FN[config.hidden_act]
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(x)))


class InternVisionEncoderLayer(nn.Module):
    """Attention and MLP, scaled by `ls1` and `ls2`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        size, eps = config.hidden_size, config.layer_norm_eps
        self.attn, self.mlp = InternAttention(config), InternMLP(config)
        self.norm1, self.norm2 = nn.LayerNorm(size, eps=eps), nn.LayerNorm(size, eps=eps)
        self.ls1 = nn.Parameter(config.initializer_factor * torch.ones(size))
        self.ls2 = nn.Parameter(config.initializer_factor * torch.ones(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x)) * self.ls1
        return x + self.mlp(self.norm2(x)) * self.ls2


class InternVisionEncoder(nn.Module):
    """The layers."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(InternVisionEncoderLayer(config) for _ in range(config.num_hidden_layers))


class InternVisionModel(PreTrainedModel):
    """The encoder; it has no `post_init`, as the published one."""

    config_class = InternVisionConfig
    main_input_name = "pixel_values"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.embeddings = InternVisionEmbeddings(config)
        self.encoder = InternVisionEncoder(config)

    def forward(self, pixel_values: torch.Tensor) -> BaseModelOutput:
        x: Any = self.embeddings(pixel_values)
        for layer in self.encoder.layers:
            x = layer(x)
        return BaseModelOutput(last_hidden_state=x)
