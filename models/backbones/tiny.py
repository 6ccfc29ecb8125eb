"""A model small enough to learn on two CPU cores in minutes: residual blocks of (2+1)D convolutions.

Depthwise 3D convolutions, of which X3D is made, run at a quarter of the speed of dense ones on a CPU.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.backbones.roi_head import ConvBoxClassifier

_STEM = 16


class _Block(nn.Module):
    """A spatial, then a temporal convolution, beside a shortcut; strides are (time, space)."""

    def __init__(self, channels_in: int, channels: int, strides: tuple[int, int], dilation: int = 1) -> None:
        super().__init__()
        time, space = strides
        self.spatial = _convolution(channels_in, channels, (1, 3, 3), (1, space, space), dilation)
        self.temporal = _convolution(channels, channels, (3, 1, 1), (time, 1, 1))
        self.shortcut: nn.Module = nn.Identity()
        if channels_in != channels or strides != (1, 1):
            self.shortcut = _convolution(channels_in, channels, (1, 1, 1), (time, space, space))
        self.activation = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        inner = self.temporal(self.activation(self.spatial(features)))
        return self.activation(inner + self.shortcut(features))


def build_tiny(num_classes: int, scale: float, dropout: float, *, width: int = _STEM) -> ConvBoxClassifier:
    """Return the model: stride 8, `4 * width` channels, half the frames; `width` channels after the first layer."""
    trunk = nn.Sequential(
        _convolution(3, width, (1, 3, 3), (1, 2, 2)),
        nn.ReLU(inplace=True),
        _Block(width, 2 * width, (1, 2)),
        _Block(2 * width, 4 * width, (2, 2)),
        # features keep their stride and come to see a whole person
        _Block(4 * width, 4 * width, (1, 1), dilation=2),
        _Block(4 * width, 4 * width, (1, 1), dilation=4),
    )
    return ConvBoxClassifier(trunk, 4 * width, num_classes, scale, dropout)


def _convolution(
    channels_in: int, channels: int, kernel: tuple[int, int, int], stride: tuple[int, int, int], dilation: int = 1
) -> nn.Sequential:
    """Return a convolution with batch normalisation; `dilation` is that of space."""
    time, height, width = (size // 2 for size in kernel)
    convolution = nn.Conv3d(
        channels_in, channels, kernel, stride, (time, height * dilation, width * dilation),
        (1, dilation, dilation), bias=False,
    )  # fmt: skip
    return nn.Sequential(convolution, nn.BatchNorm3d(channels))
