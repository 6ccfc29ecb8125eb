"""What all models share: features of a clip, pooled over time, RoIAlign per box, and a linear classifier."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torchvision.ops import RoIAlign

from microg.models.har.backbones.pytorchvideo_builders import create_roi_head
from microg.models.har.backbones.spec import BackboneSpec, RoiScale

RESOLUTION = 7


class BoxClassifier(nn.Module):
    """A model that gives one vector of logits per box.

    Subclasses give `features`; `spec` and `roi_scale` say what was built. Any number of frames and any image size that
    the trunk can stride over works; the published geometry is in `spec`.
    """

    spec: BackboneSpec
    roi_scale: RoiScale

    def __init__(self, channels: int, num_classes: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.detection_head = create_roi_head(
            in_features=channels,
            out_features=num_classes,
            resolution=(RESOLUTION, RESOLUTION),
            spatial_scale=scale,
            sampling_ratio=0,
            roi=partial(RoIAlign, aligned=True),
            pool=nn.AdaptiveAvgPool3d,
            output_size=(1, None, None),
            dropout_rate=dropout,
            activation=None,
            output_with_global_average=False,
        )
        nn.init.normal_(self.detection_head.proj.weight, std=0.01)
        nn.init.zeros_(self.detection_head.proj.bias)

    def features(self, clips: Tensor) -> Tensor:
        """Return features (N, C, T', h, w) of clips (N, 3, T, H, W)."""
        raise NotImplementedError

    def forward(self, clips: Tensor, boxes: Tensor) -> Tensor:
        """Return logits (M, num_classes), one row per box, no activation.

        `clips` (N, 3, T, H, W) is RGB, normalised by mean 0.45 and deviation 0.225 of values in 0..1. `boxes` (M, 5)
        holds batch index, x1, y1, x2, y2 in pixels of that input, as floats; M may be 0, also in training: every
        parameter then gets a gradient of zeros, so that distributed training does not wait for it.
        Batch indices must lie in 0..N-1: they are not checked here, because that would stall a GPU.
        """
        self.check_input(clips, boxes)
        # The head of pytorchvideo ends in a reshape that fails for no boxes: it is switched off in favour of flatten.
        return self.detection_head(self.features(clips), boxes).flatten(1)

    @staticmethod
    def check_input(clips: Tensor, boxes: Tensor) -> None:
        """Raise `ValueError` for shapes that no model takes."""
        if clips.dim() != 5 or clips.shape[1] != 3:
            raise ValueError(f"clips must be (N, 3, T, H, W), not {tuple(clips.shape)}")
        if boxes.dim() != 2 or boxes.shape[1] != 5:
            raise ValueError(f"boxes must be (M, 5): batch index, x1, y1, x2, y2; not {tuple(boxes.shape)}")


class ConvBoxClassifier(BoxClassifier):
    """A `BoxClassifier` whose trunk is a plain sequence of blocks (pytorchvideo's `Net`)."""

    def __init__(self, trunk: nn.Module, channels: int, num_classes: int, scale: float, dropout: float) -> None:
        super().__init__(channels, num_classes, scale, dropout)
        self.model = trunk

    def features(self, clips: Tensor) -> Tensor:
        """Return features (N, C, T', h, w) of clips (N, 3, T, H, W)."""
        return self.model(clips)


MEAN, DEVIATION = 0.45, 0.225


def normalise(clips: torch.Tensor) -> torch.Tensor:
    """Return (x / 255 - 0.45) / 0.225 as contiguous float32, computed where `clips` (N, 3, T, H, W) uint8 are.

    Move clips to their device as bytes: that is a quarter of the traffic.
    """
    return clips.contiguous().float().div_(255).sub_(MEAN).div_(DEVIATION)
