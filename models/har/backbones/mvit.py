"""MViT version 1 and 2: torchvision's trunk, run on clips of any size, with a RoI head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention
from torchvision.models.video import mvit_v1_b, mvit_v2_s
from torchvision.models.video.mvit import MultiscaleAttention, PositionalEncoding

from microg.models.har.backbones.roi_head import BoxClassifier

CHANNELS = 768
DROP_PATH = 0.2
Grid = tuple[int, int, int]  # tokens along time, height, width


class MViTBoxClassifier(BoxClassifier):
    """An MViT trunk whose tokens, without the class token, are laid out as a feature map."""

    def __init__(self, trunk: Any, num_classes: int, scale: float, dropout: float) -> None:
        super().__init__(CHANNELS, num_classes, scale, dropout)
        self.trunk: Any = trunk

    def features(self, clips: Tensor) -> Tensor:
        """Return features (N, 768, T / 2, H / 32, W / 32), sizes rounded up, of clips (N, 3, T, H, W)."""
        patches = self.trunk.conv_proj(clips)
        grid: Grid = tuple(patches.shape[2:])  # type: ignore[assignment]
        tokens = with_positions(self.trunk.pos_encoding, patches.flatten(2).transpose(1, 2), grid)
        for block in self.trunk.blocks:
            tokens, grid = block(tokens, grid)
        tokens = self.trunk.norm(tokens)[:, 1:]
        return tokens.transpose(1, 2).unflatten(2, grid)


def with_positions(encoding: PositionalEncoding, patches: Tensor, grid: Grid) -> Tensor:
    """Return the class token and `patches` (N, T*H*W, C) as (N, 1 + T*H*W, C), with position embeddings if there are.

    The separable embeddings of version 1 are interpolated trilinearly to `grid`, as PySlowFast does; torchvision's
    own forward knows one grid only.
    """
    class_token = encoding.class_token.expand(patches.shape[0], 1, -1)
    tokens = torch.cat((class_token, patches), dim=1)
    if encoding.spatial_pos is None or encoding.temporal_pos is None or encoding.class_pos is None:
        return tokens
    positions = encoding.temporal_pos[:, None] + encoding.spatial_pos[None]
    trained = (encoding.temporal_size, *encoding.spatial_size)
    if grid != trained:
        volume = positions.reshape(1, *trained, -1).permute(0, 4, 1, 2, 3)
        positions = interpolate(volume, size=grid, mode="trilinear")[0].flatten(1).transpose(0, 1)
    else:
        positions = positions.flatten(0, 1)
    return tokens + torch.cat((encoding.class_pos[None], positions))


class Attention(MultiscaleAttention):
    """torchvision's attention with PySlowFast's rounding of relative positions, by fused kernels.

    torchvision computes the distances in another order, which rounds to other table entries at some image sizes
    (short sides of 337-344 pixels and others): logits then differ by tenths.
    """

    def forward(self, x: Tensor, thw: Grid) -> tuple[Tensor, Grid]:
        """Return attended tokens (N, 1 + T*H*W, C) and their grid; queries may be pooled, which shrinks it."""
        batch, tokens, _ = x.shape
        query, key, value = (
            self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).transpose(1, 3).unbind(dim=2)
        )
        key_grid = thw
        if self.pool_k is not None and self.pool_v is not None:
            key, key_grid = self.pool_k(key, thw)
            value = self.pool_v(value, thw)[0]
        if self.pool_q is not None:
            query, thw = self.pool_q(query, thw)
        bias = None
        if self.rel_pos_h is not None and self.rel_pos_w is not None and self.rel_pos_t is not None:
            tables = (self.rel_pos_t, self.rel_pos_h, self.rel_pos_w)
            bias = position_bias(query[:, :, 1:], thw, key_grid, tables)
            bias = nn.functional.pad(bias, (1, 0, 1, 0))  # nothing for the class token
        attended = scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=self.scaler)
        if self.residual_pool:  # the class token is left out of the residual
            attended = torch.cat((attended[:, :, :1], attended[:, :, 1:] + query[:, :, 1:]), dim=2)
        return self.project(attended.transpose(1, 2).reshape(batch, -1, self.output_dim)), thw


def position_bias(query: Tensor, query_grid: Grid, key_grid: Grid, tables: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Return what relative positions add to attention: (N, heads, queries, keys) for queries (N, heads, queries, C).

    `tables` hold one embedding per distance along time, height and width.
    """
    volume = query.unflatten(2, query_grid)
    parts = []
    for axis, (table, name) in enumerate(zip(tables, "thw", strict=True)):
        embeddings = _embeddings(table, query_grid[axis], key_grid[axis])
        parts.append(torch.einsum(f"bnthwc,{name}kc->bnthwk", volume, embeddings))
    time, height, width = parts
    bias = time[..., :, None, None] + height[..., None, :, None] + width[..., None, None, :]
    return bias.flatten(5).flatten(2, 4)


def _embeddings(table: Tensor, queries: int, keys: int) -> Tensor:
    """Return the embedding of each pair's distance along one axis, (queries, keys, C), the table resampled to fit."""
    needed = 2 * max(queries, keys) - 1
    if table.shape[0] != needed:
        table = interpolate(table.transpose(0, 1)[None], size=needed, mode="linear")[0].transpose(0, 1)
    # In this order and in float32: the rounding decides which entry is taken.
    query_step, key_step = max(keys / queries, 1.0), max(queries / keys, 1.0)
    distance = torch.arange(queries)[:, None] * query_step - torch.arange(keys)[None] * key_step
    distance += (keys - 1) * key_step
    return table[distance.long().to(table.device)]


def build_mvit(
    num_classes: int, scale: float, dropout: float, *, version: int, drop_path: float = DROP_PATH
) -> MViTBoxClassifier:
    """Return MViTv1-B or MViTv2-S, of stride 32 with 768 channels.

    LayerNorm's epsilon is 1e-6 (torchvision's default for these models, and the reference's).
    """
    trunk: Any = (mvit_v1_b if version == 1 else mvit_v2_s)(stochastic_depth_prob=drop_path)
    trunk.head = nn.Identity()
    for block in trunk.blocks:
        block.attn.__class__ = Attention  # same parameters, another forward
    return MViTBoxClassifier(trunk, num_classes, scale, dropout)
