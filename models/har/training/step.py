"""One optimizer step over one or more micro-batches: autocast, loss, backward, accumulation, clipping, checks."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from microg.errors import TrainingError
from microg.models.har.training.settings import OptimizerSettings, StepSettings

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class StepResult:
    """What a step added up.

    Attributes:
        loss_sum: The loss, summed over boxes x classes.
        cells: Boxes x classes.
        boxes: Boxes.
        norm: Of the gradient before clipping, a scalar on the device; None where nothing is clipped.
    """

    loss_sum: float
    cells: int
    boxes: int
    norm: torch.Tensor | None


@dataclass(frozen=True)
class _Seen:
    """A micro-batch whose loss is still on the device."""

    loss: torch.Tensor
    logits: torch.Tensor
    boxes: torch.Tensor
    sample_ids: Sequence[str]


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
    the reference has GPUs, its gradient. `model` may be wrapped for data-parallel training. The device is waited for
    once a step.
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
        self._seen: list[_Seen] = []
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
    ) -> None:
        """Add one micro-batch's gradient, weighted by `share`; `last` says that the step follows.

        clips (N, 3, T, H, W) normalised float32, boxes (M, 5), labels (M, C).
        """
        with contextlib.ExitStack() as stack:
            if not last and hasattr(self.model, "no_sync"):
                stack.enter_context(self.model.no_sync())  # pyright: ignore[reportCallIssue]
            with torch.autocast(self.device.type, self._dtype, enabled=self._dtype is not torch.float32):
                logits = self.model(clips, boxes)
            loss = box_loss(logits, labels)
            self._seen.append(_Seen(loss.detach(), logits.detach(), boxes, sample_ids))
            self.scaler.scale(loss * share).backward()

    def step(self) -> StepResult:
        """Apply the gradients of the micro-batches since the last step.

        Raises `TrainingError` naming the samples when a loss is not finite: no weight has been changed by then.
        """
        seen, self._seen = self._seen, []
        losses = torch.stack([one.loss for one in seen]).tolist()
        for one, loss in zip(seen, losses, strict=True):
            if not math.isfinite(loss):
                self.optimizer.zero_grad(set_to_none=True)
                raise TrainingError(*_not_finite(one.logits, one.boxes, one.sample_ids))
        norm = None
        if self._clip is not None:
            self.scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        cells = [one.logits.numel() for one in seen]
        loss_sum = sum(loss * count for loss, count in zip(losses, cells, strict=True))
        return StepResult(loss_sum, sum(cells), sum(len(one.logits) for one in seen), norm)

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
