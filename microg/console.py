"""All that commands say in lines, and a long job's progress: a live bar in a terminal, now and then a line elsewhere.

What data say reaches the terminal as text: it can neither steer it nor begin a line.
"""

from __future__ import annotations

import sys
import time
from typing import Self

from microg.escaping import visible_line


def say(*lines: object) -> None:
    """Print a command's result on standard output, each argument on a line of its own."""
    for line in lines:
        print(visible_line(str(line)), flush=True)


def say_aside(*lines: object) -> None:
    """Print on standard error what is not the result, each argument on a line of its own."""
    for line in lines:
        print(visible_line(str(line)), file=sys.stderr, flush=True)


class ProgressDisplay:
    """Progress of one stage: done of total, rate, ETA and failed rows, written to standard error.

    Use as a context manager and call `advance`. `total` None means unknown.
    """

    def __init__(self, stage: str, total: int | None, *, unit: str = "clips", every_s: float = 5.0) -> None:
        self.stage, self.total, self.unit = visible_line(stage), total, unit
        self.done = self.failed = self._bytes = 0
        self.note = ""
        self._every_s = every_s
        self._live = None
        self._task = None

    def __enter__(self) -> Self:
        self._started = self._printed = time.monotonic()
        if sys.stderr.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            from microg.screen import Screen

            self._live = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                TextColumn("{task.fields[failed]}", style="red", markup=False),
                console=Screen(stderr=True),
            )
            self._live.start()
            self._task = self._live.add_task(self.stage, total=self.total, rate="", note="", failed="")
        return self

    def advance(self, done: int = 1, failed: int = 0, note: str | None = None) -> None:
        """Count `done` finished rows, of which `failed` ended in an error; `note` is shown from now on."""
        self.done += done
        self.note = self.note if note is None else visible_line(note)
        self.failed += failed
        if self._live is not None and self._task is not None:
            self._live.update(
                self._task,
                completed=self.done,
                rate=f"{self.rate:.2f} {self.unit}/s",
                note=self.note,
                failed=f"{self.failed} failed" if self.failed else "",
            )
        elif time.monotonic() - self._printed >= self._every_s:
            self._printed = time.monotonic()
            say_aside(self.line())

    def advance_bytes(self, count: int) -> None:
        """Count bytes, negative ones where some come again, of a progress whose unit is MB."""
        self._bytes += count
        self.advance(int(self._bytes / 1e6) - self.done)

    @property
    def rate(self) -> float:
        """Finished rows per second since the start."""
        return self.done / max(time.monotonic() - self._started, 1e-9)

    def line(self) -> str:
        """Return the state as one line."""
        of = f"/{self.total}" if self.total is not None else ""
        text = f"{self.stage}: {self.done}{of} {self.unit}, {self.rate:.2f}/s"
        if self.total is not None and self.done:
            text += f", ETA {max(self.total - self.done, 0) / self.rate:.0f} s"
        return text + (f", {self.note}" if self.note else "") + (f", {self.failed} failed" if self.failed else "")

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
        elif self.done:
            say_aside(self.line())
