"""Pictures as SigLIP takes them: one square each. Pictures that are cut into parts are not needed for videos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image


class mPLUGOwl3ImageProcessor:
    """Makes squares of `image_size` pixels with values from -1 to 1."""

    model_input_names = ("pixel_values",)

    def __init__(self, image_size: int = 384) -> None:
        self.image_size = image_size

    def __call__(self, images: Sequence[Any], cut_enable: bool = True, **_: Any) -> dict[str, torch.Tensor]:
        if cut_enable:
            raise NotImplementedError("this stand-in shows frames of videos, which are not cut")
        side = (self.image_size, self.image_size)
        squares = [np.asarray(image.resize(side, Image.Resampling.BICUBIC), np.float32) for image in images]
        pixels = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2) / 255
        return {"pixel_values": ((pixels - 0.5) / 0.5).contiguous()}
