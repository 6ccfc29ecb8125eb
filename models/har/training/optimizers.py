"""Optimizers in the reference's form: batch normalisation apart from everything else."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from microg.models.har.training.muon import Together
from microg.models.har.training.settings import OptimizerSettings


def parameter_groups(model: nn.Module, settings: OptimizerSettings) -> list[dict[str, Any]]:
    """Return the optimizer's parameter groups, batch normalisation in its own; frozen parameters are in none.

    Biases and layer normalisation decay like weights, as in the reference (ZERO_WD_1D_PARAM off).
    """
    normalised: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    seen: set[int] = set()
    for module in model.modules():
        # SyncBatchNorm shares this private base, and nothing public tells batch normalisation from the rest
        batch_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                (normalised if batch_norm else others).append(parameter)
    groups = [
        {"params": others, "weight_decay": settings.weight_decay},
        {"params": normalised, "weight_decay": settings.batch_norm_weight_decay},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(model: nn.Module, settings: OptimizerSettings, lr: float) -> torch.optim.Optimizer:
    """Build the optimizer of `model`; `lr` is replaced before each step, see `set_learning_rate`."""
    groups = parameter_groups(model, settings)
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=settings.betas)
    return torch.optim.SGD(
        groups, lr=lr, momentum=settings.momentum, nesterov=settings.nesterov and settings.momentum > 0
    )


def set_learning_rate(optimizer: torch.optim.Optimizer | Together, lr: float) -> None:
    """Set the rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr
