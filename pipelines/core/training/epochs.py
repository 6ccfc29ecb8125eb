"""The epochs of a training: steps, the validation that is due and what is left of each, until the end or a stop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from microg.pipelines.core.training.checkpoints import Progress, TensorBoardLog
from microg.pipelines.core.training.plan import Plan

Work = TypeVar("Work")


class Epochs(ABC, Generic[Work]):
    """One worker's part of a run from `progress` on.

    Attributes:
        plan: Order of all samples.
        progress: Where the run is.
        log: TensorBoard's, closed at the end.
    """

    plan: Plan
    progress: Progress
    log: TensorBoardLog

    def run(self, work: Iterator[Work]) -> bool:
        """Train to the end; return False when asked to stop before it, with everything saved."""
        try:
            while self.progress.epoch < self.plan.epochs:
                if not self.train_epoch(work):
                    return False
                scores: dict[str, Any] = {}
                if self.plan.validates(self.progress.epoch):
                    self.save()  # a kill while validating repeats no step
                    found = self.validate(work)
                    if found is None:
                        return False
                    scores = found
                self.finish_epoch(scores)
        finally:
            self.log.close()
        return True

    @abstractmethod
    def train_epoch(self, work: Iterator[Work]) -> bool:
        """Take the steps that are left of the epoch; return False when asked to stop, with everything saved."""

    @abstractmethod
    def validate(self, work: Iterator[Work]) -> dict[str, Any] | None:
        """Return the scores of the val split, the same on every worker; None when asked to stop."""

    @abstractmethod
    def finish_epoch(self, scores: dict[str, Any]) -> None:
        """Record a finished epoch with its scores, and go on to the next one."""

    @abstractmethod
    def save(self) -> None:
        """Commit where the run is."""
