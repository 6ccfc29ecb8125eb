"""What a server's response means: an answer, or a failure that passes, stays, or ends the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Status codes: what no request can survive (a wrong key, no permission, no such model), what passes, what was too much.
_FATAL, _AGAIN, _TOO_MUCH = (401, 403, 404), (408, 409, 425, 429), (429, 503, 529)


@dataclass(frozen=True)
class Answer:
    """What a server said. `error` is set where it answered without text; the limits are those its response named."""

    text: str | None
    error: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int = 0
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What a failure means: try `again`, `final` for this request, or `fatal` for all.

    `refused`: it was too much for the server. `unbilled`: it surely cost nothing; else it may have, and counts.
    """

    kind: Literal["again", "final", "fatal"]
    problem: str
    after_s: float | None = None
    refused: bool = False
    unbilled: bool = False


class TornAnswerError(Exception):
    """A response that is no answer."""


def status_verdict(code: int, problem: str, after_s: float | None) -> Verdict:
    """Return what an HTTP status means. Providers bill no request that they answer with an error."""
    if code in _FATAL:
        return Verdict("fatal", problem, unbilled=True)
    again = code >= 500 or code in _AGAIN
    return Verdict("again" if again else "final", problem, after_s, refused=code in _TOO_MUCH, unbilled=True)
