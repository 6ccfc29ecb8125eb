"""Optimizers in the reference's form, with batch normalisation apart from everything else, and their learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from microg.models.har.training.settings import OptimizerSettings, ScheduleSettings


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


def set_learning_rate(groups: Iterable[dict[str, Any]], lr: float) -> None:
    """Set the rate of an optimizer's parameter groups."""
    for group in groups:
        group["lr"] = lr


def learning_rate(settings: ScheduleSettings, epoch: float, max_epochs: int) -> float:
    """Return the learning rate at `epoch` = finished epochs + iteration / iterations an epoch.

    >>> settings = ScheduleSettings(lr=0.1, warmup_epochs=5, warmup_start_lr=0.000125)
    >>> [round(learning_rate(settings, epoch, 40), 7) for epoch in (0, 2.5, 5, 20, 39.9)]
    [0.000125, 0.0500625, 0.1, 0.01, 0.001]
    """
    if epoch < settings.warmup_epochs:
        end = _after_warmup(settings, settings.warmup_epochs, max_epochs)
        rise = (end - settings.warmup_start_lr) / settings.warmup_epochs
        return settings.warmup_start_lr + epoch * rise
    return _after_warmup(settings, epoch, max_epochs)


def _after_warmup(settings: ScheduleSettings, epoch: float, max_epochs: int) -> float:
    if settings.policy == "steps":
        reached = sum(1 for start in settings.starts if start <= epoch)
        return settings.lr * settings.relative[reached - 1]
    offset = settings.warmup_epochs if settings.after_warmup else 0.0
    progress = min((epoch - offset) / max(max_epochs - offset, 1e-12), 1.0)
    return settings.end_lr + (settings.lr - settings.end_lr) * (math.cos(math.pi * progress) + 1.0) * 0.5
