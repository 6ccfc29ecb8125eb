"""Muon: hidden matrices follow the nearest orthogonal matrix of their momentum, everything else follows AdamW.

Keller Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024). A step has the size that AdamW's
would have (Liu et al., "Muon is scalable for LLM training", 2025), so that one rate serves both. Small models learn to
see with it in a third of the steps. torch.optim.Muon computes in bfloat16, which takes a processor without such
instructions seven times as long, and one matrix at a time; here matrices of one shape go together, in float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

# Each step of the iteration maps a singular value s to a s + b s^3 + c s^5; together they take (0.002, 1] to about 1.
_STEPS = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
_RMS = 0.2  # of AdamW's updates


def orthogonalised(matrices: Tensor) -> Tensor:
    """Return about the nearest orthogonal matrices of (n, rows, columns), by Newton and Schulz's iteration."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    found = matrices.mT if tall else matrices
    found = found / (found.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for a, b, c in _STEPS:
        square = found @ found.mT
        found = torch.baddbmm(found, torch.baddbmm(square, square, square, beta=b, alpha=c), found, beta=a)
    return found.mT if tall else found


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay, for parameters of two dimensions or more.

    Further dimensions than the first count as columns. A group's `parts` says how many matrices are stacked in each of
    its parameters, such as 3 for joint queries, keys and values. The rate is `lr` times `factor`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        factor: float = 1.0,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        parts: int = 1,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "factor": factor, "momentum": momentum, "weight_decay": weight_decay, "parts": parts}
        )

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take one step; parameters without a gradient stay."""
        alike: dict[torch.Size, list[tuple[Tensor, Tensor, float]]] = {}
        for group in self.param_groups:
            rate = group["lr"] * group["factor"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient = parameter.grad.flatten(1)
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(gradient)
                state["momentum"].lerp_(gradient, 1 - group["momentum"])
                parameter.mul_(1 - rate * group["weight_decay"])
                update = gradient.lerp(state["momentum"], group["momentum"])
                pairs = zip(*(each.flatten(1).chunk(group["parts"]) for each in (parameter, update)), strict=True)
                for matrix, toward in pairs:
                    alike.setdefault(toward.shape, []).append((matrix, toward, rate))
        for shape, found in alike.items():
            turned = orthogonalised(torch.stack([toward for _, toward, _ in found]))
            for (matrix, _, rate), direction in zip(found, turned, strict=True):
                matrix.add_(direction, alpha=-rate * _RMS * max(shape) ** 0.5)


class JointOptimizer:
    """Optimizers of different parameters of one model, as one."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self._optimizers = tuple(optimizers)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all."""
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none)

    def step(self) -> None:
        """Take one step of each."""
        for optimizer in self._optimizers:
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of all."""
        return {"optimizers": [optimizer.state_dict() for optimizer in self._optimizers]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        for optimizer, kept in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
