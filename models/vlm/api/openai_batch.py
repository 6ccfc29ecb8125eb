"""OpenAI's batch mode: half the price, answers within a day; submitted, waited for and collected resumably.

What is submitted is written to a folder before and after each step, so that whoever comes after a crash waits for the
same batches and pays for nothing twice.
"""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from microg import storage
from microg.errors import ConfigError, MicrogError, describe
from microg.models.vlm.api.budget import Budget
from microg.models.vlm.api.completion import read_completion
from microg.models.vlm.api.openai import OpenAiEngine
from microg.models.vlm.api.response import TornAnswerError
from microg.models.vlm.base import Reply, Request, Sampling, content_key

# Limits of one input file: OpenAI takes 50,000 requests and 200 MB.
MOST_REQUESTS, MOST_BYTES = 50_000, 190_000_000
_ENDED = ("completed", "failed", "expired", "cancelled")
_MARK = "microg"


class BatchError(MicrogError):
    """The batch service refuses, or does not answer."""


@dataclass(frozen=True)
class Pending:
    """A batch under way. keys: content key -> keys of its requests; about: what was kept with each request, by key."""

    path: str
    batch_id: str
    keys: dict[str, list[str]]
    about: dict[str, Any]

    @property
    def requests(self) -> list[str]:
        """Keys of all requests."""
        return [name for names in self.keys.values() for name in names]


