"""Gemini models through Google's own client (google-genai); frames go as pictures inside the request, in order."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from microg.errors import describe
from microg.models.vlm.api.engine import ApiEngine
from microg.models.vlm.api.response import Answer, TornAnswerError, Verdict, retry_after_s, status_verdict
from microg.models.vlm.base import Request, Sampling

_GOOGLE = "https://generativelanguage.googleapis.com"
_API_VERSION = "v1beta"
# Google answers a wrong key with 400, not 401.
_BAD_KEY = ("API_KEY_INVALID", "API key not valid", "API key expired")

# Why an answer ends that is the model's own; all others are filters, or faults of the server.
_ENDS = (None, "STOP", "MAX_TOKENS", "FINISH_REASON_UNSPECIFIED")


@dataclass
class GeminiEngine(ApiEngine):
    """A Gemini model (see `ApiEngine`).

    `thinking_budget`: tokens the model may think for, 0 none, None its own default; they are billed as answer and
    count against `Sampling.max_tokens`.
    """

    key_variable: str = "GEMINI_API_KEY"
    name: str = "gemini"
    thinking_budget: int | None = None

    def fingerprint(self) -> dict[str, Any]:
        """Return engine, model, server, how frames are sent, and the thinking budget."""
        thinking = {} if self.thinking_budget is None else {"thinking_budget": self.thinking_budget}
        return super().fingerprint() | thinking

    def _default_url(self) -> str:
        return _GOOGLE

    @asynccontextmanager
    async def _client(self, key: str) -> AsyncIterator[Any]:
        import httpx
        from google import genai
        from google.genai import types

        # an httpx client of ours: with its default one google-genai repeats failed connections behind our back
        async with httpx.AsyncClient(timeout=None) as transport:
            options = types.HttpOptions(
                base_url=str(self.base_url), api_version=_API_VERSION, httpx_async_client=transport
            )
            client = genai.Client(vertexai=False, api_key=key, http_options=options)
            try:
                yield client.aio.models
            finally:
                client.close()

    def body(self, request: Request, sampling: Sampling) -> dict[str, Any]:
        from google.genai import types

        parts = []
        if request.frames is not None:
            files = self.picture_files(request.frames)
            parts = [types.Part.from_bytes(data=data, mime_type=f"image/{self.picture_format}") for data in files]
        parts.append(types.Part.from_text(text=request.prompt))
        config: dict[str, Any] = {
            "max_output_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        if request.system:
            config["system_instruction"] = request.system
        if sampling.seed is not None:
            config["seed"] = sampling.seed
        if sampling.stop:
            config["stop_sequences"] = list(sampling.stop)
        if sampling.json_schema is not None:
            config |= {"response_mime_type": "application/json", "response_json_schema": dict(sampling.json_schema)}
        if self.thinking_budget is not None:
            config["thinking_config"] = types.ThinkingConfig(thinking_budget=self.thinking_budget)
        return {
            "model": self.model,
            "contents": [types.Content(role="user", parts=parts)],
            "config": types.GenerateContentConfig(**config),
        }

    async def _send(self, client: Any, body: Any) -> Answer:
        from google.genai import errors
        from pydantic import ValidationError

        try:
            response = await client.generate_content(**body)
        except (json.JSONDecodeError, ValidationError, errors.UnknownApiResponseError) as error:
            raise TornAnswerError(f"the answer is no JSON of Gemini: {describe(error)[:200]}") from None
        return _answer(response)

    def _judge(self, error: Exception) -> Verdict:
        import httpx
        from google.genai import errors

        if isinstance(error, errors.APIError) and isinstance(error.code, int):
            message = " ".join(str(error.message or error.status or "").split())
            text = f"HTTP {error.code}: {message}"[:500]
            if error.code == 400 and any(mark in str(error.details) for mark in _BAD_KEY):
                return Verdict("run_error", text, unbilled=True)
            headers = getattr(error.response, "headers", None) or {}
            after = retry_after_s(headers)
            return status_verdict(error.code, text, _retry_delay_s(error.details) if after is None else after)
        if isinstance(error, httpx.TransportError):
            never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            return Verdict("retry", f"connection failed: {describe(error)}", unbilled=never_sent)
        return Verdict("retry", describe(error))


def _answer(response: Any) -> Answer:
    usage = response.usage_metadata
    prompt_tokens = completion_tokens = None
    cached = 0
    if usage is not None and usage.prompt_token_count is not None:
        prompt_tokens = int(usage.prompt_token_count)
        # thinking is billed as answer
        completion_tokens = int(usage.candidates_token_count or 0) + int(usage.thoughts_token_count or 0)
        cached = int(usage.cached_content_token_count or 0)
    counts = (prompt_tokens, completion_tokens, cached)
    if not response.candidates:
        feedback = response.prompt_feedback
        if feedback is None or feedback.block_reason is None:
            raise TornAnswerError("the answer holds no candidates")
        return Answer(None, f"blocked: {_name(feedback.block_reason)}", None, *counts)
    candidate = response.candidates[0]
    reason = _name(candidate.finish_reason) if candidate.finish_reason is not None else None
    parts = (candidate.content.parts if candidate.content is not None else None) or []
    text = "".join(part.text for part in parts if part.text and not part.thought)
    if reason not in _ENDS:
        return Answer(None, f"stopped by the server (finish_reason {reason})", reason, *counts)
    if not text.strip():
        return Answer(None, f"no text (finish_reason {reason})", reason, *counts)
    return Answer(text, None, reason, *counts)


def _name(value: Any) -> str:
    return str(getattr(value, "value", value))


def _retry_delay_s(details: Any) -> float | None:
    """Return the seconds of a `google.rpc.RetryInfo` in an error's details, such as "34s" or "0.5s"."""
    try:
        for detail in details["error"]["details"]:
            if str(detail.get("@type", "")).endswith("google.rpc.RetryInfo"):
                return max(0.0, float(str(detail["retryDelay"]).removesuffix("s")))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return None
