"""When and how long to wait before a request is sent again."""

from __future__ import annotations

import email.utils
import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from microg.errors import ConfigError


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
