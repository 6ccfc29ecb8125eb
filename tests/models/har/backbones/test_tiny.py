from __future__ import annotations

import pytest
import torch

from microg.models.har.backbones import build
from microg.models.har.backbones.tiny import SIDE, cut_out, turned


def scene(left: int, top: int, size: int = 20) -> torch.Tensor:
    """A clip of zeros with a bright square."""
    clip = torch.zeros(1, 3, 4, 60, 90)
    clip[..., top : top + size, left : left + size] = 1.0
    return clip


def box(left: int, top: int, size: int = 20) -> torch.Tensor:
    return torch.tensor([[0.0, left, top, left + size, top + size]])


def test_a_square_shows_its_person_and_a_little_around() -> None:
    squares, whole = cut_out(scene(30, 20), box(30, 20))
    assert squares.shape == (1, 3, 4, SIDE, SIDE)
    assert whole.tolist() == [[0.0, 0.0, 0.0, SIDE, SIDE]]
    margin = round(SIDE * (1 - 1 / 1.2) / 2)
    assert squares[..., margin + 2 : -margin - 2, margin + 2 : -margin - 2].eq(1).all()
    assert squares[..., : margin - 2, :].eq(0).all()


def test_logits_do_not_depend_on_where_in_the_frame_somebody_is() -> None:
    model = build("TINY", roi_scale="true").eval()
    with torch.inference_mode():
        one, other = model(scene(30, 20), box(30, 20)), model(scene(50, 12), box(50, 12))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_training_sees_the_same_person_turned_and_mirrored_and_evaluation_does_not() -> None:
    square = torch.arange(9.0).view(1, 1, 1, 3, 3)
    torch.manual_seed(0)
    seen = {tuple(turned(square).flatten().tolist()) for _ in range(100)}
    assert len(seen) == 8
    model, clip = build("TINY").eval(), torch.randn(1, 3, 4, 60, 90)
    with torch.inference_mode():
        assert torch.equal(model(clip, box(30, 20)), model(clip, box(30, 20)))


@pytest.mark.parametrize("seed", [0, 1])
def test_jitter_follows_the_seed(seed: int) -> None:
    clip = torch.randn(1, 3, 2, 60, 90)
    results = []
    for _ in range(2):
        torch.manual_seed(seed)
        results.append(cut_out(clip, box(30, 20), jitter=0.15)[0])
    assert torch.equal(*results)
    assert not torch.equal(results[0], cut_out(clip, box(30, 20))[0])


def test_logits_do_not_depend_on_which_way_is_up() -> None:
    model, clip = build("TINY", roi_scale="true").eval(), torch.randn(1, 3, 4, 60, 60)
    with torch.inference_mode():
        upright = model(clip, torch.tensor([[0.0, 10, 20, 30, 40]]))
        # turned by 90 degrees against the clock: x becomes 60 - y of before
        turned_by_90 = model(torch.rot90(clip, 1, (-2, -1)), torch.tensor([[0.0, 20, 30, 40, 50]]))
        other = model(clip, torch.tensor([[0.0, 20, 30, 40, 50]]))
    torch.testing.assert_close(upright, turned_by_90, atol=1e-5, rtol=1e-4)
    assert (upright - other).abs().max() > 1e-3
