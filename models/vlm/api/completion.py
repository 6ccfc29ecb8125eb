"""What a chat completion says, of OpenAI and of servers that are nearly like it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from microg.errors import describe
from microg.models.vlm.api.response import Answer, TornAnswerError

_MOST_WORDS = 400
# Kinds of parts that are the answer; others are what a model thought, or no text.
_TEXT_PARTS = ("text", "output_text", None)
_REASONING = ("reasoning", "reasoning_content", "reasoning_details")
_MOST_TOKENS = 2**53


def read_completion(raw: bytes, headers: Mapping[str, str]) -> Answer:
    """Return what a chat completion says.

    Text may be a list of parts. No answer depends on the counts of tokens beside it: what is no number is not known.
    Raises `TornAnswerError` for what is no completion, with the server's own words where it says any.
    """
    try:
        document = json.loads(raw)
        stated = _stated_error(document)
        if stated is not None:
            raise stated
        choice = document["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
        text, problem = _text(message.get("content")), _problem(message, reason)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        start = raw[:80].decode("utf-8", "replace")
        raise TornAnswerError(f"the answer is no chat completion ({describe(error)}): {start!r}") from None
    usage = _mapping(document.get("usage"))
    return Answer(
        text if problem is None else None,
        problem,
        None if reason is None else str(reason),
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        _count(_mapping(usage.get("prompt_tokens_details")).get("cached_tokens")) or 0,
        _positive(headers.get("x-ratelimit-limit-requests")),
        _positive(headers.get("x-ratelimit-limit-tokens")),
    )


def _stated_error(document: Any) -> TornAnswerError | None:
    """Return the error that a server tells in place of an answer, with status 200."""
    if not isinstance(document, dict):
        return None
    choices = document.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    found = document.get("error") or _mapping(choice).get("error")
    if choice is None:
        found = found or document.get("detail") or document.get("message")
    if not found:
        return None
    about = _mapping(found)
    words = [part for part in (about.get("message"), _mapping(about.get("metadata")).get("raw")) if part]
    text = ": ".join(map(str, words or [found]))
    code = str(about.get("code"))
    known = int(code) if code.isascii() and code.isdecimal() and len(code) == 3 else None
    return TornAnswerError(f"an error with HTTP 200: {' '.join(text.split())[:_MOST_WORDS]}", known)


def _text(content: Any) -> str:
    """Return the answer in a message's content: a text, a part, or a list of them."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(map(_text, content))
    part = _mapping(content)
    found = part.get("text")
    return found if part.get("type") in _TEXT_PARTS and isinstance(found, str) else ""


def _problem(message: Mapping[str, Any], reason: Any) -> str | None:
    """Return why a message is no answer, or None."""
    content, refusal = message.get("content"), message.get("refusal")
    if reason == "content_filter":
        return "stopped by the server's filter (finish_reason content_filter)"
    if _text(content).strip():
        return None
    if refusal:
        return f"refused: {refusal}"[:_MOST_WORDS]
    thought = (isinstance(content, list) and content) or any(message.get(name) for name in _REASONING)
    return f"no text (finish_reason {reason})" + ("; reasoning came beside it" if thought else "")


def _count(value: Any) -> int | None:
    """Return a number of tokens, None for what is none."""
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        return None
    return int(number) if 0 <= number < _MOST_TOKENS else None


def _positive(text: str | None) -> float | None:
    try:
        value = float(text) if text else 0.0
    except ValueError:
        return None
    return value if 0 < value < math.inf else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
