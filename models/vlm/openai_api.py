"""Any OpenAI-compatible server: OpenAI itself, `vllm serve`, and others that speak chat completions.

The key comes from an environment variable and goes nowhere but into the request's header.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import queue
import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from microg.errors import ConfigError, describe
from models.vlm.base import Reply, Request, Sampling
from models.vlm.retry import RetryPolicy, retry_after_s

_OPENAI = "https://api.openai.com/v1"
_LOCAL = ("localhost", "127.0.0.1", "::1")
_JPEG_QUALITY = 95
# What a server says when trying again cannot help: a wrong key, no permission, no such model or path.
_FATAL = (401, 403, 404)
_AGAIN = (408, 409, 425, 429)


@dataclass
class OpenAiEngine:
    """A model behind an OpenAI-compatible server; up to `concurrency` requests are under way at once.

    `base_url` None means the variable OPENAI_BASE_URL, or OpenAI. The key is read from the environment variable
    `key_variable` when the first request is made; servers on this machine need none.
    """

    model: str
    base_url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 8
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    name: str = "openai"

    def __post_init__(self) -> None:
        self.base_url = (self.base_url or os.environ.get("OPENAI_BASE_URL") or _OPENAI).rstrip("/")
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{self.base_url!r} is no URL of a server", "it looks like http://127.0.0.1:8000/v1")
        if parts.username or parts.password:
            raise ConfigError(
                "the server's URL holds a password, which would be written to run folders",
                f"put the key into the environment variable {self.key_variable}",
            )

    def fingerprint(self) -> dict[str, Any]:
        """Return engine, model, server and picture encoding."""
        return {"engine": self.name, "model": self.model, "server": self.base_url, "pictures": f"jpeg{_JPEG_QUALITY}"}

    def close(self) -> None:
        """Nothing is kept between calls."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Reply]:
        """Yield one reply a request, in the order they finish (see `models.vlm.base.Engine`).

        Leaving the iterator early cancels what is under way.
        """
        key = self.key()
        done: queue.Queue[Reply | BaseException | None] = queue.Queue()
        loop = asyncio.new_event_loop()
        task = loop.create_task(self._run(list(requests), sampling, key, done))

        def work() -> None:
            try:
                loop.run_until_complete(task)
            except asyncio.CancelledError:
                pass
            except BaseException as error:
                done.put(error)
            finally:
                loop.close()
                done.put(None)

        worker = threading.Thread(target=work, name="openai-engine", daemon=True)
        worker.start()
        try:
            while (found := done.get()) is not None:
                if isinstance(found, BaseException):
                    raise found
                yield found
        finally:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(task.cancel)
            worker.join()

    def key(self) -> str:
        """Return the key, for the header only. Raises `ConfigError` when there is none and the server is elsewhere."""
        key = os.environ.get(self.key_variable, "").strip()
        if key:
            return key
        if urlsplit(str(self.base_url)).hostname in _LOCAL:
            return "none"
        raise ConfigError(
            f"no key for {self.base_url}: the environment variable {self.key_variable} is not set",
            f"export {self.key_variable}=..., or name another variable",
        )

    async def _run(self, requests: list[Request], sampling: Sampling, key: str, done: queue.Queue) -> None:
        from openai import AsyncOpenAI

        waiting = iter(requests)
        # retries are ours: the client's own know no deadline over all attempts and do not repeat a torn answer
        async with AsyncOpenAI(api_key=key, base_url=self.base_url, max_retries=0) as client:

            async def work() -> None:
                for request in waiting:
                    done.put(await self._answer(client, request, sampling, key))

            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self.concurrency, len(requests))):
                        group.create_task(work())
            except BaseExceptionGroup as several:
                raise several.exceptions[0] from None

    async def _answer(self, client: Any, request: Request, sampling: Sampling, key: str) -> Reply:
        """Ask until there is an answer, an error that stays, or no time left."""
        body = self._body(request, sampling)
        chance = random.Random(request.key)
        started = time.monotonic()
        problem = "no attempt was made"
        attempt = 0
        while attempt < self.retry.attempts:
            left = self.retry.deadline_s - (time.monotonic() - started)
            if left <= 0:
                break
            attempt += 1
            after = None
            try:
                # not the client's own timeout: that one begins again with every byte of a slow answer
                async with asyncio.timeout(min(self.retry.timeout_s, left)):
                    response = await client.chat.completions.with_raw_response.create(**body)
                return _reply(request.key, response.content, time.monotonic() - started, attempt)
            except Exception as error:
                verdict, problem, after = _judge(error)
                problem = _without_key(problem, key)
                if verdict == "fatal":
                    raise ConfigError(
                        f"{self.base_url} refuses model {self.model!r}: {problem}",
                        f"check the model's name, the URL and the key in {self.key_variable}",
                    ) from None
                if verdict == "final":
                    break
            wait = self.retry.wait_s(attempt, after, chance)
            if attempt == self.retry.attempts or time.monotonic() - started + wait > self.retry.deadline_s:
                problem = f"gave up after {attempt} attempts: {problem}"
                break
            await asyncio.sleep(wait)
        seconds = time.monotonic() - started
        return Reply(request.key, status="error", error=problem, latency_s=seconds, attempts=attempt)

    def _body(self, request: Request, sampling: Sampling) -> dict[str, Any]:
        content: Any = request.prompt
        if request.frames is not None:
            pictures = [_picture(frame) for frame in request.frames.pixels]
            content = [*pictures, {"type": "text", "text": request.prompt}]
        system = [{"role": "system", "content": request.system}] if request.system else []
        body: dict[str, Any] = {
            "model": self.model, "messages": [*system, {"role": "user", "content": content}],
            "temperature": sampling.temperature, "top_p": sampling.top_p,
        }  # fmt: skip
        # OpenAI's newer models refuse the old name; most other servers know only that one
        body["max_completion_tokens" if self.base_url == _OPENAI else "max_tokens"] = sampling.max_tokens
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.json_schema is not None:
            shape = {"name": "answer", "strict": True, "schema": dict(sampling.json_schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": shape}
        return body


class _TornAnswerError(Exception):
    """A response that is no chat completion."""


def _reply(key: str, raw: bytes, seconds: float, attempts: int) -> Reply:
    try:
        document = json.loads(raw)
        choice = document["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
        text = message.get("content")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        start = raw[:80].decode("utf-8", "replace")
        raise _TornAnswerError(f"the answer is no chat completion ({describe(error)}): {start!r}") from None
    usage = document.get("usage") or {}
    counts = {
        "finish_reason": reason, "prompt_tokens": usage.get("prompt_tokens"),
        "completion_tokens": usage.get("completion_tokens"), "latency_s": seconds, "attempts": attempts,
    }  # fmt: skip
    if not isinstance(text, str):
        refusal = message.get("refusal")
        why = f"refused: {refusal}" if refusal else f"no text (finish_reason {reason})"
        return Reply(key, status="error", error=why, **counts)
    return Reply(key, text, **counts)


def _judge(error: Exception) -> tuple[str, str, float | None]:
    """Return what an error means (again | final | fatal), its description, and Retry-After in seconds."""
    import openai

    if isinstance(error, openai.APIStatusError):
        code = error.status_code
        text = f"HTTP {code}: {' '.join(str(error.message).split())}"[:500]
        if code in _FATAL or error.code == "insufficient_quota":  # the latter is a 429 that no waiting heals
            return "fatal", text, None
        again = code >= 500 or code in _AGAIN
        return "again" if again else "final", text, retry_after_s(error.response.headers)
    if isinstance(error, TimeoutError | openai.APITimeoutError):
        return "again", "the server did not answer in time", None
    if isinstance(error, openai.APIConnectionError):
        return "again", f"connection failed: {describe(error.__cause__ or error)}", None
    if isinstance(error, _TornAnswerError):
        return "again", str(error), None
    # a body cut off in transit and the like: the transport's own errors, which differ between its versions
    return "again", describe(error), None


def _without_key(text: str, key: str) -> str:
    return text.replace(key, "[key]") if len(key) > 4 else text


def _picture(frame: np.ndarray) -> dict[str, Any]:
    import cv2

    _, data = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    url = "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
    return {"type": "image_url", "image_url": {"url": url}}
