"""LLaVA-Video (Zhang et al., 2024) for transformers: LLaVA-OneVision with a newline token after every row of a frame.

Both shrink a frame's features to half the side; LLaVA-OneVision then ends the whole video with one newline token,
LLaVA-Video each row of each frame (its authors call that `grid`), and says itself how features are shrunk.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionModel,
    LlavaOnevisionProcessor,
)

Pooling = Literal["bilinear", "average", "max"]


class LlavaVideoConfig(LlavaOnevisionConfig):
    """LLaVA-OneVision's settings, and how a frame's features are shrunk."""

    model_type = "llava_video"
    spatial_pool_mode: str = "bilinear"


def pooled_side(side: int, mode: str) -> int:
    """Return how many rows of tokens are left of `side`."""
    return math.ceil(side / 2) if mode == "bilinear" else side // 2


class LlavaVideoModel(LlavaOnevisionModel):
    """The model without its output layer."""

    config_class = LlavaVideoConfig

    def apply_pooling(self, image_features: Tensor) -> Tensor:
        """Return (frames, rows * rows, hidden) of (frames, patches, hidden)."""
        vision: Any = self.config.vision_config
        side = vision.image_size // vision.patch_size
        grid = image_features.unflatten(1, (side, side)).permute(0, 3, 1, 2)
        mode = self.config.spatial_pool_mode
        rows = pooled_side(side, mode)
        if mode == "bilinear":
            grid = nn.functional.interpolate(grid, size=(rows, rows), mode="bilinear")
        else:
            grid = (nn.functional.avg_pool2d if mode == "average" else nn.functional.max_pool2d)(grid, 2)
        return grid.permute(0, 2, 3, 1).flatten(1, 2)

    def get_video_features(self, pixel_values_videos: Any, **kwargs: Any) -> Any:
        """Return LLaVA-OneVision's features with the newlines where LLaVA-Video has them."""
        clips, frames = pixel_values_videos.shape[:2]
        found: Any = super().get_video_features(pixel_values_videos, **kwargs)
        features = found.pooler_output[:, :-1]
        rows = math.isqrt(features.shape[1] // frames)
        grid = features.unflatten(1, (frames, rows, rows))
        newline = self.image_newline.to(grid).expand(clips, frames, rows, 1, -1)
        found.pooler_output = torch.cat([grid, newline], dim=3).flatten(1, 3)
        return found


class LlavaVideoForConditionalGeneration(LlavaOnevisionForConditionalGeneration):
    """The model."""

    config_class = LlavaVideoConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = LlavaVideoModel(config)
        self.post_init()


class LlavaVideoProcessor(LlavaOnevisionProcessor):
    """LLaVA-OneVision's, which counts a video's tokens as LLaVA-Video has them."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        video_processor: Any = None,
        num_image_tokens: int | None = None,
        vision_feature_select_strategy: str | None = None,
        chat_template: str | None = None,
        spatial_pool_mode: str = "bilinear",
        **kwargs: Any,
    ) -> None:
        self.spatial_pool_mode = spatial_pool_mode
        self.patches = num_image_tokens or 0
        parts = image_processor, tokenizer, video_processor, num_image_tokens, vision_feature_select_strategy
        super().__init__(*parts, chat_template, **kwargs)

    def replace_video_token(self, video_inputs: dict[str, Any], video_idx: int, **kwargs: Any) -> str:
        """Return the placeholders of one video."""
        frames = len(video_inputs["pixel_values_videos"][video_idx])
        rows = pooled_side(math.isqrt(self.patches), self.spatial_pool_mode)
        return self.video_token * (frames * rows * (rows + 1))


def register() -> None:
    """Let transformers' loaders find the classes."""
    AutoConfig.register(LlavaVideoConfig.model_type, LlavaVideoConfig, exist_ok=True)
    AutoModelForImageTextToText.register(LlavaVideoConfig, LlavaVideoForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(LlavaVideoConfig, LlavaVideoProcessor, exist_ok=True)
