"""C2D, I3D and Slow, with or without non-local blocks, from pytorchvideo parts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from microg.models.har.backbones.pytorchvideo_builders import create_nonlocal, create_resnet
from microg.models.har.backbones.roi_head import ConvBoxClassifier

STAGES = 4
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
