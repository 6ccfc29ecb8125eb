"""Augmentation that the reference lacks: in weightlessness no direction is up."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def quarter_turns(clips: torch.Tensor, boxes: torch.Tensor, turns: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn each clip, with its boxes, counter-clockwise by `turns` (N,) times 90 degrees.

    clips (N, C, T, S, S) of any dtype, square; boxes (M, 5): place in the batch, x1, y1, x2, y2 in pixels, within
    [0, S - 1]. Raises `ValueError` for clips that are not square.

    >>> clip = torch.tensor([[[[[1, 2], [3, 4]]]]])
    >>> turned, boxes = quarter_turns(clip, torch.tensor([[0.0, 1, 0, 1, 0]]), [1])
    >>> turned.flatten().tolist(), boxes.tolist()
    ([2, 4, 1, 3], [[0.0, 0.0, 0.0, 0.0, 0.0]])
    """
    side = clips.shape[-1]
    if clips.shape[-2] != side:
        raise ValueError(f"only square clips can be turned, not {tuple(clips.shape)}")
    turned = torch.empty_like(clips)
    for place, count in enumerate(turns):
        turned[place] = torch.rot90(clips[place], count, (-2, -1))
    result = boxes.clone()
    owner = torch.tensor(list(turns), device=boxes.device)[boxes[:, 0].long()] % 4
    for count in (1, 2, 3):
        x1, y1, x2, y2 = boxes[:, 1:].unbind(dim=1)
        far = side - 1
        corners = {
            1: (y1, far - x2, y2, far - x1),
            2: (far - x2, far - y2, far - x1, far - y1),
            3: (far - y2, x1, far - y1, x2),
        }[count]
        chosen = owner == count
        result[chosen, 1:] = torch.stack(corners, dim=1)[chosen]
    return turned, result
