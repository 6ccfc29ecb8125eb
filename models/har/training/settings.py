"""Settings of training that decide the result; plain data, no torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from microg.config import Config


class ScheduleSettings(Config):
    """Learning rate by the (fractional) epoch.

    policy `steps`: `lr * relative[i]` from epoch `starts[i]` on. policy `cosine`: from `lr` to `end_lr` over all
    epochs, after the warm-up when `after_warmup`. During the first `warmup_epochs` the rate rises linearly from
    `warmup_start_lr` to what the policy says at their end.
    """

    policy: Literal["steps", "cosine"] = "steps"
    lr: float = Field(default=0.1, gt=0)
    starts: tuple[float, ...] = (0, 20, 30, 40)
    relative: tuple[float, ...] = (1, 0.1, 0.01, 0.001)
    end_lr: float = Field(default=0.0, ge=0)
    after_warmup: bool = False
    warmup_epochs: float = Field(default=5.0, ge=0)
    warmup_start_lr: float = Field(default=1.25e-4, ge=0)

    @model_validator(mode="after")
    def _check_steps(self) -> Self:
        if len(self.starts) != len(self.relative):
            raise ValueError(f"{len(self.starts)} starts and {len(self.relative)} relative rates: as many are needed")
        if not self.starts or self.starts[0] != 0 or list(self.starts) != sorted(set(self.starts)):
            raise ValueError("starts must rise, beginning with 0")
        return self


class OptimizerSettings(Config):
    """Optimizer; parameters of batch normalisation have `batch_norm_weight_decay`, all others `weight_decay`."""

    name: Literal["sgd", "adamw"] = "sgd"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = True
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=1e-7, ge=0)
    batch_norm_weight_decay: float = Field(default=0.0, ge=0)
    clip_grad_norm: float | None = Field(default=None, gt=0)


class StepSettings(Config):
    """How one step is computed.

    precision: what matrix products are computed in while training (weights stay float32; float16 scales the loss).
    sync_batch_norm: statistics over all workers. channels_last and compile change speed, and sums in their last bits.
    """

    volatile = frozenset({"channels_last", "compile"})
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    sync_batch_norm: bool = False
    channels_last: bool = False
    compile: bool = False
