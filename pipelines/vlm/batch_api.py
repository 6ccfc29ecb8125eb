"""Clips to `generations` through a provider's batch mode: decoded and submitted block by block, then waited for.

The provider does the work, so there are no actors. What was submitted lies in the run folder with the columns of its
rows: the same call after a kill or Ctrl-C goes on waiting for the same batches, and submits only what none of them
holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import pyarrow as pa

from microg import storage
from microg.errors import ConfigError
from microg.models.vlm.api.budget import Budget
from microg.models.vlm.api.openai_batch import OpenAiBatch
from microg.models.vlm.base import Sampling
from microg.models.vlm.cards import ModelCard, open_card
from microg.models.vlm.prompts import Prompt
from microg.pipelines.core.attempts import Failure
from microg.pipelines.core.stage import Pipeline, stream_tables
from microg.pipelines.vlm import answer_store
from microg.pipelines.vlm.answer_stage import group_by_sampling, lock_engine, reply_columns, request_columns, rows_of
from microg.pipelines.vlm.clip_tables import DECODE, DecodedClip, from_table
from microg.pipelines.vlm.generate import api_files
from microg.pipelines.vlm.questions import CLIPS, blocks_of, sizes_of, without
from microg.pipelines.vlm.settings import GenerateSettings, engine_settings
from microg.registry import load_object
from microg.texts.items import GENERATED, Task

# Of one submission: few enough to hold their frames, many enough for few batches.
_CLIPS, _BYTES = 64, 128 * 2**20


def run_batches(
    clips: pa.Table,
    root: str,
    settings: GenerateSettings,
    card: ModelCard,
    *,
    on_rows: Callable[[list[dict[str, Any]]], None],
    on_wait: Callable[[str], None],
) -> float:
    """Answer `clips` (rows of `microg.pipelines.vlm.questions.CLIPS`) into `root`; return the dollars that the run has
    cost so far.

    `on_rows` gets rows as they are committed, `on_wait` how far batches are. Decoding runs on the connected Ray. Raises
    `ConfigError` where a model has no batch mode or the cap on costs does not allow a batch, and `BatchError` when the
    service refuses.
    """
    engine = open_card(card, max_cost=settings.max_cost, **engine_settings(settings, card))
    if not engine.batch_mode:
        raise ConfigError(f"{card.title} has no batch mode here", "OpenAI's models have one: leave --batch out")
    engine.check_ready()
    common = lock_engine(root, card, engine)
    # of all tasks: an earlier invocation may have submitted others than this one asks for
    prompts: dict[Task, Prompt] = {task: settings.prompt_of(task) for task in GENERATED}
    samplings: dict[Task, Sampling] = {task: settings.sampling.of(prompt) for task, prompt in prompts.items()}
    files = api_files(root, settings)
    progress = _BatchProgress(on_wait)
    with closing(Budget(settings.max_cost, files.spent, files.account)) as budget:
        batch: OpenAiBatch = load_object(engine.batch_mode)(
            engine, storage.join(root, "batches"), budget=budget, poll_s=settings.api.poll_s, report=progress.update
        )
        under_way = {name for waiting in batch.pending() for name in waiting.requests}
        for block in _decode(without(clips, under_way), settings):
            good = [clip for clip in block if not clip.error]
            failed = [
                row for clip in block if clip.error for row in rows_of(clip, Failure(clip.error), prompts, common)
            ]
            if failed:
                answer_store.commit(root, failed)
                on_rows(failed)
            _submit(batch, good, prompts, samplings, common)
        pending = batch.pending()
        for number, waiting in enumerate(pending):
            progress.begin(number, len(pending))
            replies = batch.collect(waiting)
            columns = [waiting.about[reply.key] for reply in replies]
            rows = [
                {**known, **reply_columns(prompts[known["task"]], reply)}
                for known, reply in zip(columns, replies, strict=True)
            ]
            answer_store.commit(root, rows)
            batch.done(waiting, replies)
            on_rows(rows)
        return budget.spent


def _submit(
    batch: OpenAiBatch,
    clips: Sequence[DecodedClip],
    prompts: Mapping[Task, Prompt],
    samplings: Mapping[Task, Sampling],
    common: Mapping[str, Any],
) -> None:
    about = {
        question.item.qualified_id: {**request_columns(clip, question, prompts[question.item.task]), **common}
        for clip in clips
        for question in clip.questions
    }
    for task, requests in group_by_sampling(clips, prompts):
        batch.submit(requests, samplings[task], about)


PIPELINE = Pipeline(name="generate", source=CLIPS, stages=(DECODE,))


def _decode(clips: pa.Table, settings: GenerateSettings) -> Iterator[list[DecodedClip]]:
    """Yield clips with their frames, block by block, in order."""
    if clips.num_rows:
        policy = settings.policy()
        blocks = blocks_of(clips, sizes_of(clips, policy), _CLIPS, _BYTES)
        pipeline = PIPELINE.bound(decode={"policy": policy, "decoder": settings.decoder})
        yield from map(from_table, stream_tables(pipeline, blocks, ahead_bytes=4 * _BYTES))


class _BatchProgress:
    """Says how far the batches are, whatever the service tells of one."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._where = ""

    def begin(self, number: int, count: int) -> None:
        self._where = f"batch {number + 1} of {count}"

    def update(self, counts: Mapping[str, int]) -> None:
        self._tell(f"{self._where}: {counts.get('completed', 0):,} of {counts.get('total', 0):,} requests")
