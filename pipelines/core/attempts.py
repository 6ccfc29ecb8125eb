"""Counts how often work on a row was started, so that a row that kills its worker ends as an error row.

Ray Data retries a dead actor's task without end. The ledger lives in an actor of its own, outlives the workers, and
takes no CPU.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar

from microg.errors import describe
from microg.storage_faults import ends_run

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


class Turns:
    """Lets threads of one process work beside each other, or one of them alone.

    When a worker dies, all that its threads worked on comes back. Only what kills it again while nothing else is under
    way is at fault.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._beside = self._waiting = 0
        self._alone = False

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Work while others may; waits for who works alone, or wants to."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._alone or self._waiting))
            self._beside += 1
        try:
            yield
        finally:
            with self._changed:
                self._beside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Work while no other does."""
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: not (self._alone or self._beside))
            self._waiting -= 1
            self._alone = True
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()


def run_batch_then_singles(
    work: Callable[[Sequence[T]], Sequence[R]],
    items: Sequence[T],
    *,
    name: Callable[[T], str],
    crashed: str,
    attempts: Attempts | None = None,
    turns: Turns | None = None,
) -> list[R | Failure]:
    """Return `work(items)`; where that raises, or killed its worker before, work on each item alone.

    Args:
        work: Takes items and returns as many results, in their order.
        items: What to work on.
        name: Names an item within the scope of `attempts`.
        crashed: The error of an item that kills its worker when it is alone.
        attempts: Counts attempts; None counts none.
        turns: Shared by the threads of this process that do such work at once.

    Returns:
        A result for each item, or the `Failure` of one that raised, or killed its worker, alone.

    Raises:
        WriteError: A file could not be written, such as on a full disk: no item is at fault.
    """
    if not items:
        return []
    if len(items) > 1 or turns is not None:
        turns = turns or Turns()
        group = f"{name(items[0])}+{len(items) - 1}"
        if attempts is None or attempts.start(group) == 1:
            with turns.beside():
                try:
                    results: list[R | Failure] = list(work(items))
                except Exception as error:  # which of them is at fault, working on each will tell
                    raise_what_ends_run(error)
                    alone = len(items) == 1
                    results = [Failure(describe(error))] if alone else [_result(work, item) for item in items]
            if attempts is not None:
                attempts.mark_finished(group)
            return results
    turns = turns or Turns()
    results = []
    for item in items:
        with turns.alone():
            results.append(_counted_result(work, item, name(item), crashed, attempts))
    return results


def raise_what_ends_run(error: Exception) -> None:
    """Raise the `WriteError` that an error amounts to, if it does: then it is no row's."""
    if (ending := ends_run(error)) is not None:
        raise ending from error


def _counted_result(
    work: Callable[[Sequence[T]], Sequence[R]], item: T, key: str, crashed: str, attempts: Attempts | None
) -> R | Failure:
    if attempts is not None and attempts.crashed_before(key):
        return Failure(crashed)
    result = _result(work, item)
    if attempts is not None:
        attempts.mark_finished(key)
    return result


def _result(work: Callable[[Sequence[T]], Sequence[R]], item: T) -> R | Failure:
    try:
        return work([item])[0]
    except Exception as error:
        raise_what_ends_run(error)
        return Failure(describe(error))
