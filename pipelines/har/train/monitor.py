"""The line between the driver and the workers: progress one way, the wish to stop the other way."""

from __future__ import annotations

from typing import Any

from microg.errors import MicrogError


class Monitor:
    """Ray actor (no CPU) that holds the latest word of either side; losing it loses nothing."""

    def __init__(self) -> None:
        self._progress: dict[str, Any] = {}
        self._stop = False
        self._failure: MicrogError | None = None
        self._trouble: str | None = None
        self._starts = 0

    def started(self) -> int:
        """A group of workers started; return how many did so before."""
        self._starts += 1
        return self._starts - 1

    def update(self, progress: dict[str, Any]) -> bool:
        """Take progress; return whether to stop."""
        self._progress = progress
        return self._stop

    def stop(self) -> None:
        """Ask the workers to keep what they have and end."""
        self._stop = True

    def fail(self, failure: MicrogError) -> None:
        """Keep an error that no second attempt can mend."""
        self._failure = failure
        self._stop = True

    def trouble(self, report: str) -> None:
        """Keep the traceback of what ended a group of workers; the next group may do better."""
        self._trouble = report

    def look(self) -> tuple[dict[str, Any], MicrogError | None, str | None, int]:
        """Return the latest progress, the error if there is one, the last traceback, and how often workers started."""
        return self._progress, self._failure, self._trouble, self._starts

    def stopping(self) -> bool:
        """Tell whether workers should stop."""
        return self._stop
