from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from microg.demo.tiny_vlm.muon import JointOptimizer, Muon, orthogonalised


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 6, 20), (2, 20, 6)])
def test_an_update_keeps_directions_and_evens_singular_values(
    shape: tuple[int, int, int],
) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    turned = orthogonalised(matrices)
    values = torch.diagonal(left.mT @ turned @ right.mT, dim1=-2, dim2=-1)
    assert values.min() > 0.6
    assert values.max() < 1.3
    torch.testing.assert_close((left * values[:, None]) @ right, turned, atol=1e-4, rtol=0)


def test_stacked_matrices_take_the_steps_of_each_alone() -> None:
    generator = torch.Generator().manual_seed(1)
    parts = [nn.Parameter(torch.randn(4, 6, generator=generator)) for _ in range(3)]
    gradients = [torch.randn(4, 6, generator=generator) for _ in range(3)]
    joint = nn.Parameter(torch.cat([part.detach() for part in parts]).reshape(12, 2, 3).clone())
    joint.grad = torch.cat(gradients).reshape(12, 2, 3)
    for part, gradient in zip(parts, gradients, strict=True):
        part.grad = gradient
    before = parts[0].detach().clone()
    together = Muon([{"params": [joint], "parts": 3}], 0.1, factor=2.0, weight_decay=0.5)
    for optimizer in (together, *(Muon([part], 0.1, factor=2.0, weight_decay=0.5) for part in parts)):
        optimizer.step()
    torch.testing.assert_close(joint.detach().reshape(12, 6), torch.cat([part.detach() for part in parts]))
    # decay at rate times factor, then a step whose root mean square is AdamW's: 0.2 of the rate
    change = parts[0].detach() - before * (1 - 0.2 * 0.5)
    assert change.square().mean().sqrt() == pytest.approx(0.2 * 0.2, rel=0.2)
    assert (change * gradients[0]).sum() < 0


def test_parameters_without_a_gradient_stay_as_they_are() -> None:
    still = nn.Parameter(torch.ones(3, 3))
    Muon([still], 0.1, weight_decay=0.5).step()
    torch.testing.assert_close(still.detach(), torch.ones(3, 3))


def test_optimizers_go_on_from_their_state_to_the_same_bits() -> None:
    def make() -> tuple[nn.Linear, JointOptimizer]:
        torch.manual_seed(2)
        layer = nn.Linear(5, 4)
        return layer, JointOptimizer([torch.optim.AdamW([layer.bias], 0.01), Muon([layer.weight], 0.01)])

    def step(layer: nn.Linear, optimizer: JointOptimizer, seed: int) -> None:
        optimizer.zero_grad()
        layer(torch.randn(7, 5, generator=torch.Generator().manual_seed(seed))).square().mean().backward()
        optimizer.step()

    layer, optimizer = make()
    for seed in range(3):
        step(layer, optimizer, seed)
    weights, state = copy.deepcopy(layer.state_dict()), copy.deepcopy(optimizer.state_dict())
    step(layer, optimizer, 3)
    other, again = make()
    other.load_state_dict(weights)
    again.load_state_dict(state)
    step(other, again, 3)
    assert all(torch.equal(a, b) for a, b in zip(layer.parameters(), other.parameters(), strict=True))
    assert [group["lr"] for group in again.param_groups] == [0.01, 0.01]
