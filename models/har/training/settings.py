"""Settings of training that decide the result; plain data, no torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from microg.config import Config


class ScheduleSettings(Config):
    """Learning rate by the (fractional) epoch."""

    policy: Literal["steps", "cosine"] = Field(
        default="steps", description="How the rate falls: by `relative` from epoch to epoch, or along a cosine."
    )
    lr: float = Field(default=0.1, gt=0, description="Base learning rate.")
    starts: tuple[float, ...] = Field(
        default=(0, 20, 30, 40), description="Policy steps: epochs from which each factor of `relative` holds."
    )
    relative: tuple[float, ...] = Field(
        default=(1, 0.1, 0.01, 0.001), description="Policy steps: factors of `lr`, as many as `starts`."
    )
    end_lr: float = Field(default=0.0, ge=0, description="Policy cosine: rate at the end.")
    after_warmup: bool = Field(
        default=False, description="Policy cosine: it begins after the warm-up instead of at epoch 0."
    )
    warmup_epochs: float = Field(default=5.0, ge=0, description="Epochs during which the rate rises linearly.")
    warmup_start_lr: float = Field(default=1.25e-4, ge=0, description="Rate at the beginning of the warm-up.")

    @model_validator(mode="after")
    def _check_steps(self) -> Self:
        if len(self.starts) != len(self.relative):
            raise ValueError(f"{len(self.starts)} starts and {len(self.relative)} relative rates: as many are needed")
        if not self.starts or self.starts[0] != 0 or list(self.starts) != sorted(set(self.starts)):
            raise ValueError("starts must rise, beginning with 0")
        return self


class OptimizerSettings(Config):
    """The optimizer and what it does to weights and gradients."""

    name: Literal["sgd", "adamw"] = Field(default="sgd", description="Kind of optimizer.")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum of sgd.")
    nesterov: bool = Field(default=True, description="Sgd takes Nesterov's momentum.")
    betas: tuple[float, float] = Field(default=(0.9, 0.999), description="Decay rates of adamw's two averages.")
    weight_decay: float = Field(
        default=1e-7, ge=0, description="Weight decay of all parameters but those of batch normalisation."
    )
    batch_norm_weight_decay: float = Field(
        default=0.0, ge=0, description="Weight decay of the parameters of batch normalisation."
    )
    clip_grad_norm: float | None = Field(
        default=None, gt=0, description="Largest norm of the gradient; without it gradients are not clipped."
    )


class StepSettings(Config):
    """How one step is computed."""

    volatile = frozenset({"channels_last", "compile"})
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32",
        description="Numbers of matrix products in training; weights stay float32, and float16 scales the loss.",
    )
    sync_batch_norm: bool = Field(
        default=False, description="Batch normalisation takes its statistics over all workers."
    )
    channels_last: bool = Field(
        default=False, description="Memory layout with channels last; it changes speed, and sums in their last bits."
    )
    compile: bool = Field(
        default=False, description="Compile the model with torch; it changes speed, and sums in their last bits."
    )
