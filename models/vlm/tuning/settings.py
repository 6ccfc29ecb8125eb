"""Settings of fine-tuning that decide which parts of a model learn; plain data, no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from microg.config import Config

Method = Literal["lora", "qlora", "full"]


class AdapterSettings(Config):
    """Low-rank adapters, and which parts of the model learn."""

    rank: int = Field(default=16, ge=1, description="Rank of the adapters.")
    alpha: float = Field(default=32.0, gt=0, description="Scale of the adapters: alpha / rank times their product.")
    dropout: float = Field(default=0.05, ge=0, lt=1, description="Dropout before the adapters.")
    vision: bool = Field(
        default=False,
        description="Also tune the picture encoder; its adapters are merged before the model is served.",
    )
    projector: bool = Field(default=False, description="Also tune what joins picture encoder and language model.")
