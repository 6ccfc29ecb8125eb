"""Counts how often work on a row was started, so that a row that kills its worker ends as an error row.

Ray Data retries a dead actor's task without end. The ledger lives in an actor of its own, outlives the workers, and
takes no CPU.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar

from microg.errors import describe

T = TypeVar("T")
R = TypeVar("R")

MAX_ATTEMPTS = 2


@dataclass(frozen=True)
class Failure:
    """Why there is no result for an item: `type: message`, as in the `error` column of tables."""

    error: str


class AttemptLedger:
    """Attempts by key."""

    def __init__(self) -> None:
        self._attempts: dict[str, int] = {}

    def start(self, key: str) -> int:
        """Count one more attempt at `key` and return how many there were."""
        self._attempts[key] = self._attempts.get(key, 0) + 1
        return self._attempts[key]

    def finish(self, key: str) -> None:
        """Forget `key`: it ended without killing its worker."""
        self._attempts.pop(key, None)


@lru_cache(maxsize=1)
def _ledger_of_job(job: str) -> Any:
    import ray

    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(AttemptLedger).remote()


@dataclass(frozen=True)
class Attempts:
    """The ledger as workers use it: `ledger` is its actor, `scope` sets apart what shares it."""

    ledger: Any
    scope: str = ""

    @classmethod
    def of_new_run(cls) -> Attempts:
        """Return the attempts of a new run, all zero.

        One ledger serves this process for as long as it is connected to Ray: starting one takes a second.
        """
        import ray

        return cls(_ledger_of_job(ray.get_runtime_context().get_job_id()), uuid.uuid4().hex)

    def within(self, scope: str) -> Attempts:
        """Return the attempts of a part of this scope."""
        return replace(self, scope=f"{self.scope}/{scope}")

    def start(self, key: str) -> int:
        """Count an attempt at `key` and return how many there were since it last ended."""
        import ray

        return ray.get(self.ledger.start.remote(f"{self.scope}/{key}"))

    def crashed_before(self, key: str) -> bool:
        """Count an attempt; tell whether earlier ones killed their workers too often to try again."""
        return self.start(key) > MAX_ATTEMPTS

    def mark_finished(self, key: str) -> None:
        """Report that work on `key` ended, well or with an error."""
        self.ledger.finish.remote(f"{self.scope}/{key}")


def run_batch_then_singles(
    work: Callable[[Sequence[T]], Sequence[R]],
    items: Sequence[T],
    *,
    name: Callable[[T], str],
    crashed: str,
    attempts: Attempts | None = None,
) -> list[R | Failure]:
    """Return `work(items)`; where that raises, or killed its worker before, work on each item alone.

    Args:
        work: Takes items and returns as many results, in their order.
        items: What to work on.
        name: Names an item within the scope of `attempts`.
        crashed: The error of an item that kills its worker when it is alone.
        attempts: Counts attempts; None counts none.

    Returns:
        A result for each item, or the `Failure` of one that raised, or killed its worker, alone.
    """
    if len(items) > 1:
        group = f"{name(items[0])}+{len(items) - 1}"
        results: list[R | Failure] | None = None
        if attempts is None or attempts.start(group) == 1:
            with suppress(Exception):  # which of them is at fault, working on each will tell
                results = list(work(items))
        if results is not None:
            if attempts is not None:
                attempts.mark_finished(group)
            return results
    return [_run_single(work, item, name(item), crashed, attempts) for item in items]


def _run_single(
    work: Callable[[Sequence[T]], Sequence[R]], item: T, key: str, crashed: str, attempts: Attempts | None
) -> R | Failure:
    if attempts is not None and attempts.crashed_before(key):
        return Failure(crashed)
    try:
        result: R | Failure = work([item])[0]
    except Exception as error:
        result = Failure(describe(error))
    if attempts is not None:
        attempts.mark_finished(key)
    return result
