from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from microg.errors import TrainingError
from microg.models.har.training.optimizers import build_optimizer, parameter_groups, set_learning_rate
from microg.models.har.training.settings import OptimizerSettings, StepSettings
from microg.models.har.training.step import Stepper, box_loss

CPU = torch.device("cpu")


class TinyModel(nn.Module):
    """A linear layer on each box's clip mean; batch normalisation and a bias, so that all groups exist."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 1)
        self.norm = nn.BatchNorm3d(4)
        self.layer_norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)

    def forward(self, clips: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        features = self.norm(self.conv(clips)).mean(dim=(2, 3, 4))
        return self.head(self.layer_norm(features[boxes[:, 0].long()]))


def batch(seed: int, clips: int = 2, boxes: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[str]]:
    generator = torch.Generator().manual_seed(seed)
    index = torch.arange(boxes) % clips
    return (
        torch.randn(clips, 3, 2, 4, 4, generator=generator),
        torch.cat([index[:, None].float(), torch.tensor([[0.0, 0, 4, 4]]).expand(boxes, 4)], dim=1),
        (torch.rand(boxes, 2, generator=generator) > 0.5).float(),
        [f"clip_{number:03d}:5" for number in range(clips)],
    )


def stepper(step: StepSettings | None = None, **optimizer: object) -> Stepper:
    torch.manual_seed(0)
    model = TinyModel()
    settings = OptimizerSettings(**optimizer)  # pyright: ignore[reportArgumentType]
    return Stepper(model, build_optimizer(model, settings, 0.1), step or StepSettings(), settings, CPU)


def test_loss_is_the_mean_over_boxes_and_classes() -> None:
    logits, labels = torch.tensor([[0.0, 2.0], [-1.0, 0.5]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    by_hand = [math.log(2), math.log1p(math.exp(2.0)), math.log1p(math.exp(-1.0)), math.log1p(math.exp(-0.5))]
    assert float(box_loss(logits, labels)) == pytest.approx(sum(by_hand) / 4, rel=1e-6)


def test_batch_norm_decays_apart_and_biases_and_layer_norm_like_weights() -> None:
    model = TinyModel()
    groups = parameter_groups(model, OptimizerSettings(weight_decay=0.05, batch_norm_weight_decay=0.0))
    ids = {decay: {id(p) for p in group["params"]} for group in groups for decay in [group["weight_decay"]]}
    assert ids[0.0] == {id(model.norm.weight), id(model.norm.bias)}
    assert {id(model.layer_norm.weight), id(model.layer_norm.bias), id(model.head.bias)} < ids[0.05]
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_two_sgd_steps_follow_nesterov_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    holder = nn.Module()
    holder.weight = weight
    optimizer = build_optimizer(holder, OptimizerSettings(weight_decay=0.1), 0.5)
    expected, velocity = 1.0, None
    for lr, slope in ((0.5, 2.0), (0.05, -1.0)):
        set_learning_rate(optimizer.param_groups, lr)
        weight.grad = torch.tensor([slope])
        optimizer.step()
        gradient = slope + 0.1 * expected
        velocity = gradient if velocity is None else 0.9 * velocity + gradient
        expected -= lr * (gradient + 0.9 * velocity)
    assert float(weight.detach()) == pytest.approx(expected, rel=1e-6)


def test_micro_batches_add_up_to_the_mean_of_their_gradients() -> None:
    one = stepper()
    expected: dict[str, torch.Tensor] = {}
    for seed in (1, 2):
        one.model.zero_grad()
        clips, boxes, labels, _ = batch(seed)
        box_loss(one.model(clips, boxes), labels).backward()
        for name, parameter in one.model.named_parameters():
            assert parameter.grad is not None
            expected[name] = expected.get(name, 0) + parameter.grad / 2
    both = stepper()
    for seed in (1, 2):
        both.forward_backward(*batch(seed), share=0.5, last=seed == 2)
    for name, parameter in both.model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])


def test_a_batch_without_boxes_gives_every_parameter_a_zero_gradient() -> None:
    it = stepper()
    clips, boxes, labels, names = batch(1)
    it.forward_backward(clips, boxes[:0], labels[:0], names, share=1.0, last=True)
    for parameter in it.model.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()
    done = it.step()
    assert (done.boxes, done.cells, done.loss_sum) == (0, 0, 0.0)


def test_a_step_adds_up_the_losses_of_its_micro_batches() -> None:
    it, expected = stepper(), 0.0
    for seed in (1, 2):
        clips, boxes, labels, names = batch(seed)
        expected += float(box_loss(it.model(clips, boxes), labels)) * labels.numel()
        it.forward_backward(clips, boxes, labels, names, share=0.5, last=seed == 2)
    done = it.step()
    assert (done.boxes, done.cells) == (6, 12)
    assert done.loss_sum == pytest.approx(expected, rel=1e-6)


def test_gradients_are_clipped_to_the_norm() -> None:
    it = stepper(name="adamw", clip_grad_norm=0.01)
    it.forward_backward(*batch(1), share=1.0, last=True)
    gradients: list[torch.Tensor] = []
    original = it.optimizer.step
    it.optimizer.step = lambda *a, **k: (gradients.extend(p.grad.clone() for p in it.model.parameters()), original())[1]  # pyright: ignore
    norm = it.step().norm
    assert norm is not None
    assert norm > 0.01
    assert float(torch.linalg.vector_norm(torch.cat([g.flatten() for g in gradients]))) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_the_sample_at_fault(value: float) -> None:
    it = stepper()
    it.model.eval()  # batch statistics would spread it over all clips
    clips, boxes, labels, names = batch(1, clips=3, boxes=3)
    clips[1] = value
    before = [parameter.detach().clone() for parameter in it.model.parameters()]
    it.forward_backward(*batch(2), share=0.5, last=False)
    it.forward_backward(clips, boxes, labels, names, share=0.5, last=True)
    with pytest.raises(TrainingError, match=r"clip_001:5$|clip_001:5 \(") as caught:
        it.step()
    assert all(map(torch.equal, before, it.model.parameters()))
    assert "clip_000" not in str(caught.value)


def test_bfloat16_trains_and_keeps_float32_weights() -> None:
    it = stepper(StepSettings(precision="bfloat16"))
    before = [p.detach().clone() for p in it.model.parameters()]
    it.forward_backward(*batch(1), share=1.0, last=True)
    it.step()
    assert all(p.dtype is torch.float32 for p in it.model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, it.model.parameters(), strict=True))


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_going_on_from_a_stored_state_gives_the_same_bits(precision: str) -> None:
    settings = StepSettings(precision=precision)  # pyright: ignore[reportArgumentType]
    whole = stepper(settings, weight_decay=0.01)
    halves = stepper(settings, weight_decay=0.01)
    for seed in range(4):
        if seed == 2:
            state, weights = halves.state(), halves.model.state_dict()
            halves = stepper(settings, weight_decay=0.01)
            halves.model.load_state_dict(weights)
            halves.load_state(state)
        for it in (whole, halves):
            it.forward_backward(*batch(seed), share=1.0, last=True)
            it.step()
    for a, b in zip(whole.model.state_dict().values(), halves.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
