"""Keeping Ray Data's scheduling loop from taking a core while it has nothing to do."""

from __future__ import annotations

import time
from typing import Any

from ray.data._internal.execution.execution_callback import ExecutionCallback

_STEP_S = 0.02


class Paced(ExecutionCallback):
    """Lets an execution's scheduling loop turn at most 50 times a second.

    Ray 2.60's loop waits for tasks to end. Where all have ended, and what they made waits for a slow consumer, it
    turns without a pause: beside a small model in training it took more than half a core. A turn starts and collects
    any number of tasks, so fewer of them cost no throughput.
    """

    def __init__(self) -> None:
        self._due = 0.0

    def on_execution_step(self, executor: Any) -> None:
        """Sleep for what is left of the step."""
        left = self._due - time.monotonic()
        if left > 0:
            time.sleep(left)
        self._due = time.monotonic() + _STEP_S
