"""How a training is watched and stopped from a terminal or by a job scheduler."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import typer

from microg.console import say_aside
from microg.jobs.common import EXIT_INTERRUPTED


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM, which job schedulers send, stop training as Ctrl-C does."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGTERM, before)


class TrainingDisplay:
    """Steps done, rate, ETA, loss, learning rate and the best score, from the workers' progress.

    Args:
        name: Name of the work.
        epochs: Epochs of the run.
        best: Says what the best epoch's record holds.
    """

    def __init__(self, name: str, epochs: int, best: Callable[[dict[str, Any]], str]) -> None:
        self._name, self._epochs, self._best = name, epochs, best
        self._bar: Any = None
        self._done = 0

    def __enter__(self) -> TrainingDisplay:
        return self

    def update(self, progress: dict[str, Any]) -> None:
        """Show where the workers are."""
        from microg.pipelines.core.telemetry import Telemetry

        if progress.get("phase") == "stopping":
            say_aside("saving after this step; again to stop at once")
            return
        if self._bar is None:
            total = progress["iterations"] * self._epochs - progress["steps"]
            self._bar = Telemetry(self._name, total, unit="steps", stages=()).__enter__()
            self._done = progress["steps"]
        best = f", best {self._best(progress['best'])}" if progress["best"] else ""
        note = (
            f"epoch {min(progress['epoch'] + 1, self._epochs)}/{self._epochs} {progress['phase']}, "
            f"loss {progress['loss']:.4f}, lr {progress['lr']:.3g}, waiting {progress['wait_share']:.0%}{best}"
        )
        # a restarted worker goes back to its last checkpoint
        self._bar.row({}, progress["steps"] - self._done, note=note)
        self._done = progress["steps"]

    def __exit__(self, *ended: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
