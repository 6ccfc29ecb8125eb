"""What engines of all providers share: the key, the gate, retries, deadlines, and one reply for each request.

A provider says how a request is written, sent and read (`OpenAiEngine`, `GeminiEngine`); everything about failure is
here, so that it is the same everywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import random
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import cv2

from microg.errors import ConfigError, describe
from microg.models.vlm.api.gate import BudgetError, Gate, Limits, LocalGate, Outcome, Wait
from microg.models.vlm.api.response import Answer, RetryPolicy, TornAnswerError, Verdict, status_verdict
from microg.models.vlm.base import Engine, Frames, Reply, Request, Sampling
from microg.models.vlm.prices import Price, price_of

_LOCAL = ("localhost", "127.0.0.1", "::1")
# A request that has not ended this long after its own timeout was killed with its process.
_LEASE_S = 30.0
# Frames that several questions share are encoded once.
_files: WeakKeyDictionary[Frames, dict[tuple[str, int], list[bytes]]] = WeakKeyDictionary()


@dataclass
class ApiEngine(Engine):
    """A model behind a server; up to `concurrency` requests are under way at once, fewer when the server refuses.

    `base_url` None means the provider's own. The key is read from the environment variable `key_variable` when the
    first request is made and is kept nowhere; servers on this machine need none. `gate` None means one of this
    engine's own, without limits on pace and money. `price` None means the table's. After `give_up_after` requests in
    a row that failed for all their attempts the rest is answered as failed without being sent. `picture_format` `png`
    sends exact pixels; `jpeg` does not, at `quality` 1 to 100.
    """

    runs_here: ClassVar[bool] = False
    calls_at_once: ClassVar[int] = 2
    model: str
    base_url: str | None = None
    key_variable: str = ""
    concurrency: int = 8
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    name: str = ""
    gate: Gate | None = None
    price: Price | None = None
    give_up_after: int = 16
    picture_format: Literal["jpeg", "png"] = "jpeg"
    quality: int = 95
    _answered: bool = field(default=False, init=False, repr=False)
    _refusals: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        self.retry = RetryPolicy.of(self.retry)
        self.base_url = (self.base_url or self._default_url()).rstrip("/")
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{self.base_url!r} is no URL of a server", "it looks like http://127.0.0.1:8000/v1")
        if parts.username or parts.password or parts.query:
            raise ConfigError(
                "the server's URL holds a password or parameters, which would be written to run folders",
                f"put the key into the environment variable {self.key_variable}",
            )
        self.price = self.price or price_of(self.model)
        self.gate = self.gate or LocalGate(Limits(concurrency=self.concurrency))

    @property
    def local(self) -> bool:
        """Whether the server is on this machine."""
        return urlsplit(str(self.base_url)).hostname in _LOCAL

    def fingerprint(self) -> dict[str, Any]:
        """Return engine, model, server and how pictures are sent; providers add what else decides an answer."""
        pictures = f"jpeg{self.quality}" if self.picture_format == "jpeg" else self.picture_format
        return {"engine": self.name, "model": self.model, "server": self.base_url, "pictures": pictures}

    def picture_files(self, frames: Frames) -> list[bytes]:
        """Return each frame as a file of `picture_format`."""
        known, form = _files.setdefault(frames, {}), (self.picture_format, self.quality)
        if form not in known:
            jpeg = [cv2.IMWRITE_JPEG_QUALITY, self.quality]
            extension, options = (".jpg", jpeg) if form[0] == "jpeg" else (".png", [cv2.IMWRITE_PNG_COMPRESSION, 3])
            files = (cv2.imencode(extension, frame[..., ::-1], options)[1] for frame in frames.pixels)
            known[form] = [data.tobytes() for data in files]
        return known[form]

    def check_ready(self) -> None:
        """Check that there is a key (see `key`)."""
        self.key()

    def worker_notes(self) -> list[str]:
        """Say where the key must be."""
        return [f"the key is read by Ray's workers: {self.key_variable} must be set where Ray was started"]

    @property
    def can_cap_costs(self) -> bool:
        """Whether the price is known, or the server is on this machine and costs nothing."""
        return self.price is not None or self.local

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Reply]:
        """Yield one reply a request, in the order they finish (see `microg.models.vlm.base.Engine`).

        Leaving the iterator early cancels what is under way.
        """
        self.key()
        done: queue.Queue[Reply | BaseException | None] = queue.Queue()
        loop = asyncio.new_event_loop()

        async def pump() -> None:
            async with contextlib.aclosing(self.stream(requests, sampling)) as replies:
                async for reply in replies:
                    done.put(reply)

        task = loop.create_task(pump())

        def work() -> None:
            try:
                loop.run_until_complete(task)
            except asyncio.CancelledError:
                pass
            except BaseException as error:
                done.put(error)
            finally:
                loop.run_until_complete(loop.shutdown_asyncgens())
                loop.close()
                done.put(None)

        worker = threading.Thread(target=work, name=f"{self.name}-engine", daemon=True)
        worker.start()
        try:
            while (reply := done.get()) is not None:
                if isinstance(reply, BaseException):
                    raise reply
                yield reply
        finally:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(task.cancel)
            worker.join()

    async def stream(self, requests: Sequence[Request], sampling: Sampling) -> AsyncGenerator[Reply]:
        """Yield the replies of `generate` in a running event loop."""
        key = self.key()
        done: asyncio.Queue[Reply] = asyncio.Queue()
        waiting = iter(requests)
        record = _Record(self.give_up_after)
        async with self._client(key) as client:

            async def work() -> None:
                for request in waiting:
                    done.put_nowait(await self._answer(client, request, sampling, key, record))

            workers = [asyncio.create_task(work()) for _ in range(min(self.concurrency, len(requests)))]
            try:
                for _ in range(len(requests)):
                    yield await _next(done, workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _answer(self, client: Any, request: Request, sampling: Sampling, key: str, record: _Record) -> Reply:
        """Ask until there is an answer, an error that stays, or no time, attempts or money left."""
        if record.hopeless:
            return Reply(request.key, status="error", error=record.hopeless, attempts=0, cost=self._cost(0.0))
        try:
            body = self.body(request, sampling)
            expected = self.estimate(request, sampling)
        except ConfigError:
            raise
        except Exception as error:  # a request that cannot be written is a failed row, not a failed run
            return Reply(request.key, status="error", error=f"not sent: {describe(error)}", attempts=0)
        chance = random.Random(request.key)
        started: float | None = None
        cost, attempt, problem = 0.0, 0, ""
        while attempt < self.retry.attempts:
            left = self.retry.deadline_s - (time.monotonic() - started if started is not None else 0.0)
            timeout = min(self.retry.timeout_s, max(left, 0.0))
            assert self.gate is not None
            try:
                patience = None if started is None else max(left, 0.0)
                dollars = expected.cost or 0.0
                permit = await self.gate.start(expected.tokens, dollars, timeout + _LEASE_S, patience)
            except BudgetError as error:
                problem = f"not sent: {error}" + (f" (before: {problem})" if problem else "")
                break
            if isinstance(permit, Wait):
                problem = f"gave up after {attempt} attempts: {problem}"
                break
            started = time.monotonic() if started is None else started
            attempt += 1
            outcome = Outcome("failed")
            try:
                response = await self._try(client, body, key, timeout)
                outcome = self._outcome(response)
            finally:
                cost += await self.gate.finish(permit, outcome)
            if isinstance(response, Answer):
                self._answered = True
                record.succeeded()
                seconds = time.monotonic() - started
                return response.reply(request.key, latency_s=seconds, attempts=attempt, cost=self._cost(cost))
            problem = response.problem
            if response.kind == "run_error" and not self._is_of_one_request(response):
                raise ConfigError(
                    f"{self.base_url} refuses model {self.model!r}: {problem}",
                    f"check the model's name, the URL and the key in {self.key_variable}",
                ) from None
            if response.kind == "run_error":
                record.failed(problem)
                break
            if response.kind == "row_error":
                record.succeeded()  # the server is there
                break
            wait = self.retry.wait_s(attempt, response.after_s, chance)
            if attempt == self.retry.attempts or time.monotonic() - started + wait > self.retry.deadline_s:
                problem = f"gave up after {attempt} attempts: {problem}"
                record.failed(problem)
                break
            await asyncio.sleep(wait)
        seconds = 0.0 if started is None else time.monotonic() - started
        return Reply(
            request.key, status="error", error=problem, latency_s=seconds, attempts=attempt, cost=self._cost(cost)
        )

    async def _try(self, client: Any, body: Any, key: str, timeout: float) -> Answer | Verdict:
        try:
            # not the client's own timeout: that one begins again with every byte of a slow answer
            async with asyncio.timeout(timeout):
                return await self._send(client, body)
        except TimeoutError:
            return Verdict("retry", "the server did not answer in time", refused=True)
        except TornAnswerError as error:
            problem = _without_key(str(error), key)
            return Verdict("retry", problem) if error.code is None else status_verdict(error.code, problem, None)
        except Exception as error:
            verdict = self._judge(error)
            return replace(verdict, problem=_without_key(verdict.problem, key))

    def _is_of_one_request(self, verdict: Verdict) -> bool:
        """Tell whether a `run_error` fails its own request only (see `Verdict.pardons`)."""
        self._refusals += 1
        return verdict.pardons is not None and (self._answered or self._refusals <= verdict.pardons)

    def _outcome(self, response: Answer | Verdict) -> Outcome:
        free = 0.0 if self.price is None else None
        if isinstance(response, Verdict):
            cost = 0.0 if response.unbilled else free
            return Outcome("refused" if response.refused else "failed", cost=cost, retry_after_s=response.after_s)
        limits = {name: getattr(response, name) for name in ("requests_per_minute", "tokens_per_minute")}
        read, written = response.prompt_tokens, response.completion_tokens
        if read is None or written is None:
            return Outcome("ok", cost=free, **limits)
        cost = free if self.price is None else self.price.cost(read, written, response.cached_tokens)
        return Outcome("ok", read + written, cost, **limits)

    def _cost(self, dollars: float) -> float | None:
        return None if self.price is None else dollars

    def key(self) -> str:
        """Return the key from the environment. Raises `ConfigError` where there is none and one is needed."""
        key = os.environ.get(self.key_variable, "").strip()
        if key:
            return key
        if self.local:
            return "none"
        raise ConfigError(
            f"no key for {self.base_url}: the environment variable {self.key_variable} is not set",
            f"export {self.key_variable}=..., or name another variable",
        )

    # What a provider says.

    def _default_url(self) -> str:
        raise NotImplementedError

    def _client(self, key: str) -> AbstractAsyncContextManager[Any]:
        """Return the client that `_send` uses; closed when a batch of requests has ended."""
        raise NotImplementedError

    def body(self, request: Request, sampling: Sampling) -> Any:
        """Return a request as the provider writes it; what is wrong with all requests raises `ConfigError`."""
        raise NotImplementedError

    async def _send(self, client: Any, body: Any) -> Answer:
        """Send once. Raises `TornAnswerError` for a response that is no answer, else the client's own errors."""
        raise NotImplementedError

    def _judge(self, error: Exception) -> Verdict:
        """Say what an error of `_send` means."""
        raise NotImplementedError


class _Record:
    """Counts requests that failed in a row, and says when it is time to stop asking."""

    def __init__(self, most: int) -> None:
        self._most, self._failed, self.hopeless = most, 0, ""

    def succeeded(self) -> None:
        self._failed = 0

    def failed(self, problem: str) -> None:
        self._failed += 1
        if self._failed >= self._most:
            self.hopeless = f"not sent: {self._failed} requests in a row failed before it, the last: {problem}"


async def _next(done: asyncio.Queue[Reply], workers: list[asyncio.Task[None]]) -> Reply:
    """Return the next reply; raises what ended a worker."""
    getter = asyncio.ensure_future(done.get())
    try:
        while True:
            running = [worker for worker in workers if not worker.done()]
            await asyncio.wait([getter, *running], return_when=asyncio.FIRST_COMPLETED)
            for worker in workers:
                if worker.done() and not worker.cancelled() and (error := worker.exception()) is not None:
                    raise error
            if getter.done():
                return getter.result()
    finally:
        getter.cancel()


def _without_key(text: str, key: str) -> str:
    return text.replace(key, "[key]") if len(key) > 4 else text
