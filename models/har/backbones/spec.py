"""What a model is made of and made for: its input geometry, its classes, and how boxes are scaled to its features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from microg.errors import ConfigError

RoiScale = Literal["published", "true"]
# As a setting: YAML reads the bare word as a boolean.
RoiScaleSetting = Annotated[RoiScale, BeforeValidator(lambda value: "true" if value is True else value)]
PUBLISHED_STRIDE = 16  # every published run divided boxes by 16, whatever its feature stride


@dataclass(frozen=True)
class BackboneSpec:
    """One configuration of a model: its input geometry, its classes and how it is built.

    `frames` is T, `sampling_rate` tau (one frame in tau is taken); sizes are pixels; `train_jitter` bounds the short
    side in training; `stride` is the true spatial stride of the features the RoI head sees; `params` counts parameters
    with `num_classes` classes. `builder` is `module:function`, called with the spec and `options` as keywords.
    """

    name: str
    title: str
    family: str
    frames: int
    sampling_rate: int
    params: int
    builder: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    train_crop: int = 224
    train_jitter: tuple[int, int] = (256, 320)
    test_short_side: int = 256
    num_classes: int = 50
    label_space: str = "microg50"
    stride: int = 16

    def roi_scale(self, kind: RoiScale) -> float:
        """Return what box coordinates are multiplied by: 1/16 as published, or one over the true stride."""
        if kind not in ("published", "true"):
            raise ConfigError(f"roi_scale {kind!r} is neither 'published' nor 'true'")
        return 1.0 / (PUBLISHED_STRIDE if kind == "published" else self.stride)
