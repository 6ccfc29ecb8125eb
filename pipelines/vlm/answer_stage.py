"""Last stage of generation: an actor that holds the engine, asks it about decoded clips and commits their rows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from microg.errors import MicrogError, WorkerError, describe
from microg.models.vlm.api.cache import ResponseCache, generate_cached
from microg.models.vlm.base import Engine, Reply, Request, Sampling
from microg.models.vlm.cards import ModelCard
from microg.models.vlm.engines.registry import open_engine
from microg.models.vlm.prompts import Prompt
from microg.pipelines.core import attempts as ledgers
from microg.pipelines.core.stage import ABORT
from microg.pipelines.vlm import answer_store
from microg.pipelines.vlm.clip_tables import Asked, Shown, from_table
from microg.pipelines.vlm.live_scores import LiveSender
from microg.pipelines.vlm.shared_gate import SharedGate
from microg.texts.items import Task

# What an answered clip tells the driver. `rows` and `failed` count answers; tokens and dollars are of all of them.
REPORT = pa.schema(
    [
        ("clip_id", pa.string()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("fix", pa.string()),
        ("rows", pa.int32()),
        ("failed", pa.int32()),
        ("cached", pa.int32()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("cost", pa.float64()),
        ("decode_s", pa.float32()),
        ("engine_s", pa.float32()),
    ]
)
_CRASHED = "WorkerCrashed: asking about this clip kills its worker"
# Clips in a row that an engine fails on with an exception, not a reply, until it is given up.
_MOST_BROKEN = 3


@dataclass(frozen=True)
class Job:
    """What an actor needs to answer. `cache`: a file on its machine; gate: of API engines, which holds `max_cost`.

    live: who is told of answers while more come.
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


class Generator:
    """Answers blocks of clips. When the engine cannot be opened, the first call says so as a row `ABORT`.

    Ray would try a constructor that raises again and again, and drop the type of an error that a call raises.
    """

    def __init__(self, job: Job, ledger: Any, scope: str) -> None:
        self._job, self._ledger, self._scope = job, ledger, scope
        self._hopeless: Exception | None = None
        self._broken = 0
        self._stack = ExitStack()
        try:
            gate = None if job.gate is None else job.gate.owned()
            self._engine: Engine = open_engine(job.card, gate=gate, max_cost=job.max_cost, **job.settings)
            self._common = claimed(job.root, job.card, self._engine)
            self._cache = self._stack.enter_context(ResponseCache(job.cache)) if job.cache else None
        except Exception as error:
            self._hopeless = error

    def __call__(self, block: pa.Table) -> pa.Table:
        """Answer and commit a block of `microg.pipelines.vlm.clip_tables.SCHEMA`; returns one small row a clip."""
        clips = from_table(block)
        try:
            if self._hopeless is None:
                reports = self._answered(clips)
            if self._hopeless is not None:
                raise self._hopeless
        except Exception as error:
            what, fix = (error.what, error.fix) if isinstance(error, MicrogError) else (describe(error), None)
            reports = [{"clip_id": clip.clip_id, "status": ABORT, "error": what, "fix": fix} for clip in clips]
        return pa.Table.from_pylist(reports, schema=REPORT)

    def _answered(self, clips: Sequence[Shown]) -> list[dict[str, Any]]:
        """Ask about clips and commit what came; `_hopeless` is set where no later request can succeed."""
        started = time.monotonic()
        good = [clip for clip in clips if not clip.error]
        answers: list[dict[str, Reply] | str] = []
        if good:
            answers = ledgers.together_or_alone(
                self._ask,
                good,
                name=lambda clip: clip.clip_id,
                ledger=self._ledger,
                scope=f"{self._scope}/ask",
                failed=self._failed,
                crashed=_CRASHED,
            )
        seconds = (time.monotonic() - started) / max(len(good), 1)
        self._look_for_the_server([reply for each in answers if isinstance(each, dict) for reply in each.values()])
        found: dict[str, dict[str, Reply] | str] = {clip.clip_id: clip.error for clip in clips if clip.error}
        found |= {clip.clip_id: each for clip, each in zip(good, answers, strict=True)}
        rows, reports = [], []
        for clip in clips:
            mine = rows_of(clip, found[clip.clip_id], self._job.prompts, self._common, complete=self._hopeless is None)
            rows += mine
            reports.append(_report(clip, mine, 0.0 if clip.error else seconds))
        if rows:
            answer_store.commit(self._job.root, rows)
            if self._job.live is not None:
                self._job.live.send(rows)
        return reports

    def _ask(self, clips: Sequence[Shown]) -> list[dict[str, Reply]]:
        """Return the replies of each clip by key; those that did not come are left out."""
        if self._hopeless is not None:
            return [{} for _ in clips]
        replies: dict[str, Reply] = {}
        try:
            for task, requests in drawn_alike(clips, self._job.prompts):
                for reply in self._replies(requests, task):
                    replies[reply.key] = reply
            self._broken = 0
        except MicrogError as error:
            self._hopeless = error
        keys = [[asked.item.qualified_id for asked in clip.asked] for clip in clips]
        return [{key: replies[key] for key in mine if key in replies} for mine in keys]

    def _replies(self, requests: Sequence[Request], task: Task) -> Iterator[Reply]:
        prompt, sampling = self._job.prompts[task], self._job.samplings[task]
        if self._cache is None:
            return self._engine.generate(requests, sampling)
        # a reply that cannot be read is asked again next time
        return generate_cached(self._engine, requests, sampling, self._cache, lambda reply: not _read(prompt, reply)[1])

    def _failed(self, clip: Shown, error: str) -> str:
        """Take an exception that the engine raised on one clip alone: after some in a row it is given up."""
        self._broken += error != _CRASHED
        if self._broken >= _MOST_BROKEN:
            self._hopeless = RuntimeError(f"the engine failed on {self._broken} clips in a row, the last: {error}")
        return error

    def _look_for_the_server(self, replies: Sequence[Reply]) -> None:
        """Give up where an API engine stopped sending after failures in a row, and nothing of a block was answered."""
        sent = [reply for reply in replies if reply.attempts]
        if sent and len(sent) < len(replies) and all(reply.status == "error" for reply in replies):
            self._hopeless = WorkerError(
                f"the server answers nothing any more: {sent[-1].error}", "see that it runs; the same command resumes"
            )


