"""What a server's response means (an answer, or a failure of a kind), and when to send a request again."""

from __future__ import annotations

import email.utils
import math
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from microg.errors import ConfigError
from microg.models.vlm.base import Reply

# Status codes: what no request can survive (a wrong key, no permission, no such model) with how many of them in a row
# may yet be of single requests; what passes; what was too much.
_RUN_ERROR: dict[int, int | None] = {401: None, 403: 2, 404: 0}
_RETRY, _TOO_MUCH = (408, 409, 425, 429), (429, 503, 529)
# What servers say in a 403 that is about what a request shows or asks, not about who asks.
_OF_INPUT = re.compile(r"flagged|moderat|violat|guideline|safety|harmful|inappropriate|content.?(policy|filter)", re.I)


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

    def reply(self, key: str, **costs: Any) -> Reply:
        """Return it as the reply to the request `key`; `costs` are the reply's latency_s, attempts and cost."""
        same = {name: getattr(self, name) for name in ("finish_reason", "prompt_tokens", "completion_tokens")}
        return Reply(key, self.text, "ok" if self.error is None else "error", self.error, **same, **costs)


@dataclass(frozen=True)
class Verdict:
    """What a failure means: `retry` the request, a `row_error` of it alone, or a `run_error` of all requests.

    `refused`: it was too much for the server. `unbilled`: it surely cost nothing; else it may have, and counts.
    `pardons`, of a run_error: it is of its own request when the server has answered others, or when no more than so
    many came in a row; None: it is of all.
    """

    kind: Literal["retry", "row_error", "run_error"]
    problem: str
    after_s: float | None = None
    refused: bool = False
    unbilled: bool = False
    pardons: int | None = None


class TornAnswerError(Exception):
    """A response that is no answer; `code` is the HTTP status that the server names in it, if any."""

    def __init__(self, problem: str, code: int | None = None) -> None:
        super().__init__(problem)
        self.code = code


def status_verdict(code: int, problem: str, after_s: float | None) -> Verdict:
    """Return what an HTTP status means. Providers bill no request that they answer with an error."""
    if code in _RUN_ERROR and not (code == 403 and _OF_INPUT.search(problem)):
        return Verdict("run_error", problem, unbilled=True, pardons=_RUN_ERROR[code])
    kind = "retry" if code >= 500 or code in _RETRY else "row_error"
    return Verdict(kind, problem, after_s, refused=code in _TOO_MUCH, unbilled=True)


@dataclass(frozen=True)
class RetryPolicy:
    """At most `attempts` requests within `deadline_s` seconds, each of at most `timeout_s`.

    Waits grow from `first_wait_s` by doubling to at most `longest_wait_s`, with jitter, so that many clients do not
    come back at once. A server's Retry-After is never undercut, whatever `longest_wait_s` says; one that reaches past
    the deadline ends the request.
    """

    attempts: int = 6
    deadline_s: float = 300.0
    timeout_s: float = 120.0
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0

    @classmethod
    def of(cls, given: RetryPolicy | Mapping[str, Any]) -> RetryPolicy:
        """Return a policy from its fields, as a setting gives them. Raises `ConfigError` for an unknown one."""
        if isinstance(given, RetryPolicy):
            return given
        known = [each.name for each in fields(cls)]
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise ConfigError(f"the setting retry has no {', '.join(unknown)}", f"it has {', '.join(known)}")
        return cls(**given)

    def wait_s(self, attempt: int, retry_after_s: float | None, chance: random.Random) -> float:
        """Return seconds to wait after attempt number `attempt`, which counts from 1.

        >>> policy = RetryPolicy(first_wait_s=1.0)
        >>> 0.5 <= policy.wait_s(1, None, random.Random(0)) <= 1.0
        True
        >>> policy.wait_s(1, 7.0, random.Random(0)) >= 7.0
        True
        """
        longest = min(self.first_wait_s * 2 ** (attempt - 1), self.longest_wait_s)
        if retry_after_s is not None:
            return retry_after_s + chance.uniform(0, min(longest, 1 + retry_after_s / 10))
        return chance.uniform(longest / 2, longest)


def retry_after_s(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Return the seconds that a response asks to wait: `retry-after-ms`, or `retry-after` as seconds or as a date.

    >>> retry_after_s({"retry-after": "3"}), retry_after_s({"retry-after-ms": "250"}), retry_after_s({})
    (3.0, 0.25, None)
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            seconds = float(text) * unit
        except ValueError:
            parsed = email.utils.parsedate_tz(text)
            if parsed is None:
                continue
            seconds = email.utils.mktime_tz(parsed) - (time.time() if now is None else now)
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None
