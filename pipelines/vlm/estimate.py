"""What a generation run will take, before anything is asked: answers, tokens, dollars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from microg.models.vlm.base import Engine, Estimate, Frames
from microg.pipelines.vlm.questions import FrameSize
from microg.pipelines.vlm.settings import GenerateSettings

_BYTES_PER_TOKEN = 4


@dataclass(frozen=True, kw_only=True)
class RunEstimate:
    """What a run will take.

    Attributes:
        rows: Answers to make.
        tokens: Tokens of prompts and answers, about.
        cost: US dollars at most, None where no price is known.
        counted: How tokens were counted, in words.
    """

    rows: int
    tokens: int
    cost: float | None
    counted: str


def estimate_run(
    clips: pa.Table, sizes: Sequence[FrameSize], settings: GenerateSettings, engine: Engine
) -> RunEstimate:
    """Estimate answers, tokens and cost of a run before it starts.

    An engine that processes frames to count is asked once for each prompt and size of frames; other questions then
    differ by their length.

    Args:
        clips: Rows of `microg.pipelines.vlm.questions.CLIPS`.
        sizes: What of each clip the model will see.
        settings: The run's settings, resolved.
        engine: The engine, opened and not loaded.
    """
    prompts = {task: settings.prompt_of(task) for task in settings.tasks}
    samplings = {task: settings.sampling.of(prompt) for task, prompt in prompts.items()}
    slow = engine.counts_slowly
    rows, tokens, cost = 0, 0, 0.0
    known: dict[Any, tuple[Estimate, int]] = {}
    columns = zip(clips["task"].to_pylist(), clips["question"].to_pylist(), sizes, strict=True)
    for tasks, questions, size in columns:
        pixels = np.broadcast_to(np.uint8(0), (size.frames, size.height, size.width, 3))  # takes no memory
        frames = Frames(pixels, tuple(range(size.frames)), 30.0, size.frames)
        for task, question in zip(tasks, questions, strict=True):
            fields = {} if question is None else {"question": question}
            request = prompts[task].request("", frames, **fields)
            rows += 1
            if not slow:
                takes, more = engine.estimate(request, samplings[task], settings.batch), 0
            else:
                length = len(request.prompt.encode())
                if (task, size) not in known:
                    pixels = np.zeros(frames.pixels.shape, np.uint8)  # a processor wants memory that can be written
                    whole = replace(request, frames=replace(frames, pixels=pixels))
                    known[task, size] = engine.estimate(whole, samplings[task]), length
                takes, first_length = known[task, size]
                more = round((length - first_length) / _BYTES_PER_TOKEN)
            tokens, cost = tokens + takes.tokens + more, cost + (takes.cost or 0.0)
    priced = engine.runs_here or engine.price is not None
    return RunEstimate(rows=rows, tokens=tokens, cost=cost if priced else None, counted=engine.counting)