def claimed(root: str, card: ModelCard, engine: Engine) -> dict[str, Any]:
    """Claim a run for an engine (see `generation_rows.claim`), and return the columns that all its rows share."""
    fingerprint = engine.fingerprint()
    answer_store.claim(root, fingerprint)
    return {"model": card.name, "engine": engine.name, "fingerprint": answer_store.fingerprint_hash(fingerprint)}


def drawn_alike(clips: Sequence[Shown], prompts: Mapping[Task, Prompt]) -> list[tuple[Task, list[Request]]]:
    """Return requests in as few groups as sampling allows, with a task whose sampling is the group's.

    A structured prompt has its own group. Clip after clip, so that an engine's prefix cache sees a clip's frames once.
    """
    groups: dict[Task | None, tuple[Task, list[Request]]] = {}
    for clip in clips:
        for asked in clip.asked:
            task = asked.item.task
            fields = {} if asked.question is None else {"question": asked.question}
            _, requests = groups.setdefault(task if prompts[task].json_schema else None, (task, []))
            requests.append(prompts[task].request(asked.item.qualified_id, clip.frames, **fields))
    return list(groups.values())


def rows_of(
    clip: Shown,
    answers: Mapping[str, Reply] | str,
    prompts: Mapping[Task, Prompt],
    common: Mapping[str, Any],
    *,
    complete: bool = True,
) -> list[dict[str, Any]]:
    """Return the rows of a clip: what was answered, by key, or why nothing was; `common` are columns of all.

    What has no answer is an error, unless not `complete`: then it has no row.
    """
    rows = []
    for asked in clip.asked:
        key, prompt = asked.item.qualified_id, prompts[asked.item.task]
        if isinstance(answers, str):
            told: dict[str, Any] = {"status": "error", "error": answers, "attempts": 0}
        elif key in answers:
            told = told_by(prompt, answers[key])
        elif not complete:
            continue
        else:
            told = {"status": "error", "error": "the engine gave no reply", "attempts": 0}
        rows.append({**asked_columns(clip, asked, prompt), **common, **told})
    return rows


def asked_columns(clip: Shown, asked: Asked, prompt: Prompt) -> dict[str, Any]:
    """Return the columns of a row that are known before there is an answer."""
    frames = clip.frames
    shown = (
        {}
        if frames is None
        else {
            "frame_indices": frames.indices,
            "frame_hash": frames.sha256,
            "width": frames.width,
            "height": frames.height,
        }
    )
    return {
        "key": asked.item.qualified_id,
        **asked.item._asdict(),
        "question": asked.question,
        "prompt_id": prompt.id,
        "prompt_hash": prompt.hash,
        **shown,
    }


def told_by(prompt: Prompt, reply: Reply) -> dict[str, Any]:
    """Return the columns that a reply fills."""
    text, error = _read(prompt, reply)
    return {
        "text": text,
        "status": "error" if error else "ok",
        "error": error,
        "finish_reason": reply.finish_reason,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "latency_s": reply.latency_s,
        "attempts": reply.attempts,
        "cached": reply.cached,
        "cost": reply.cost,
    }


def _read(prompt: Prompt, reply: Reply) -> tuple[str | None, str]:
    """Return the answer in a reply, or why there is none."""
    if reply.status != "ok" or reply.text is None:
        return None, reply.error or "no text"
    try:
        return prompt.read(reply.text), ""
    except ValueError as error:
        return None, describe(error)


def _report(clip: Shown, rows: Sequence[dict[str, Any]], seconds: float) -> dict[str, Any]:
    def total(name: str) -> Any:
        return sum(row.get(name) or 0 for row in rows)

    problems = [row["error"] for row in rows if row["status"] != "ok"]
    return {
        "clip_id": clip.clip_id,
        "status": "error" if problems else "ok",
        "error": problems[0] if problems else "",
        "rows": len(rows),
        "failed": len(problems),
        "cached": total("cached"),
        "cost": total("cost"),
        "prompt_tokens": total("prompt_tokens"),
        "completion_tokens": total("completion_tokens"),
        "decode_s": clip.seconds,
        "engine_s": seconds,
    }
