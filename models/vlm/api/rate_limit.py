"""How fast and how many at once: pacing to a rate, and a number of requests that adapts to the server.

Pure: time is an argument, in seconds of any monotonic clock. `microg.models.vlm.api.gate` puts them together.
"""

from __future__ import annotations

from dataclasses import dataclass

# Of a stated limit, what is used: clocks differ, and requests bunch on their way.
_HEADROOM = 0.98
# How far a late sender may catch up, in seconds and in units of the smallest request.
_SLACK_S = 0.2
_SLOWER, _SLOWEST, _RECOVERY_PER_S = 0.8, 0.1, 0.01
# Refusals closer together than this are one event.
_EVENT_S = 2.0


class Rate:
    """Spaces amounts evenly so that at most `per_minute` go in any minute, at `_HEADROOM` of it.

    There is no burst at the start or after a pause: servers count in windows of their own, some of one second. What is
    taken is paid afterwards, so an amount above any burst size waits its turn and then goes. A refusal of the server
    (`refused`) slows down by a fifth; the pace recovers by a hundredth of the limit a second.
    """

    def __init__(self, per_minute: float, unit: float = 1.0) -> None:
        if per_minute <= 0 or unit <= 0:
            raise ValueError("a rate is positive")
        self._nominal = per_minute / 60 * _HEADROOM
        self._slack = _SLACK_S + unit / self._nominal
        self._next: float | None = None
        self._factor = 1.0
        self._seen = self._event = float("-inf")

    def wait_s(self, now: float) -> float:
        """Return seconds until the next amount may go; 0 when it may go now."""
        return 0.0 if self._next is None else max(0.0, self._next - now)

    def take(self, now: float, amount: float = 1.0) -> None:
        """Let `amount` go now."""
        since = now if self._next is None else max(self._next, now - self._slack)
        self._next = since + amount / self.pace(now)

    def give_back(self, now: float, amount: float) -> None:
        """Correct an amount that was taken: less was used (or more, where `amount` is negative)."""
        if self._next is not None:
            self._next -= amount / self.pace(now)

    def pace(self, now: float) -> float:
        """Return the current amount a second."""
        if self._factor < 1 and self._seen > float("-inf"):
            self._factor = min(1.0, self._factor + _RECOVERY_PER_S * (now - self._seen))
        self._seen = now
        return self._nominal * self._factor

    def refused(self, now: float) -> None:
        """Slow down: the server said that this was too fast."""
        self.pace(now)
        if now - self._event >= _EVENT_S:
            self._event = now
            self._factor = max(_SLOWEST, self._factor * _SLOWER)


@dataclass
class Window:
    """How many requests may be under way: additive increase, multiplicative decrease, as TCP does.

    It starts at `size`, doubles with each round of successes until the server first refuses, then grows by one a
    round, and is halved by a refusal; refusals of requests that started before the last halving do not count again. It
    grows only while it is in full use: a number that was never tried is not known to be good.
    """

    size: float = 4.0
    largest: int = 64
    _threshold: float = float("inf")
    _halved: float = float("-inf")

    def __post_init__(self) -> None:
        self.size = float(min(max(self.size, 1.0), self.largest))

    @property
    def limit(self) -> int:
        """How many requests may be under way now; at least one."""
        return max(1, int(self.size))

    def succeeded(self, in_full_use: bool) -> None:
        """Count a success; `in_full_use`: as many as allowed were under way when it started."""
        if in_full_use:
            grown = self.size + (1.0 if self.size < self._threshold else 1.0 / self.size)
            self.size = min(grown, float(self.largest))

    def refused(self, now: float, started: float) -> None:
        """Halve, unless the request started before the last halving."""
        if started >= self._halved:
            self.size = max(1.0, self.size / 2)
            self._threshold, self._halved = self.size, now
