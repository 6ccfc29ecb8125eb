"""Counts how often work on a row was started, so that a row that kills its worker ends as an error row.

Ray Data retries a dead actor's task without end. The ledger lives in an actor of its own, outlives the workers, and
takes no CPU.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

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


def settled(ledger: Any, key: str) -> None:
    """Report that work on `key` ended, well or with an error."""
    ledger.finish.remote(key)
