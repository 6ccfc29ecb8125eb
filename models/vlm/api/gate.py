"""One gate per provider, through which every request passes: pace, number under way, money, and pauses.

`Rate`, `Window` and `GateCore` decide and are pure: time is an argument, in seconds of any monotonic clock. `LocalGate`
waits, in one event loop; `microg.pipelines.vlm.shared_gate` puts that into a Ray actor so that all engine actors share
it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Literal, Protocol

from microg.models.vlm.api.budget import Budget

# How long one refusal may hold all requests back, whatever the server asks: then one of them finds out.
_LONGEST_PAUSE_S = 60.0
# How often a waiting request looks whether a lost one freed its place.
_LOOK_S = 1.0
# The smallest request that token pacing expects to see.
_TOKEN_UNIT = 100.0
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


@dataclass(frozen=True)
class Limits:
    """What a provider allows. `requests_per_minute` and `tokens_per_minute` None: not known; then what the provider's
    responses say of it is used. `concurrency`: the most requests under way at once; `start`: how many to begin with.
    """

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    concurrency: int = 64
    start: int = 4


@dataclass(frozen=True)
class Permit:
    """Leave to send one request. `held` is the dollars set aside for it."""

    number: int
    started: float
    expires: float
    tokens: float
    held: int | None
    in_full_use: bool


@dataclass(frozen=True)
class Wait:
    """Not now: ask again after `seconds`, or when a request has ended."""

    seconds: float


@dataclass(frozen=True)
class Refused:
    """Not now and not later: `reason`."""

    reason: str


Result = Literal["ok", "failed", "refused"]


@dataclass(frozen=True)
class Outcome:
    """How a request ended. result `refused`: the server said it was too much (429, 503, no answer in time).

    tokens and cost: what was used, None where nobody knows (then what was set aside counts). retry_after_s: what the
    server asked to wait. requests_per_minute and tokens_per_minute: the limits that the response named.
    """

    result: Result
    tokens: float | None = None
    cost: float | None = None
    retry_after_s: float | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None


@dataclass
class GateStatus:
    """What a gate did so far."""

    sent: int = 0
    refused: int = 0
    lost: int = 0
    under_way: int = 0
    window: int = 0
    spent: float = 0.0
    held: float = 0.0


class Gate(Protocol):
    """What an engine needs of a gate."""

    async def start(self, tokens: float, cost: float, lease_s: float, timeout_s: float | None = None) -> Permit | Wait:
        """Wait for leave to send; returns `Wait` only when `timeout_s` is not enough. Raises `BudgetError`."""
        ...

    async def finish(self, permit: Permit, outcome: Outcome) -> float:
        """Report the end; returns the dollars it cost."""
        ...


class BudgetError(Exception):
    """The money is spent: no further request may be sent."""


@dataclass
class GateCore:
    """The decisions of a gate; time is an argument."""

    limits: Limits = field(default_factory=Limits)
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        self._requests = _rate(self.limits.requests_per_minute)
        self._tokens = _rate(self.limits.tokens_per_minute, _TOKEN_UNIT)
        self._window = Window(self.limits.start, self.limits.concurrency)
        self._permits: dict[int, Permit] = {}
        self._paused_until = float("-inf")
        self._status = GateStatus()

    def start(self, now: float, tokens: float, cost: float, lease_s: float) -> Permit | Wait | Refused:
        """Ask for leave to send one request of about `tokens`, which costs `cost` dollars at most.

        A permit that is not finished within `lease_s` is lost (its process was killed) and counts as paid.
        """
        self._drop_lost(now)
        fits = self.budget.check(cost)
        if fits == "never":
            return Refused(
                f"the next request may cost up to ${cost:.6f} and ${self.budget.spent:.6f} of the cap are spent"
            )
        if fits == "later" or len(self._permits) >= self._window.limit:
            return Wait(_LOOK_S)
        wait = self._paused_until - now
        for rate in (self._requests, self._tokens):
            wait = wait if rate is None else max(wait, rate.wait_s(now))
        if wait > 0:
            return Wait(wait)
        if self._requests is not None:
            self._requests.take(now)
        if self._tokens is not None:
            self._tokens.take(now, tokens)
        self._status.sent += 1
        full = len(self._permits) + 1 >= self._window.limit
        permit = Permit(self._status.sent, now, now + lease_s, tokens, self.budget.hold(cost), full)
        self._permits[permit.number] = permit
        return permit

    def finish(self, now: float, permit: Permit, outcome: Outcome) -> float:
        """End a request and return the dollars it cost; one that was lost before changes nothing any more."""
        if self._permits.pop(permit.number, None) is None or permit.held is None:
            return outcome.cost or 0.0
        cost = self.budget.settle(permit.held, outcome.cost)
        self._learn(outcome)
        if self._tokens is not None and outcome.tokens is not None:
            self._tokens.give_back(now, permit.tokens - outcome.tokens)
        if outcome.result == "ok":
            self._window.succeeded(permit.in_full_use)
        elif outcome.result == "refused":
            self._status.refused += 1
            self._window.refused(now, permit.started)
            for rate in (self._requests, self._tokens):
                if rate is not None:
                    rate.refused(now)
            if outcome.retry_after_s:
                pause = min(outcome.retry_after_s, _LONGEST_PAUSE_S)
                self._paused_until = max(self._paused_until, now + pause)
        return cost

    def status(self) -> GateStatus:
        """Return what happened so far."""
        self._status.under_way, self._status.window = len(self._permits), self._window.limit
        self._status.spent, self._status.held = self.budget.spent, self.budget.held
        return self._status

    def _learn(self, outcome: Outcome) -> None:
        """Take the limits that responses name, where none were given."""
        if self._requests is None and outcome.requests_per_minute:
            self._requests = _rate(outcome.requests_per_minute)
        if self._tokens is None and outcome.tokens_per_minute:
            self._tokens = _rate(outcome.tokens_per_minute, _TOKEN_UNIT)

    def _drop_lost(self, now: float) -> None:
        for permit in [permit for permit in self._permits.values() if permit.expires <= now]:
            self._status.lost += 1
            self.finish(now, permit, Outcome("failed"))


class LocalGate:
    """A gate for one event loop at a time; requests pass in the order they came."""

    def __init__(self, limits: Limits | None = None, budget: Budget | None = None) -> None:
        self.core = GateCore(limits or Limits(), budget or Budget())
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self, tokens: float, cost: float, lease_s: float, timeout_s: float | None = None) -> Permit | Wait:
        """Wait for leave to send (see `Gate`)."""
        if self._loop is not asyncio.get_running_loop():  # locks belong to a loop, and each batch has its own
            self._loop, self._turn, self._ended = asyncio.get_running_loop(), asyncio.Lock(), asyncio.Event()
        latest = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        try:
            async with asyncio.timeout(timeout_s), self._turn:
                while True:
                    self._ended.clear()
                    leave = self.core.start(time.monotonic(), tokens, cost, lease_s)
                    if isinstance(leave, Permit):
                        return leave
                    if isinstance(leave, Refused):
                        raise BudgetError(leave.reason)
                    if time.monotonic() + leave.seconds > latest and leave.seconds > _LOOK_S:
                        return leave  # a pause beyond its deadline: let others have the turn
                    await self._wait(leave.seconds)
        except TimeoutError:
            return Wait(0.0)

    async def _wait(self, seconds: float) -> None:
        if seconds < _LOOK_S:
            await asyncio.sleep(seconds)  # the pace, which no request that ends makes shorter
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()

    async def finish(self, permit: Permit, outcome: Outcome) -> float:
        """Report the end (see `Gate`)."""
        cost = self.core.finish(time.monotonic(), permit, outcome)
        if self._loop is asyncio.get_running_loop():
            self._ended.set()
        return cost

    def status(self) -> GateStatus:
        """Return what happened so far."""
        return self.core.status()


def _rate(per_minute: float | None, unit: float = 1.0) -> Rate | None:
    return None if per_minute is None else Rate(per_minute, unit)
