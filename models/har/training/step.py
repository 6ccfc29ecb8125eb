"""One optimizer step over one or more micro-batches: autocast, loss, backward, accumulation, clipping, checks."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from microg.errors import TrainingError
from microg.models.har.training.settings import OptimizerSettings, StepSettings

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class StepLosses:
    """What a step added up: the sum over boxes x classes of the loss, and how many boxes there were."""

    loss_sum: float = 0.0
    boxes: int = 0


def box_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean binary cross-entropy over boxes x classes, logits and labels (M, C); without boxes a 0 that
    still has a gradient, so that every worker runs the same backward pass.
    """
    if not len(labels):
        return logits.sum() * 0.0
    return nn.functional.binary_cross_entropy_with_logits(logits.float(), labels.float())


class Stepper:
    """Runs the steps of one model on one device.

    The gradient of a step is the mean over its micro-batches of each one's mean loss: with as many micro-batches as
    the reference has GPUs, its gradient. `model` may be wrapped for data-parallel training.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        step: StepSettings,
        optimizer_settings: OptimizerSettings,
        device: torch.device,
    ) -> None:
        self.model, self.optimizer, self.device = model, optimizer, device
        self._dtype = _DTYPES[step.precision]
        self._clip = optimizer_settings.clip_grad_norm
        # float16 alone needs its loss scaled: bfloat16 has the range of float32
        self.scaler = torch.amp.GradScaler(device.type, enabled=step.precision == "float16")

    def forward_backward(
        self,
        clips: torch.Tensor,
        boxes: torch.Tensor,
        labels: torch.Tensor,
        sample_ids: Sequence[str],
        *,
        share: float,
        last: bool,
    ) -> StepLosses:
        """Add one micro-batch's gradient, weighted by `share`; `last` says that the step follows.

        clips (N, 3, T, H, W) normalised float32, boxes (M, 5), labels (M, C). Raises `TrainingError` naming the samples
        when the loss is not finite: nothing has been changed by then.
        """
        with contextlib.ExitStack() as stack:
            if not last and hasattr(self.model, "no_sync"):
                stack.enter_context(self.model.no_sync())  # pyright: ignore[reportCallIssue]
            with torch.autocast(self.device.type, self._dtype, enabled=self._dtype is not torch.float32):
                logits = self.model(clips, boxes)
            loss = box_loss(logits, labels)
            value = float(loss.detach())
            if not torch.isfinite(torch.tensor(value)):
                raise TrainingError(*_not_finite(logits.detach(), boxes, sample_ids))
            self.scaler.scale(loss * share).backward()
        return StepLosses(value * labels.numel(), len(labels))

    def step(self) -> float | None:
        """Apply the gradients; returns their norm before clipping, None where nothing is clipped."""
        norm = None
        if self._clip is not None:
            self.scaler.unscale_(self.optimizer)
            norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), self._clip))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def state(self) -> dict[str, Any]:
        """Return what must be kept beside the model to go on exactly."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])


def _not_finite(logits: torch.Tensor, boxes: torch.Tensor, sample_ids: Sequence[str]) -> tuple[str, str]:
    bad = ~torch.isfinite(logits).all(dim=1)
    clips = sorted({int(index) for index in boxes[bad, 0].tolist()}) if bad.any() else range(len(sample_ids))
    names = [sample_ids[index] for index in clips]
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return (
        f"the loss is not finite; samples: {shown}",
        "lower schedule.lr or lengthen its warm-up, use precision bfloat16 or float32, or look at these samples",
    )
