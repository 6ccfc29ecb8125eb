"""The model over the workers: whole in each of them, or its parameters shared out among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from microg.models.vlm.tuning.adapters import load_trainable_state, trainable_state
from microg.models.vlm.tuning.loss import base_of

_BUCKET = 64 * 2**20  # elements of gradients that are summed in one call


def sum_over_workers(parameters: Sequence[nn.Parameter], world: int, share: float) -> None:
    """Replace gradients by their sum over all workers, times `share`; where there is none it is zero."""
    grads = []
    for value in parameters:
        if value.grad is None:
            value.grad = torch.zeros_like(value)
        grads.append(value.grad)
    if world > 1:
        bucket: list[torch.Tensor] = []
        for place, grad in enumerate(grads):
            bucket.append(grad)
            if sum(each.numel() for each in bucket) >= _BUCKET or place + 1 == len(grads):
                flat = torch.cat([each.flatten() for each in bucket])
                torch.distributed.all_reduce(flat)
                for each, part in zip(bucket, flat.split([each.numel() for each in bucket]), strict=True):
                    each.copy_(part.view_as(each))
                bucket = []
    for grad in grads:
        grad.mul_(share)


class Replicas:
    """Every worker holds the whole model; gradients are summed once a step, after all its clips.

    So a clip that cannot be used costs one worker nothing but that clip: nobody waits for its gradients.
    """

    sharded = False

    def __init__(self, model: Any, world: int) -> None:
        self.model, self._world = model, world
        self.parameters = [value for value in model.parameters() if value.requires_grad]

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.parameters[0].device

    def sum_gradients(self, share: float) -> None:
        """Let every worker have the sum of all gradients, times `share`."""
        sum_over_workers(self.parameters, self._world, share)

    def clip_gradients(self, most: float) -> None:
        """Scale the gradient down to a norm of at most `most`."""
        torch.nn.utils.clip_grad_norm_(self.parameters, most)

    def state(self) -> dict[str, torch.Tensor]:
        """Return the parameters that learn, whole, on the CPU."""
        return trainable_state(self.model)

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put parameters back."""
        load_trainable_state(self.model, state)

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return the optimizer's state, whole."""
        return optimizer.state_dict()

    def load_optimizer(self, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        """Put the optimizer's state back."""
        optimizer.load_state_dict(dict(state))


class Shards(Replicas):
    """Workers share out the layers of the language model and the picture encoder (torch's FSDP2), and hold the rest.

    All have to compute in step.
    """

    sharded = True

    def __init__(self, model: Any, world: int) -> None:
        from torch.distributed.fsdp import fully_shard

        base = base_of(model)
        names = set(base._no_split_modules or ())
        for parent in [module for module in base.modules() if isinstance(module, nn.ModuleList)]:
            for layer in parent:
                if type(layer).__name__ in names:
                    fully_shard(layer)
        super().__init__(model, world)

    def sum_gradients(self, share: float) -> None:
        """Let every worker have its part of the sum of all gradients, times `share`."""
        own = [value for value in self.parameters if isinstance(value, DTensor)]
        for value in own:  # sharding has made the mean over workers of these
            if value.grad is not None:
                value.grad.mul_(share * self._world)
        sum_over_workers([value for value in self.parameters if not isinstance(value, DTensor)], self._world, share)

    def clip_gradients(self, most: float) -> None:
        """Scale the gradient down to a norm of at most `most`."""
        grads = [value.grad for value in self.parameters if value.grad is not None]
        squares = [_whole(grad.float().square().sum()) for grad in grads]
        norm = torch.stack([square.to(self.device) for square in squares]).sum().sqrt()
        factor = float(torch.clamp(most / (norm + 1e-6), max=1.0))
        for grad in grads:
            grad.mul_(factor)

    def state(self) -> dict[str, torch.Tensor]:
        """Return the parameters that learn, whole, on the CPU; all workers have to call."""
        found = {}
        for name, value in self.model.named_parameters():
            if value.requires_grad:
                found[name] = _whole(value.detach()).cpu()
        return found

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put parameters back, each worker its part."""
        own = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(_part(state[name], value))

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return the optimizer's state, whole, on the CPU; all workers have to call."""
        return _mapped(optimizer.state_dict(), lambda value: _whole(value).cpu())

    def load_optimizer(self, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        """Put the optimizer's state back, each worker its part."""
        parameters = [value for group in optimizer.param_groups for value in group["params"]]
        spread = {
            number: {
                name: _part(value, own) if isinstance(value, torch.Tensor) and value.ndim else value
                for name, value in entries.items()
            }
            for (number, entries), own in zip(state["state"].items(), parameters, strict=True)
        }
        optimizer.load_state_dict({**state, "state": spread})


def _whole(value: torch.Tensor) -> torch.Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value


def _part(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return what this worker holds of a tensor that is spread as `like` is."""
    whole = whole.to(like.device)
    return distribute_tensor(whole, like.device_mesh, like.placements) if isinstance(like, DTensor) else whole


def _mapped(value: Any, change: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {name: _mapped(each, change) for name, each in value.items()}
    if isinstance(value, list):
        return [_mapped(each, change) for each in value]
    return value


def spread(model: nn.Module, world: int, sharding: str) -> Replicas:
    """Return the model over `world` workers: whole in each (none), or shared out (fsdp)."""
    return Shards(model, world) if sharding == "fsdp" else Replicas(model, world)
