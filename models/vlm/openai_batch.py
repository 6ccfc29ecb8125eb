"""OpenAI's batch mode: half the price, answers within a day; submitted, waited for and collected resumably.

What was submitted is written to a folder before and after each step, so that the same call after a crash goes on
waiting for the same batches and pays for nothing twice.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

from microg import storage
from microg.errors import ConfigError, MicrogError, describe
from models.vlm.base import Reply, Request, Sampling, content_key
from models.vlm.budget import Budget
from models.vlm.openai_api import OpenAiEngine, read_completion
from models.vlm.prices import estimate
from models.vlm.verdict import TornAnswerError

# Limits of one input file: OpenAI takes 50,000 requests and 200 MB.
MOST_REQUESTS, MOST_BYTES = 50_000, 190_000_000
_ENDED = ("completed", "failed", "expired", "cancelled")
_MARK = "microg"


class BatchError(MicrogError):
    """The batch service refuses, or does not answer."""


class OpenAiBatch:
    """The batch mode of an engine, as an engine; state is in `folder` (any filesystem).

    Every `poll_s` seconds the service is asked how far it is, and `report` gets its counts (total, completed, failed).
    `budget`: what a batch may cost is set aside before it is submitted. Raises `BatchError`, and `ConfigError` where
    the budget does not allow a batch.
    """

    def __init__(
        self, engine: OpenAiEngine, folder: str, *, budget: Budget | None = None, poll_s: float = 30.0,
        report: Callable[[dict[str, int]], None] = lambda counts: None,
    ) -> None:  # fmt: skip
        self._engine, self._folder, self._budget = engine, folder, budget
        self._poll_s, self._report = poll_s, report
        self.name, self.model = engine.name, engine.model

    def fingerprint(self) -> dict[str, Any]:
        """Return the engine's own: the answers are the same."""
        return self._engine.fingerprint()

    def close(self) -> None:
        """Nothing is kept but the folder."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Reply]:
        """Submit what was not, wait for all, and yield one reply a request."""
        chunks = self._plan(requests, sampling)
        for chunk in chunks:
            self._submit(chunk, sampling)
        for chunk in chunks:
            yield from self._collect(chunk, self._ended(chunk))

    def _ended(self, chunk: dict[str, list[Request]]) -> Any:
        """Wait until a batch has ended, well or not, and return it."""
        identifier = self._state(chunk)["batch_id"]
        while True:
            batch = self._call(lambda client: client.batches.retrieve(identifier))
            if batch.request_counts is not None:
                self._report(batch.request_counts.model_dump())
            if batch.status in _ENDED:
                return batch
            time.sleep(self._poll_s)

    def _plan(self, requests: Sequence[Request], sampling: Sampling) -> list[dict[str, list[Request]]]:
        """Split requests into files: content key -> the requests of that content, which are asked once."""
        chunks: list[dict[str, list[Request]]] = [{}]
        size = 0
        where: dict[str, dict[str, list[Request]]] = {}
        for request in requests:
            key = content_key(self._engine, request, sampling)
            if key in where:
                where[key][key].append(request)
                continue
            line = len(self._line(key, request, sampling))
            if chunks[-1] and (len(chunks[-1]) >= MOST_REQUESTS or size + line > MOST_BYTES):
                chunks.append({})
                size = 0
            size += line
            chunks[-1][key] = [request]
            where[key] = chunks[-1]
        return [chunk for chunk in chunks if chunk]

    def _submit(self, chunk: dict[str, list[Request]], sampling: Sampling) -> None:
        """Send one file, unless that was done: then nothing happens, also when the last run died in the middle."""
        state = self._state(chunk)
        if state.get("answered") == 0:
            state = {}  # it ended without a single answer: once more
        if "batch_id" in state:
            return
        digest = _digest(chunk)
        found = self._submitted(digest) if state else None
        if found is None:
            if self._budget is not None and "held" not in state:
                state["held"] = self._hold(chunk, sampling)
            self._save(chunk, {**state, "requests": len(chunk)})
            lines = b"".join(self._line(key, same[0], sampling) for key, same in chunk.items())
            data = io.BytesIO(lines)
            name = f"microg-{digest[:16]}.jsonl"
            file = self._call(lambda client: client.files.create(file=(name, data), purpose="batch"))
            found = self._call(
                lambda client: client.batches.create(
                    input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h",
                    metadata={_MARK: digest},
                )
            ).id  # fmt: skip
        self._save(chunk, {**state, "requests": len(chunk), "batch_id": found})

    def _submitted(self, digest: str) -> str | None:
        """Return the batch of this content that an earlier run submitted without living to write it down."""

        def search(client: Any) -> str | None:
            for batch in client.batches.list(limit=100):
                if (batch.metadata or {}).get(_MARK) == digest and batch.status not in ("failed", "cancelled"):
                    return batch.id
            return None

        return self._call(search)

    def _collect(self, chunk: dict[str, list[Request]], batch: Any) -> Iterator[Reply]:
        replies: dict[str, Reply] = {}
        for name in ("output_file_id", "error_file_id"):
            identifier = getattr(batch, name)
            if identifier:
                text = self._call(lambda client, identifier=identifier: client.files.content(identifier).text)
                for line in text.splitlines():
                    reply = self._read(line)
                    if reply is not None and reply.key in chunk:
                        replies.setdefault(reply.key, reply)
        problem = f"the batch {batch.id} is {batch.status} without it"
        if batch.errors is not None and batch.errors.data:
            problem = f"the batch {batch.id} is {batch.status}: {batch.errors.data[0].message}"
        for key in chunk:
            replies.setdefault(key, Reply(key, status="error", error=problem, cost=self._free()))
        self._settle(chunk, list(replies.values()))
        for key, same in chunk.items():
            yield replace(replies[key], key=same[0].key)
            for request in same[1:]:
                yield replace(replies[key], key=request.key, cached=True, attempts=0, cost=self._free())

    def _free(self) -> float | None:
        return None if self._engine.price is None else 0.0

    def _read(self, line: str) -> Reply | None:
        """Return the reply in a line of an output or error file; None for a line that is none."""
        try:
            entry = json.loads(line)
            key = entry["custom_id"]
            response, error = entry.get("response") or {}, entry.get("error")
        except (ValueError, KeyError, TypeError):
            return None
        price = self._engine.price
        if error or response.get("status_code") != 200:
            body = response.get("body") or {}
            found = error or body.get("error") or {}
            text = f"{found.get('code') or response.get('status_code')}: {found.get('message')}"
            return Reply(key, status="error", error=f"batch: {text}"[:500], cost=self._free())
        try:
            answer = read_completion(json.dumps(response["body"]).encode(), {})
        except TornAnswerError as problem:
            return Reply(key, status="error", error=str(problem))
        cost = None
        if price is not None:
            used = (answer.prompt_tokens or 0, answer.completion_tokens or 0, answer.cached_tokens)
            cost = price.cost(*used, batch=True)
        return Reply(
            key, answer.text, "ok" if answer.error is None else "error", answer.error, answer.finish_reason,
            answer.prompt_tokens, answer.completion_tokens, cost=cost,
        )  # fmt: skip

    def _line(self, key: str, request: Request, sampling: Sampling) -> bytes:
        body = self._engine.body(request, sampling)
        body |= body.pop("extra_body", {})
        entry = {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}
        return json.dumps(entry, ensure_ascii=False).encode() + b"\n"

    def _hold(self, chunk: dict[str, list[Request]], sampling: Sampling) -> int:
        assert self._budget is not None
        price = self._engine.price
        most = sum(estimate(same[0], sampling, price, batch=True).cost for same in chunk.values())
        if self._budget.check(most) != "yes":
            raise ConfigError(
                f"a batch of {len(chunk)} requests may cost up to ${most:.2f}, ${self._budget.spent:.2f} are spent "
                f"and ${self._budget.held:.2f} set aside", "raise the cap on costs, or ask fewer rows",
            )  # fmt: skip
        return self._budget.hold(most)

    def _settle(self, chunk: dict[str, list[Request]], replies: list[Reply]) -> None:
        state = self._state(chunk)
        if "answered" in state:
            return
        if self._budget is not None and "held" in state:
            self._budget.settle(state["held"], sum(reply.cost or 0.0 for reply in replies))
        self._save(chunk, {**state, "answered": sum(reply.status == "ok" for reply in replies)})

    def _path(self, chunk: dict[str, list[Request]]) -> str:
        return storage.join(self._folder, f"batch-{_digest(chunk)[:16]}.json")

    def _state(self, chunk: dict[str, list[Request]]) -> dict[str, Any]:
        path = self._path(chunk)
        return storage.read_json(path) if storage.exists(path) else {}

    def _save(self, chunk: dict[str, list[Request]], state: dict[str, Any]) -> None:
        storage.write_json(self._path(chunk), state)

    def _call(self, use: Callable[[Any], Any]) -> Any:
        """Use a client; what goes wrong becomes a `BatchError` without the key in it."""
        import openai

        key = self._engine.key()
        try:
            with openai.OpenAI(api_key=key, base_url=self._engine.base_url, max_retries=5) as client:
                return use(client)
        except openai.OpenAIError as error:
            text = describe(error).replace(key, "[key]") if len(key) > 4 else describe(error)
            raise BatchError(
                f"the batch service at {self._engine.base_url} refuses: {text}",
                f"check the key in {self._engine.key_variable}; the same command resumes",
            ) from None


def _digest(chunk: dict[str, list[Request]]) -> str:
    return sha256("\n".join(chunk).encode()).hexdigest()
