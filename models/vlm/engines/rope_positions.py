"""Where Qwen2-VL and Qwen2.5-VL place what follows a video: transformers 5 differs from the model as it was trained.

Text after a video begins one past the largest position in it, time included (Qwen's own code, transformers 4 and
vLLM). Since transformers 5 it begins after the video's height and width alone, so that for a clip of more than a few
frames the question lies among the positions of its frames. Other models of the family place every frame on its own
and are not concerned.
"""

from __future__ import annotations

import itertools
from typing import Any

CONCERNED = ("qwen2_vl", "qwen2_5_vl")
_VIDEO = 2


def restore_positions(model: Any) -> Any:
    """Make a loaded Qwen2-VL or Qwen2.5-VL place text as it was trained to; returns the model, others unchanged.

    Does nothing where the installed transformers does so already. Train and run such a model with it: a checkpoint
    trained without gives other answers in vLLM.
    """
    if model.config.model_type not in CONCERNED:
        return model
    inner = model.model
    inherited = inner.get_rope_index

    def get_rope_index(input_ids: Any, mm_token_type_ids: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        positions, _ = inherited(input_ids, mm_token_type_ids, *args, **kwargs)
        return _after_videos(positions, mm_token_type_ids, kwargs.get("attention_mask"))

    inner.get_rope_index = get_rope_index
    return model


def _after_videos(positions: Any, types: Any, mask: Any) -> tuple[Any, Any]:
    """Move what follows each video to one past its largest position.

    positions: (3, rows, tokens). Returns them and, (rows, 1), how far a row's positions are ahead of its tokens.
    """
    import torch

    ahead = []
    for row in range(positions.shape[1]):
        seen = torch.ones_like(types[row], dtype=torch.bool) if mask is None else mask[row].bool()
        own = positions[:, row, seen]
        groups = [(kind, len(list(group))) for kind, group in itertools.groupby(types[row][seen].tolist())]
        at = 0
        for kind, length in groups[:-1]:
            at += length
            if kind == _VIDEO:
                own[:, at:] += own[:, at - length : at].max() + 1 - own[:, at].min()
        positions[:, row, seen] = own
        ahead.append(own.max() + 1 - own.shape[1])
    return positions, torch.stack(ahead)[:, None]
