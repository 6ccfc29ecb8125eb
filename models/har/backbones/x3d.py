"""X3D from pytorchvideo parts, without its own head: the RoI head sits on the last residual stage."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from pytorchvideo.models.net import Net
from pytorchvideo.models.resnet import ResBlock
from torch import nn

from microg.models.har.backbones.pytorchvideo_builders import create_x3d
from microg.models.har.backbones.roi_head import ConvBoxClassifier

_STAGES = 5  # the stem and four residual stages; the sixth block is the classification head


def build_x3d(
    num_classes: int,
    scale: float,
    dropout: float,
    *,
    depth_factor: float,
    width_factor: float = 2.0,
    bottleneck_factor: float = 2.25,
    spatial_strides: Sequence[int] = (2, 2, 2, 2),
) -> ConvBoxClassifier:
    """Return an X3D trunk with a RoI head; channels are 96 times `width_factor`, the stride twice the strides' product.

    The defaults are those of X3D-S to X3D-L, which differ in `depth_factor` only.
    """
    full = create_x3d(
        input_clip_length=16,  # this and the crop only size the classification head, which is dropped
        input_crop_size=224,
        width_factor=width_factor,
        depth_factor=depth_factor,
        bottleneck_factor=bottleneck_factor,
        stage_spatial_stride=tuple(spatial_strides),
    )
    for block in full.modules():
        if isinstance(block, ResBlock):
            _mend(block)
    channels = full.blocks[_STAGES - 1].res_blocks[-1].branch2.conv_c.out_channels
    trunk = Net(blocks=nn.ModuleList(full.blocks[:_STAGES]))
    return ConvBoxClassifier(trunk, channels, num_classes, scale, dropout)


def _mend(block: Any) -> None:
    """Make a residual block equal to the reference's, and picklable, in place."""
    block.branch_fusion = operator.add  # it was a lambda
    if block.branch1_conv is not None and block.branch1_norm is None:
        # pytorchvideo leaves this norm out where the channels stay the same.
        block.branch1_norm = nn.BatchNorm3d(block.branch1_conv.out_channels)
