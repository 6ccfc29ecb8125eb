"""Last stage of generation: an actor that holds the engine, asks it about decoded clips and commits their rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from microg.arrow import parse_schema
from microg.errors import MicrogError, WorkerError, describe
from microg.models.vlm.api.cache import ResponseCache, generate_cached
from microg.models.vlm.base import Engine, Reply, Request, Sampling
from microg.models.vlm.cards import ModelCard, open_card
from microg.models.vlm.prompts import Prompt
from microg.pipelines.core.attempts import Attempts, Failure, Turns, run_batch_then_singles
from microg.pipelines.core.shared_files import SharedFolder
from microg.pipelines.core.stage import Stage, abort
from microg.pipelines.core.telemetry import BusyClock
from microg.pipelines.vlm import answer_store
from microg.pipelines.vlm.clip_tables import SCHEMA, DecodedClip, Question, from_table
from microg.pipelines.vlm.live_scores import LiveSender
from microg.pipelines.vlm.shared_gate import SharedGate
from microg.texts.items import Task

# What the driver learns of a clip. `rows` and `failed` count answers; tokens and dollars are of all of them.
REPORT = parse_schema(
    "clip_id status error fix: string, rows failed cached: int32, prompt_tokens completion_tokens: int64, cost: "
    "float64, decode_s engine_s: float32"
)
_CRASHED = "WorkerCrashed: asking about this clip kills its worker"
# Clips in a row that an engine fails on with an exception, not a reply, until it is given up.
_MOST_BROKEN = 3
# Columns of answers that a report adds up.
_SUMS = ("cached", "cost", "prompt_tokens", "completion_tokens")


@dataclass(frozen=True, kw_only=True)
class GenerationContext:
    """What an actor needs to answer.

    Attributes:
        root: The run folder.
        card: The model.
        prompts: Of each task.
        samplings: Of each task.
        gate: Of API engines, which holds `max_cost`.
        cache: File of replies on the actor's machine.
        max_cost: US dollars that the run may cost.
        settings: Engine settings that the run adds to the model card.
        live: Who gets answers while more come.
        checkpoint: The card's folder, where that comes from the driver's machine.
    """

    root: str
    card: ModelCard
    prompts: Mapping[Task, Prompt]
    samplings: Mapping[Task, Sampling]
    gate: SharedGate | None = None
    cache: str | None = None
    max_cost: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    live: LiveSender | None = None
    checkpoint: SharedFolder | None = None


class Generator:
    """Answers blocks of clips, several at once where the engine takes them: so it never waits for the next block.

    When the engine cannot be opened, the first call says so (`abort`): Ray would try a constructor that raises
    again and again, and drop the type of an error that a call raises.
    """

    def __init__(self, context: GenerationContext, attempts: Attempts) -> None:
        self._context, self._attempts = context, attempts
        self._hopeless: Exception | None = None
        self._broken = 0
        self._turns, self._busy = Turns(), BusyClock()
        self._stack = ExitStack()
        try:
            gate = {} if context.gate is None else {"gate": context.gate.owned()}
            card = context.card
            if context.checkpoint is not None:
                card = card.replaced(hub_id=str(context.checkpoint.path()))
            self._engine: Engine = open_card(card, max_cost=context.max_cost, **context.settings, **gate)
            self._common = lock_engine(context.root, card, self._engine)
            self._cache = self._stack.enter_context(ResponseCache(context.cache)) if context.cache else None
        except Exception as error:
            self._hopeless = error

    def __call__(self, block: pa.Table) -> pa.Table:
        """Answer and commit a block of `microg.pipelines.vlm.clip_tables.SCHEMA`; returns one small row a clip."""
        clips = from_table(block)
        try:
            if self._hopeless is None:
                reports = self._answer(clips)
            if self._hopeless is not None:
                raise self._hopeless
        except Exception as error:
            reports = [{"clip_id": clip.clip_id, **abort(error)} for clip in clips]
        return pa.Table.from_pylist(reports, schema=REPORT)

    def _answer(self, clips: Sequence[DecodedClip]) -> list[dict[str, Any]]:
        """Ask about clips and commit what came; `_hopeless` is set where no later request can succeed."""
        good = [clip for clip in clips if not clip.error]
        with self._busy:
            replies = run_batch_then_singles(
                self._ask,
                good,
                name=lambda clip: clip.clip_id,
                crashed=_CRASHED,
                attempts=self._attempts,
                turns=self._turns,
            )
        seconds = self._busy.take() / len(good) if good else 0.0
        self._stop_if_server_is_down([outcome for outcome in replies if not isinstance(outcome, Failure)])
        by_clip = {clip.clip_id: outcome for clip, outcome in zip(good, replies, strict=True)}
        rows, reports = [], []
        for clip in clips:
            outcome = by_clip.get(clip.clip_id, Failure(clip.error))
            prompts, complete = self._context.prompts, self._hopeless is None
            clip_rows = rows_of(clip, outcome, prompts, self._common, complete=complete)
            rows += clip_rows
            reports.append(_report(clip, clip_rows, 0.0 if clip.error else seconds))
        if rows:
            answer_store.commit(self._context.root, rows)
            if self._context.live is not None:
                self._context.live.send(rows)
        return reports

    def _ask(self, clips: Sequence[DecodedClip]) -> list[dict[str, Reply]]:
        """Return the replies of each clip by key; those that did not come are left out."""
        if self._hopeless is not None:
            return [{} for _ in clips]
        replies: dict[str, Reply] = {}
        try:
            for task, requests in group_by_sampling(clips, self._context.prompts):
                for reply in self._replies(requests, task):
                    replies[reply.key] = reply
            self._broken = 0
        except MicrogError as error:
            self._hopeless = error
        except Exception as error:
            if len(clips) == 1:
                self._count_broken(describe(error))
            raise
        keys = [[question.item.qualified_id for question in clip.questions] for clip in clips]
        return [{key: replies[key] for key in mine if key in replies} for mine in keys]

    def _replies(self, requests: Sequence[Request], task: Task) -> Iterator[Reply]:
        prompt, sampling = self._context.prompts[task], self._context.samplings[task]
        if self._cache is None:
            return self._engine.generate(requests, sampling)
        # a reply that cannot be read is asked again next time
        return generate_cached(self._engine, requests, sampling, self._cache, lambda reply: not _read(prompt, reply)[1])

    def _count_broken(self, error: str) -> None:
        """Count a clip on which the engine raised an exception: after some in a row it is given up."""
        self._broken += 1
        if self._broken >= _MOST_BROKEN:
            self._hopeless = RuntimeError(f"the engine failed on {self._broken} clips in a row, the last: {error}")

    def _stop_if_server_is_down(self, by_clip: Sequence[Mapping[str, Reply]]) -> None:
        """Give up where an API engine stopped sending after failures in a row, and nothing of a block was answered."""
        replies = [reply for replies in by_clip for reply in replies.values()]
        sent = [reply for reply in replies if reply.attempts]
        if sent and len(sent) < len(replies) and all(reply.status == "error" for reply in replies):
            self._hopeless = WorkerError(
                f"the server answers nothing any more: {sent[-1].error}", "see that it runs; the same command resumes"
            )


def lock_engine(root: str, card: ModelCard, engine: Engine) -> dict[str, Any]:
    """Claim a run for an engine (see `answer_store.claim`), and return the columns that all its rows share."""
    fingerprint = engine.fingerprint()
    answer_store.claim(root, fingerprint)
    return {"model": card.name, "engine": engine.name, "fingerprint": answer_store.fingerprint_hash(fingerprint)}


def group_by_sampling(clips: Sequence[DecodedClip], prompts: Mapping[Task, Prompt]) -> list[tuple[Task, list[Request]]]:
    """Return requests in as few groups as sampling allows, with a task whose sampling is the group's.

    A structured prompt has its own group. Clip after clip, so that an engine's prefix cache sees a clip's frames once.
    """
    groups: dict[Task | None, tuple[Task, list[Request]]] = {}
    for clip in clips:
        for question in clip.questions:
            task = question.item.task
            fields = {} if question.text is None else {"question": question.text}
            _, requests = groups.setdefault(task if prompts[task].json_schema else None, (task, []))
            requests.append(prompts[task].request(question.item.qualified_id, clip.frames, **fields))
    return list(groups.values())


def rows_of(
    clip: DecodedClip,
    replies: Mapping[str, Reply] | Failure,
    prompts: Mapping[Task, Prompt],
    common: Mapping[str, Any],
    *,
    complete: bool = True,
) -> list[dict[str, Any]]:
    """Return the rows of a clip: the replies, by key, or why there are none; `common` are columns of all.

    What has no reply is an error, unless not `complete`: then it has no row.
    """
    rows = []
    for question in clip.questions:
        key, prompt = question.item.qualified_id, prompts[question.item.task]
        if isinstance(replies, Failure):
            outcome: dict[str, Any] = {"status": "error", "error": replies.error, "attempts": 0}
        elif key in replies:
            outcome = reply_columns(prompt, replies[key])
        elif not complete:
            continue
        else:
            outcome = {"status": "error", "error": "the engine gave no reply", "attempts": 0}
        rows.append({**request_columns(clip, question, prompt), **common, **outcome})
    return rows


def request_columns(clip: DecodedClip, question: Question, prompt: Prompt) -> dict[str, Any]:
    """Return the columns of a row that are known before there is a reply."""
    columns: dict[str, Any] = {"key": question.item.qualified_id, **question.item._asdict(), "question": question.text}
    columns |= {"prompt_id": prompt.id, "prompt_hash": prompt.hash}
    if clip.frames is not None:
        columns |= {"frame_indices": clip.frames.indices, "frame_hash": clip.frames.sha256}
        columns |= {"width": clip.frames.width, "height": clip.frames.height}
    return columns


def reply_columns(prompt: Prompt, reply: Reply) -> dict[str, Any]:
    """Return the columns that a reply fills."""
    text, error = _read(prompt, reply)
    same = ("finish_reason", "prompt_tokens", "completion_tokens", "latency_s", "attempts", "cached", "cost")
    columns = {name: getattr(reply, name) for name in same}
    return {"text": text, "status": "error" if error else "ok", "error": error, **columns}


def _read(prompt: Prompt, reply: Reply) -> tuple[str | None, str]:
    """Return the answer in a reply, or why there is none."""
    if reply.status != "ok" or reply.text is None:
        return None, reply.error or "no text"
    try:
        text = prompt.read(reply.text)
    except ValueError as error:
        return None, describe(error)
    return (text, "") if text else (None, f"the answer is empty (finish_reason {reply.finish_reason})")


def _report(clip: DecodedClip, rows: Sequence[dict[str, Any]], seconds: float) -> dict[str, Any]:
    problems = [row["error"] for row in rows if row["status"] != "ok"]
    return {
        "clip_id": clip.clip_id,
        "status": "error" if problems else "ok",
        "error": problems[0] if problems else "",
        "rows": len(rows),
        "failed": len(problems),
        **{name: sum(row.get(name) or 0 for row in rows) for name in _SUMS},
        "decode_s": clip.seconds,
        "engine_s": seconds,
    }


ASK = Stage(name="ask", work=Generator, reads=SCHEMA, writes=REPORT, holds_model=True)