class OpenAiBatch:
    """The batch mode of an engine; state is in `folder`, one file a batch.

    Every `poll_s` seconds the service is asked how far a batch is, and `report` gets its counts (total, completed,
    failed). `budget`: what a batch may cost is set aside before it is submitted. Methods raise `BatchError`, and
    `ConfigError` where the budget does not allow a batch.
    """

    def __init__(
        self,
        engine: OpenAiEngine,
        folder: str,
        *,
        budget: Budget | None = None,
        poll_s: float = 30.0,
        report: Callable[[dict[str, int]], None] = lambda counts: None,
    ) -> None:
        self._engine, self._folder, self._budget = engine, folder, budget
        self._poll_s, self._report = poll_s, report

    def submit(self, requests: Sequence[Request], sampling: Sampling, about: Mapping[str, Any] | None = None) -> None:
        """Send requests, in as many batches as their number and size ask for.

        Requests of the same content are asked once. `about` is kept by request key and comes back with `pending`.
        """
        for chunk, lines in self._chunks(requests, sampling):
            keys = {key: [request.key for request in same] for key, same in chunk.items()}
            kept = {name: (about or {}).get(name) for names in keys.values() for name in names}
            path = self._path(keys)
            state = {"digest": _digest(keys), "keys": keys, "about": kept}
            if self._budget is not None:
                state["held"] = self._hold([same[0] for same in chunk.values()], sampling)
            storage.write_json(path, state)  # before the service hears of it: see `pending`
            storage.write_json(path, state | {"batch_id": self._send(state["digest"], lines)})

    def pending(self) -> list[Pending]:
        """Return the batches that were submitted and not collected.

        Of a batch that an earlier process meant to submit the service is asked: where it does not know it, it is
        forgotten, and what was set aside for it is free again.
        """
        result = []
        for name in storage.names(self._folder):
            if not (name.startswith("batch-") and name.endswith(".json")):
                continue
            path = storage.join(self._folder, name)
            state = storage.read_json(path)
            if "answered" in state:
                continue
            if "batch_id" not in state:
                state["batch_id"] = self._find_batch(state["digest"])
                if state["batch_id"] is None:
                    self._settle(state, 0.0)
                    storage.remove(path)
                    continue
                storage.write_json(path, state)
            result.append(Pending(path, state["batch_id"], state["keys"], state["about"]))
        return result

    def collect(self, batch: Pending) -> list[Reply]:
        """Wait until a batch has ended, well or not, and return one reply a request; `done` must follow."""
        while True:
            state = self._call(lambda client: client.batches.retrieve(batch.batch_id))
            if state.request_counts is not None:
                self._report(state.request_counts.model_dump())
            if state.status in _ENDED:
                return list(self._replies(batch.keys, state))
            time.sleep(self._poll_s)

    def done(self, batch: Pending, replies: Sequence[Reply]) -> None:
        """Note that the replies of a batch are kept elsewhere, and settle what it cost."""
        state = storage.read_json(batch.path)
        self._settle(state, sum(reply.cost or 0.0 for reply in replies))
        answered = sum(reply.status == "ok" for reply in replies)
        storage.write_json(batch.path, {**state, "about": {}, "answered": answered})

    def _chunks(
        self, requests: Sequence[Request], sampling: Sampling
    ) -> Iterator[tuple[dict[str, list[Request]], bytes]]:
        """Yield (content key -> the requests of that content, the file that asks each of them once)."""
        same: dict[str, list[Request]] = {}
        for request in requests:
            same.setdefault(content_key(self._engine, request, sampling), []).append(request)
        chunk: dict[str, list[Request]] = {}
        lines = bytearray()
        for key, group in same.items():
            line = self._line(key, group[0], sampling)
            if chunk and (len(chunk) >= MOST_REQUESTS or len(lines) + len(line) > MOST_BYTES):
                yield chunk, bytes(lines)
                chunk, lines = {}, bytearray()
            chunk[key] = group
            lines += line
        if chunk:
            yield chunk, bytes(lines)

    def _send(self, digest: str, lines: bytes) -> str:
        """Send one file and return the number of its batch."""
        data = io.BytesIO(lines)
        file = self._call(
            lambda client: client.files.create(file=(f"microg-{digest[:16]}.jsonl", data), purpose="batch")
        )
        return self._call(
            lambda client: client.batches.create(
                input_file_id=file.id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={_MARK: digest},
            )
        ).id

    def _find_batch(self, digest: str) -> str | None:
        """Return the batch of this content that an earlier run submitted without living to write it down."""

        def search(client: Any) -> str | None:
            for batch in client.batches.list(limit=100):
                if (batch.metadata or {}).get(_MARK) == digest and batch.status not in ("failed", "cancelled"):
                    return batch.id
            return None

        return self._call(search)

    def _replies(self, keys: Mapping[str, Sequence[str]], batch: Any) -> Iterator[Reply]:
        replies: dict[str, Reply] = {}
        for name in ("output_file_id", "error_file_id"):
            identifier = getattr(batch, name)
            if identifier:
                text = self._call(lambda client, identifier=identifier: client.files.content(identifier).text)
                for line in text.split("\n"):  # a text may hold what else ends lines
                    reply = self._read(line)
                    if reply is not None and reply.key in keys:
                        replies.setdefault(reply.key, reply)
        problem = f"the batch {batch.id} is {batch.status} without it"
        if batch.errors is not None and batch.errors.data:
            problem = f"the batch {batch.id} is {batch.status}: {batch.errors.data[0].message}"
        for key, (first, *others) in keys.items():
            reply = replies.get(key) or Reply(key, status="error", error=problem, cost=self._free())
            yield replace(reply, key=first)
            for name in others:
                yield replace(reply, key=name, cached=True, attempts=0, cost=self._free())

    def _free(self) -> float | None:
        return None if self._engine.price is None else 0.0

    def _read(self, line: str) -> Reply | None:
        """Return the reply in a line of an output or error file; None for a line that is none."""
        try:
            entry = json.loads(line)
            key, error = str(entry["custom_id"]), entry.get("error")
            response = entry.get("response") or {}
            status, body = response.get("status_code"), response.get("body") or {}
            error = error or (body.get("error") or {} if status != 200 else None)
            text = None if error is None else f"{error.get('code') or status}: {error.get('message')}"
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        if text is not None:
            return Reply(key, status="error", error=f"batch: {text}"[:500], cost=self._free())
        try:
            answer = read_completion(json.dumps(body).encode(), {})
        except TornAnswerError as problem:
            return Reply(key, status="error", error=str(problem))
        price = self._engine.price
        tokens = (answer.prompt_tokens or 0, answer.completion_tokens or 0, answer.cached_tokens)
        return answer.reply(key, cost=None if price is None else price.cost(*tokens, batch=True))

    def _line(self, key: str, request: Request, sampling: Sampling) -> bytes:
        body = self._engine.body(request, sampling)
        body |= body.pop("extra_body", {})
        entry = {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}
        return json.dumps(entry, ensure_ascii=False).encode() + b"\n"

    def _hold(self, requests: Sequence[Request], sampling: Sampling) -> int:
        assert self._budget is not None
        most = sum(self._engine.estimate(request, sampling, batch=True).cost or 0.0 for request in requests)
        if self._budget.check(most) != "yes":
            raise ConfigError(
                f"a batch of {len(requests)} requests may cost up to ${most:.2f}, ${self._budget.spent:.2f} are spent "
                f"and ${self._budget.held:.2f} set aside",
                "raise the cap on costs, or ask fewer rows",
            )
        return self._budget.hold(most)

    def _settle(self, state: Mapping[str, Any], cost: float) -> None:
        if self._budget is not None and "held" in state:
            with contextlib.suppress(ValueError):  # settled by a process that died before it could say so
                self._budget.settle(state["held"], cost)

    def _path(self, keys: Mapping[str, Any]) -> str:
        return storage.join(self._folder, f"batch-{_digest(keys)[:16]}.json")

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


def _digest(keys: Iterable[str]) -> str:
    return sha256("\n".join(keys).encode()).hexdigest()
