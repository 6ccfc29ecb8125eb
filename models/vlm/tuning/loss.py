"""The loss of answers: what the model has to say after each token, and nothing else of the sequence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from microg.models.vlm.tuning.examples import ClipExample


def base_of(model: Any) -> Any:
    """Return the model of transformers inside one with adapters, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


class AnswerLoss(nn.Module):
    """A model of transformers with the cross-entropy of its answers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, example: ClipExample) -> Tensor:
        """Return the sum of the cross-entropy, in nats, over the answer tokens of one clip."""
        row = example.row
        targets = torch.from_numpy(row.targets).to(self.device)
        return nn.functional.cross_entropy(self.logits(example).float(), targets, reduction="sum")

    def logits(self, example: ClipExample) -> Tensor:
        """Return the logits (answer tokens, vocabulary) before each answer token of one clip."""
        row, device = example.row, self.device
        base = base_of(self.model)
        positions = torch.from_numpy(row.positions).to(device)
        kind = base.dtype
        hidden = base.model(
            input_ids=torch.from_numpy(row.tokens)[None].to(device),
            attention_mask=_additive(torch.from_numpy(row.visible).to(device), kind),
            position_ids=positions[:, None] if example.spatial else positions[:1],
            use_cache=False,
            **{name: _moved(value, device, kind) for name, value in example.visual.items()},
        ).last_hidden_state
        return base.lm_head(hidden[0, torch.from_numpy(row.sources).to(device)])

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.parameters()).device


def _additive(visible: Tensor, kind: torch.dtype) -> Tensor:
    """Return a mask (1, 1, n, n) to add to attention: 0 where a token sees another, else the lowest number."""
    mask = torch.zeros(visible.shape, dtype=kind, device=visible.device)
    return mask.masked_fill(~visible, torch.finfo(kind).min)[None, None]


def _moved(value: Any, device: torch.device, kind: torch.dtype) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.to(device, dtype=kind if value.is_floating_point() else None)
