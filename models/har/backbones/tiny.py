"""A model small enough to learn on two CPU cores in minutes.

Each person is cut out first, because most pixels of a clip show nobody, and the first convolution spans all frames, so
that the rest costs what one picture does. Depthwise 3D convolutions, of which X3D is made, run at a quarter of the
speed of dense ones on a CPU. The head is that of all models, and sees the features of one person's square at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from microg.models.har.backbones.roi_head import ConvBoxClassifier

SIDE = 64  # pixels of a person's square, after scaling
_CONTEXT = 1.2  # side of the square per long side of the box: what hands hold is often outside
_ABSENT = -3.0  # first logit of every action, because most are absent: else the first epochs learn only that
_JITTER = 0.15  # in training, squares grow or shrink by up to this share, and move by up to a tenth of their side


class TinyBoxClassifier(ConvBoxClassifier):
    """Logits from a square of `SIDE` pixels around each box; the RoI head then pools the features of that square.

    In evaluation they do not change when a clip is turned by 90 degrees.
    """

    def forward(self, clips: Tensor, boxes: Tensor) -> Tensor:
        """Return logits (M, num_classes); shapes as for every model."""
        self.check_input(clips, boxes)
        if not len(boxes):
            # Batch normalisation takes no empty batch: something real passes through, and counts for nothing.
            whole = boxes.new_tensor([[0, 0, 0, clips.shape[-1], clips.shape[-2]]])
            return super().forward(*cut_out(clips, whole))[:0]
        squares, whole = cut_out(clips, boxes, jitter=_JITTER if self.training else 0.0)
        if self.training:
            return super().forward(turned(squares), whole)
        # In weightlessness no direction is up: what is said of somebody is the mean over four ways to look.
        logits = super().forward(squares, whole)
        for turn in (1, 2, 3):
            logits = logits + super().forward(torch.rot90(squares, turn, (-2, -1)), whole)
        return logits / 4


def cut_out(clips: Tensor, boxes: Tensor, *, jitter: float = 0.0, side: int = SIDE) -> tuple[Tensor, Tensor]:
    """Return the squares around boxes (M, 3, T, side, side), and each one's own box (M, 5): all of it.

    A square reaches beyond the longer side of its box by a fifth; outside the frame it is zero, the mean colour.
    `jitter` draws size and place anew by torch's generator.
    """
    count, channels, frames, height, width = clips.shape
    centre, half = (boxes[:, 1:3] + boxes[:, 3:]) / 2, (boxes[:, 3:] - boxes[:, 1:3]) / 2
    reach = (half.amax(dim=1, keepdim=True) * _CONTEXT).clamp(min=1)
    if jitter:
        random = torch.rand(len(boxes), 3, device=boxes.device) * 2 - 1
        reach = reach * torch.exp(random[:, :1] * jitter)
        centre = centre + random[:, 1:] * reach * 0.2
    squares = torch.cat([boxes[:, :1], centre - reach, centre + reach], dim=1)
    images = clips.reshape(count, channels * frames, height, width)
    cut = roi_align(images, squares.to(images.dtype), side, spatial_scale=1.0, sampling_ratio=2, aligned=True)
    whole = torch.tensor([0.0, 0.0, side, side], device=boxes.device).expand(len(boxes), 4)
    numbers = torch.arange(len(boxes), device=boxes.device, dtype=whole.dtype)
    return cut.reshape(-1, channels, frames, side, side), torch.cat([numbers[:, None], whole], dim=1)


def turned(squares: Tensor) -> Tensor:
    """Return squares (M, C, T, side, side), each mirrored or not and turned by any multiple of 90 degrees.

    In weightlessness no direction is up.
    """
    draws = torch.randint(0, 8, (len(squares),)).tolist()
    mirrored = [square.flip(-1) if draw >= 4 else square for square, draw in zip(squares, draws, strict=True)]
    return torch.stack([torch.rot90(square, draw, (-2, -1)) for square, draw in zip(mirrored, draws, strict=True)])


class _Block(nn.Module):
    """Two spatial convolutions beside a shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(channels_in, channels, (1, 3, 3), stride)
        self.second = _convolution(channels, channels, (1, 3, 3), 1)
        self.shortcut: nn.Module = nn.Identity()
        if channels_in != channels or stride != 1:
            self.shortcut = _convolution(channels_in, channels, (1, 1, 1), stride)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        inner = self.second(self.activation(self.first(features)))
        return self.activation(inner + self.shortcut(features))


def build_tiny(
    num_classes: int, scale: float, dropout: float, *, frames: int = 4, width: int = 24
) -> TinyBoxClassifier:
    """Return the model: stride 8, `4 * width` channels, `width` after the first layer, which
    spans `frames` frames: a clip has at least as many."""
    trunk = nn.Sequential(
        _convolution(3, width, (frames, 3, 3), 2),
        nn.ReLU(inplace=True),
        _Block(width, 2 * width, 2),
        _Block(2 * width, 4 * width, 2),
        _Block(4 * width, 4 * width, 1),
    )
    model = TinyBoxClassifier(trunk, 4 * width, num_classes, scale, dropout)
    nn.init.constant_(model.detection_head.proj.bias, _ABSENT)
    return model


def _convolution(channels_in: int, channels: int, kernel: tuple[int, int, int], stride: int) -> nn.Sequential:
    """Return a convolution with batch normalisation, with stride and padding in space only."""
    _, height, width = kernel
    convolution = nn.Conv3d(
        channels_in, channels, kernel, (1, stride, stride), (0, height // 2, width // 2), bias=False
    )
    return nn.Sequential(convolution, nn.BatchNorm3d(channels))
