from __future__ import annotations

import pytest
import torch

from microg.models.har.training.augment import quarter_turns


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5])
def test_a_box_stays_on_what_it_marks(turns: int) -> None:
    side, (x1, y1, x2, y2) = 9, (2, 1, 6, 3)
    clips = torch.zeros(2, 3, 4, side, side, dtype=torch.uint8)
    clips[1, :, :, y1 : y2 + 1, x1 : x2 + 1] = 200
    boxes = torch.tensor([[1.0, x1, y1, x2, y2]])
    turned, moved = quarter_turns(clips, boxes, [0, turns])
    index, left, top, right, bottom = (int(value) for value in moved[0])
    assert index == 1
    expected = torch.zeros(side, side, dtype=torch.uint8)
    expected[top : bottom + 1, left : right + 1] = 200
    assert torch.equal(turned[1, 2, 3], expected)
    assert not turned[0].any()
    assert boxes.tolist() == [[1.0, x1, y1, x2, y2]]


def test_clips_that_are_not_square_are_refused() -> None:
    with pytest.raises(ValueError, match="square"):
        quarter_turns(torch.zeros(1, 3, 2, 4, 5), torch.zeros(0, 5), [1])
