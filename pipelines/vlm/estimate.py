"""What a generation run will take, before anything is asked: answers, tokens, dollars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from microg.errors import MicrogError
from microg.models.vlm.api.prices import Price, estimate
from microg.models.vlm.base import Frames, Request, Sampling
from microg.pipelines.vlm.generate import engine_settings
from microg.pipelines.vlm.questions import Size
from microg.pipelines.vlm.settings import GenerateSettings

if TYPE_CHECKING:
    from microg.models.vlm.cards import ModelCard

_BYTES_PER_TOKEN = 4


@dataclass(frozen=True)
class Expected:
    """What a run will take: answers to make, tokens (about), dollars (at most; None where no price is known).

    counted: how tokens were counted, in words.
    """

    rows: int
    tokens: int
    cost: float | None
    counted: str


def expected(
    clips: pa.Table, sizes: Sequence[Size], settings: GenerateSettings, card: ModelCard, price: Price | None
) -> Expected:
    """Return what asking rows of `microg.pipelines.vlm.questions.CLIPS` takes.

    A provider's tokens are counted by the rule in the price table. Those of a model that runs here are counted by its
    own processor, where its files are here: once for each prompt and size of frames, and other questions by their
    length.
    """
    prompts = {task: settings.prompt_of(task) for task in settings.tasks}
    samplings = {task: settings.sampling.of(found) for task, found in prompts.items()}
    own, counted = (None, "by the provider's rule") if card.api else _own_count(settings, card)
    rows, tokens, cost = 0, 0, 0.0
    known: dict[Any, tuple[int, int]] = {}
    columns = zip(clips["task"].to_pylist(), clips["question"].to_pylist(), sizes, strict=True)
    for tasks, questions, size in columns:
        pixels = np.broadcast_to(np.uint8(0), (size.frames, size.height, size.width, 3))  # takes no memory
        frames = Frames(pixels, tuple(range(size.frames)), 30.0, size.frames)
        for task, question in zip(tasks, questions, strict=True):
            fields = {} if question is None else {"question": question}
            request: Request = prompts[task].request("", frames, **fields)
            rows += 1
            if own is None:
                found = estimate(request, samplings[task], price, settings.batch)
                tokens, cost = tokens + found.tokens, cost + found.cost
                continue
            length = len(request.prompt.encode())
            if (task, size) not in known:
                pixels = np.zeros(frames.pixels.shape, np.uint8)  # a processor wants memory that can be written
                whole = replace(request, frames=replace(frames, pixels=pixels))
                known[task, size] = own(whole, samplings[task]), length
            first, first_length = known[task, size]
            tokens += first + round((length - first_length) / _BYTES_PER_TOKEN)
    return Expected(rows, tokens, cost if price is not None else None, counted)


def _own_count(settings: GenerateSettings, card: ModelCard) -> tuple[Callable[[Request, Sampling], int] | None, str]:
    from microg.models.vlm.engines.checkpoint_engine import LocalEngine
    from microg.models.vlm.engines.registry import open_engine

    engine = open_engine(card, **engine_settings(settings, card))
    assert isinstance(engine, LocalEngine)
    try:
        _ = engine.chat
    except MicrogError as error:
        return None, f"by OpenAI's rule for pictures, as the model is not here: {error.what}"
    return (lambda request, sampling: engine.estimate(request, sampling).tokens), "by the model's own processor"
