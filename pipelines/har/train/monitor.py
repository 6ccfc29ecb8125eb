"""The line between the driver and the workers: progress one way, the wish to stop the other way."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from microg.errors import MicrogError


@dataclass(frozen=True, kw_only=True)
class WorkerState:
    """The latest that the workers told of themselves.

    Attributes:
        progress: Where rank 0 is; empty before its first word.
        failure: An error that no second attempt can mend.
        traceback: Of what ended the last group of workers; the next group may do better.
        starts: Groups of workers that were started.
    """

    progress: dict[str, Any] = field(default_factory=dict)
    failure: MicrogError | None = None
    traceback: str | None = None
    starts: int = 0


class Monitor:
    """Ray actor (no CPU) that holds the latest word of either side; losing it loses nothing."""

    def __init__(self) -> None:
        self._state = WorkerState()
        self._stop = False

    def record_start(self) -> None:
        """Count a group of workers that starts."""
        self._state = replace(self._state, starts=self._state.starts + 1)

    def record_progress(self, progress: dict[str, Any]) -> bool:
        """Take progress; return whether to stop."""
        self._state = replace(self._state, progress=progress)
        return self._stop

    def record_failure(self, failure: MicrogError) -> None:
        """Keep an error that no second attempt can mend, and stop."""
        self._state = replace(self._state, failure=failure)
        self._stop = True

    def record_traceback(self, traceback: str) -> None:
        """Keep the traceback of what ended a group of workers."""
        self._state = replace(self._state, traceback=traceback)

    def stop(self) -> None:
        """Ask the workers to keep what they have and end."""
        self._stop = True

    def should_stop(self) -> bool:
        """Tell whether workers should stop."""
        return self._stop

    def state(self) -> WorkerState:
        """Return the latest state of the workers."""
        return self._state
