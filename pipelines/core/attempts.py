"""Counts how often work on a row was started, so that a row that kills its worker ends as an error row.

Ray Data retries a dead actor's task without end. The ledger lives in an actor of its own, outlives the workers, and
takes no CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, TypeVar

from microg.errors import describe

T = TypeVar("T")
R = TypeVar("R")

MAX_ATTEMPTS = 2


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


def start_ledger() -> Any:
    """Start a ledger in the connected Ray and return its handle."""
    import ray

    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(AttemptLedger).remote()


@lru_cache(maxsize=1)
def _ledger_of_job(job: str) -> Any:
    return start_ledger()


def process_ledger() -> Any:
    """Return a ledger that lives as long as this process is connected to Ray: starting one takes a second."""
    import ray

    return _ledger_of_job(ray.get_runtime_context().get_job_id())


def attempts(ledger: Any, key: str) -> int:
    """Count an attempt and return how many there were since `key` last ended."""
    import ray

    return ray.get(ledger.start.remote(key))


def crashed_before(ledger: Any, key: str) -> bool:
    """Count an attempt; tell whether earlier ones killed their workers too often to try again."""
    return attempts(ledger, key) > MAX_ATTEMPTS


def together_or_alone(
    work: Callable[[Sequence[T]], Sequence[R]],
    items: Sequence[T],
    *,
    name: Callable[[T], str],
    failed: Callable[[T, str], R],
    crashed: str,
    ledger: Any = None,
    scope: str = "",
) -> list[R]:
    """Return `work(items)`; where that raises, or killed its worker before, work on each item alone.

    An item that raises alone gives `failed(item, error)`, one that kills its worker `failed(item, crashed)`. `name`
    names an item within `scope`. Without a `ledger` no attempts are counted.
    """
    if len(items) > 1:
        group = f"{scope}/{name(items[0])}+{len(items) - 1}"
        results: list[R] | None = None
        if ledger is None or attempts(ledger, group) == 1:
            with suppress(Exception):  # which of them is at fault, working on each will tell
                results = list(work(items))
        if ledger is not None and results is not None:
            settled(ledger, group)
        if results is not None:
            return results
    return [_alone(work, item, f"{scope}/{name(item)}", failed, crashed, ledger) for item in items]


def _alone(
    work: Callable[[Sequence[T]], Sequence[R]],
    item: T,
    key: str,
    failed: Callable[[T, str], R],
    crashed: str,
    ledger: Any,
) -> R:
    if ledger is not None and crashed_before(ledger, key):
        return failed(item, crashed)
    try:
        result = work([item])[0]
    except Exception as error:
        result = failed(item, describe(error))
    if ledger is not None:
        settled(ledger, key)
    return result


def settled(ledger: Any, key: str) -> None:
    """Report that work on `key` ended, well or with an error."""
    ledger.finish.remote(key)
