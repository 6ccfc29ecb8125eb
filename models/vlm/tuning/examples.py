"""What a model is shown of a clip while it is tuned: frames and tokens of generation, then the true answers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from microg.errors import ConfigError, TrainingError
from microg.models.vlm.base import Request
from microg.models.vlm.engines.checkpoint import Chat
from microg.models.vlm.tuning.packing import Example, PackedRow, pack

# What of a processor's output is about tokens, and not about frames.
_TOKENS = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")


@dataclass(frozen=True, eq=False)
class ClipExample:
    """All questions about one clip in one sequence.

    Attributes:
        row: Tokens as a tree, with positions and which token sees which (see `PackedRow`).
        visual: The processor's output for the frames, as the model's forward takes it.
        spatial: Whether positions have three parts (time, height, width) or one.
    """

    row: PackedRow
    visual: Mapping[str, Any]
    spatial: bool

    @property
    def targets(self) -> int:
        """Number of answer tokens."""
        return len(self.row.targets)


def answer_tokens(chat: Chat, request: Request, answer: str, ends: Sequence[int]) -> tuple[int, ...]:
    """Return the tokens that the model has to say after a prompt: the answer and the end of its turn.

    As the chat template writes a finished turn; where the template writes the prompt of a finished turn otherwise than
    that of one to be continued, the answer and the first end token.

    Args:
        chat: The model's processor and chat template.
        request: What is asked.
        answer: The true answer.
        ends: Tokens at which generation ends.
    """
    begun, finished = chat.text(request), chat.finished(request, answer)
    tokenizer = chat.tokenizer
    text = finished[len(begun) :] if finished.startswith(begun) else answer
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    end = next((place for place, token in enumerate(ids) if token in ends), None)
    return tuple(ids[: end + 1]) if end is not None else (*ids, ends[0])


def clip_example(
    model: Any, chat: Chat, requests: Sequence[Request], answers: Sequence[str], options: Mapping[str, Any]
) -> ClipExample:
    """Return all questions about one clip as one sequence, in which each sees the frames and itself only.

    Args:
        model: The model, whose positions are used.
        chat: Its processor and chat template.
        requests: What is asked, all with the same frames.
        answers: The true answers.
        options: Options of the processor, for frames.

    Raises:
        TrainingError: The prompts of the questions differ before the frames.
        ConfigError: The model has no token that ends an answer.
    """
    ends = model.generation_config.eos_token_id
    ends = [ends] if isinstance(ends, int) else list(ends or [])
    if not ends:
        raise ConfigError("the model has no token that ends an answer", "its generation_config.json needs eos_token_id")
    inputs = chat.inputs(requests[:1], options)
    widened = inputs["input_ids"][0].tolist()
    plain = chat.ids(chat.text(requests[0]))
    same = _common(plain, widened)
    tail = _common(plain[same:][::-1], widened[same:][::-1])
    head = plain[: len(plain) - tail]
    wide = widened[: len(widened) - tail]
    examples = []
    for request, answer in zip(requests, answers, strict=True):
        own = chat.ids(chat.text(request))
        if own[: len(head)] != head:
            raise TrainingError(
                f"the prompts of {requests[0].key} and {request.key} differ before the frames",
                "ask them with prompts that begin alike",
            )
        examples.append(Example((*wide, *own[len(head) :]), answer_tokens(chat, request, answer, ends)))
    visual = {name: value for name, value in inputs.items() if name not in _TOKENS}
    types = inputs["mm_token_type_ids"][0].tolist() if "mm_token_type_ids" in inputs else [0] * len(widened)
    place = _Positions(model, visual, types[: len(wide)])
    return ClipExample(pack(examples, place), visual, place.spatial)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens both begin with."""
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return min(len(one), len(other))


class _Positions:
    """Positions (3, n) of the tokens of a question that stands alone, as the model itself counts them."""

    def __init__(self, model: Any, visual: Mapping[str, Any], types: Sequence[int]) -> None:
        self._count = getattr(model.model, "get_rope_index", None)
        self.spatial = self._count is not None
        self._types = types
        known = inspect.signature(self._count).parameters if self._count is not None else {}
        takes_all = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in known.values())
        grids = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")
        self._visual = {name: visual[name] for name in grids if name in visual and (takes_all or name in known)}

    def __call__(self, tokens: tuple[int, ...]) -> np.ndarray:
        if self._count is None:
            return np.broadcast_to(np.arange(len(tokens)), (3, len(tokens)))
        import torch

        ids = torch.tensor([tokens])
        types = torch.tensor([[*self._types, *[0] * (len(tokens) - len(self._types))]])
        positions, _ = self._count(ids, types, **self._visual)
        return positions[:, 0].numpy()
