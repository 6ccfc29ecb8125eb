"""Learning rate as a function of the fractional epoch, as PySlowFast sets it at every iteration."""

from __future__ import annotations

import math

from microg.models.har.training.settings import ScheduleSettings


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
