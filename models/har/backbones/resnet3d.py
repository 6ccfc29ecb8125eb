"""ResNets from pytorchvideo parts: C2D, I3D and Slow, with or without non-local blocks, and SlowFast."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from microg.models.har.backbones.pytorchvideo_builders import create_nonlocal, create_resnet, create_slowfast
from microg.models.har.backbones.roi_head import ConvBoxClassifier

SPATIAL_STRIDES = (1, 2, 2, 1)
DILATIONS = ((1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 2, 2))  # res5 keeps its resolution, dilated


def build_resnet(
    num_classes: int,
    scale: float,
    dropout: float,
    *,
    stem: int,
    temporal: Sequence[Sequence[int]],
    pool: bool,
    nonlocal_after: Sequence[Iterable[int]] = ((), (), (), ()),
) -> ConvBoxClassifier:
    """Return a ResNet-50 of stride 16 with 2048 channels (PySlowFast archs c2d, i3d, slow and their NLN variants).

    `stem` is the stem's temporal kernel, `temporal` those of each stage's blocks (repeated over the stage), `pool`
    halves time after res2, `nonlocal_after` lists the blocks of each stage that a non-local block follows.
    """
    trunk = create_resnet(
        model_depth=50,
        stem_conv_kernel_size=(stem, 7, 7),
        stage1_pool=nn.MaxPool3d if pool else None,
        stage_conv_a_kernel_size=tuple(conv_a_kernels(kernels) for kernels in temporal),
        stage_conv_b_dilation=DILATIONS,
        stage_spatial_h_stride=SPATIAL_STRIDES,
        stage_spatial_w_stride=SPATIAL_STRIDES,
        head=None,
    )
    stages = [block for block in trunk.blocks if hasattr(block, "res_blocks")]
    for stage, positions in zip(stages, nonlocal_after, strict=True):
        add_nonlocal(stage, positions, pool=(1, 2, 2), instantiation="softmax")
    return ConvBoxClassifier(trunk, 2048, num_classes, scale, dropout)


def conv_a_kernels(temporal: Iterable[int]) -> list[tuple[int, int, int]]:
    """Return the kernels of a stage's first convolutions from their temporal sizes."""
    return [(size, 1, 1) for size in temporal]


def add_nonlocal(stage: Any, positions: Iterable[int], *, pool: tuple[int, int, int], instantiation: str) -> None:
    """Put a non-local block behind the residual blocks at `positions` of a stage, in place."""
    for position in positions:
        block = stage.res_blocks[position]
        channels = block.branch2.conv_c.out_channels
        attention = create_nonlocal(
            dim_in=channels, dim_inner=channels // 2, pool_size=pool, instantiation=instantiation
        )
        nn.init.zeros_(attention.norm.weight)  # starts as identity, as the reference does
        stage.res_blocks[position] = nn.Sequential(OrderedDict(res=block, nln=attention))


ALPHA = 4  # fast frames per slow frame, in every published run
BETA = 8  # channels of the slow pathway per channel of the fast one
_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
_SLOW_KERNELS, _FAST_KERNELS = (1, 1, 3, 3), (3, 3, 3, 3)
_RES4 = 2


class SlowFastBoxClassifier(ConvBoxClassifier):
    """SlowFast: the clip is the fast pathway, every `alpha`-th of its frames or so the slow one.

    The published runs gave it 8 or 4 frames, hence 2 or 1 slow ones; the architecture was meant for 32. Any multiple
    of `alpha` works.
    """

    alpha = ALPHA

    def features(self, clips: Tensor) -> Tensor:
        """Return features (N, 2304, 1, h, w), slow then fast channels, of clips (N, 3, T, H, W)."""
        if clips.shape[2] % self.alpha:
            raise ValueError(f"SlowFast needs a multiple of {self.alpha} frames, not {clips.shape[2]}")
        index = slow_frame_indices(clips.shape[2], self.alpha).to(clips.device)
        return self.model([clips.index_select(2, index), clips])


def slow_frame_indices(frames: int, alpha: int = ALPHA) -> Tensor:
    """Return which of `frames` frames the slow pathway sees (int64): evenly spread, both ends included, rounded down.

    Source: PySlowFast `pack_pathway_output`.
    """
    return torch.linspace(0, frames - 1, frames // alpha).long()


def build_slowfast(
    num_classes: int,
    scale: float,
    dropout: float,
    *,
    depth: int = 50,
    alpha: int = ALPHA,
    fusion_kernel: int = 7,
    temporal_blocks: int | None = None,
    nonlocal_after: Iterable[int] = (),
) -> SlowFastBoxClassifier:
    """Return a SlowFast of stride 16 with 2304 channels.

    `temporal_blocks` limits how many blocks of res4 have temporal kernels (None: all); `nonlocal_after` lists the
    blocks of the slow pathway's res4 that a dot-product non-local block follows.
    """
    counts = _BLOCKS[depth]
    kernels = tuple(
        tuple(
            conv_a_kernels(
                size if stage != _RES4 or temporal_blocks is None or block < temporal_blocks else 1
                for block in range(counts[stage])
            )
            for stage, size in enumerate(sizes)
        )
        for sizes in (_SLOW_KERNELS, _FAST_KERNELS)
    )
    trunk = create_slowfast(
        slowfast_channel_reduction_ratio=(BETA,),
        slowfast_fusion_conv_kernel_size=(fusion_kernel, 1, 1),
        slowfast_fusion_conv_stride=(alpha, 1, 1),
        model_depth=depth,
        stage_conv_a_kernel_sizes=kernels,
        stage_conv_b_dilations=(DILATIONS, DILATIONS),
        stage_spatial_strides=(SPATIAL_STRIDES, SPATIAL_STRIDES),
        head=None,
        head_pool=nn.AdaptiveAvgPool3d,
        head_output_size=((1, None, None), (1, None, None)),
    )
    slow_res4 = trunk.blocks[1 + _RES4].multipathway_blocks[0]
    add_nonlocal(slow_res4, nonlocal_after, pool=(2, 2, 2), instantiation="dot_product")
    model = SlowFastBoxClassifier(trunk, 2048 + 2048 // BETA, num_classes, scale, dropout)
    model.alpha = alpha
    return model
