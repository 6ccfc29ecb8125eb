"""A server on 127.0.0.1 that speaks Gemini's REST shapes and misbehaves on demand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from tests.support.model_server import Fault, ModelServer


def failure(status: int, message: str = "no", name: str = "INTERNAL", retry_delay: str | None = None) -> Fault:
    """Return an error as Google writes it, with the delay it asks for inside."""
    error: dict[str, Any] = {"code": status, "message": message, "status": name}
    if retry_delay is not None:
        error["details"] = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": retry_delay}]
    return status, {}, json.dumps({"error": error}).encode(), None, 0.0


def hang(seconds: float) -> Fault:
    """Return an answer that comes after `seconds`."""
    return 200, {}, content("late"), None, seconds


def content(text: str | None, finish_reason: str = "STOP", thoughts: int = 0) -> bytes:
    """Return a generated content; without text as Gemini answers that used up its tokens."""
    parts = [] if text is None else [{"text": text}]
    candidate = {"content": {"parts": parts, "role": "model"}, "finishReason": finish_reason, "index": 0}
    usage = {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10 + thoughts}
    if thoughts:
        usage["thoughtsTokenCount"] = thoughts
    return json.dumps(
        {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-test", "responseId": "r"}
    ).encode()


def blocked(reason: str = "SAFETY") -> Fault:
    """Return the answer to a prompt that was blocked."""
    usage = {"promptTokenCount": 7, "totalTokenCount": 7}
    return 200, {}, json.dumps({"promptFeedback": {"blockReason": reason}, "usageMetadata": usage}).encode(), None, 0.0


@dataclass
class GeminiServer(ModelServer):
    """generateContent of the v1beta API (see `ModelServer`)."""

    answer: Callable[[dict[str, Any]], str | None] = lambda body: f"said: {prompt_of(body)}"
    key_header: ClassVar[str] = "x-goog-api-key"

    def prompt_of(self, body: dict[str, Any]) -> str:
        """Return the text of a request's last part."""
        return prompt_of(body)

    def completion(self, text: str | None) -> bytes:
        """Return a generated content."""
        return content(text)


def prompt_of(body: dict[str, Any]) -> str:
    """Return the text of a request's last part."""
    return body["contents"][-1]["parts"][-1]["text"]
