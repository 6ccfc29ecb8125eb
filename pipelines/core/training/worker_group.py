"""How a worker talks to the others of its group and to the driver."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from microg.errors import MicrogError


@dataclass(kw_only=True)
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
    """Ray actor (no CPU) beside the driver that holds the latest word of either side."""

    def __init__(self) -> None:
        self._state = WorkerState()
        self._stop = False

    def record_start(self) -> None:
        """Count a group of workers that starts."""
        self._state.starts += 1

    def record_progress(self, progress: dict[str, Any]) -> bool:
        """Take progress; return whether to stop."""
        self._state.progress = progress
        return self._stop

    def record_failure(self, failure: MicrogError) -> None:
        """Keep an error that no second attempt can mend, and stop."""
        self._state.failure = failure
        self._stop = True

    def record_traceback(self, traceback: str) -> None:
        """Keep the traceback of what ended a group of workers."""
        self._state.traceback = traceback

    def stop(self) -> None:
        """Ask the workers to keep what they have and end."""
        self._stop = True

    def should_stop(self) -> bool:
        """Tell whether workers should stop."""
        return self._stop

    def state(self) -> WorkerState:
        """Return the latest state of the workers."""
        return self._state


_UPDATE_EVERY_S = 0.5


class WorkerGroup(Protocol):
    """The workers that train together, as one of them sees them."""

    rank: int
    world: int

    def total(self, values: Sequence[float]) -> list[float]:
        """Return the sums over all workers; every worker must call."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """Return every worker's value in the order of ranks; every worker must call."""
        ...

    def gather_rows(self, rows: Any) -> list[Any]:
        """Return every worker's tensor (rows, width) in the order of ranks; every worker must call."""
        ...

    def update(self, progress: dict[str, Any]) -> bool:
        """Tell the driver where this worker is; return whether it asked to stop."""
        ...

    def report(self, metrics: dict[str, Any]) -> None:
        """Report a finished epoch; every worker must call."""
        ...


class Collectives:
    """What workers tell each other, through torch's process group where there are several."""

    def __init__(self, rank: int, world: int, device: Any) -> None:
        self.rank, self.world, self._device = rank, world, device

    def total(self, values: Sequence[float]) -> list[float]:
        """Sum with one small all-reduce."""
        if self.world == 1:
            return list(values)
        import torch
        import torch.distributed

        tensor = torch.tensor(values, dtype=torch.float64, device=self._device)
        torch.distributed.all_reduce(tensor)
        return tensor.tolist()

    def gather(self, value: Any) -> list[Any]:
        """Gather objects of any kind."""
        if self.world == 1:
            return [value]
        import torch.distributed

        found: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(found, value)
        return found

    def gather_rows(self, rows: Any) -> list[Any]:
        """Gather tensors of as many rows as the largest, then cut them to their own."""
        if self.world == 1:
            return [rows]
        import torch
        import torch.distributed

        count = torch.tensor([len(rows)], device=rows.device)
        counts = [torch.zeros_like(count) for _ in range(self.world)]
        torch.distributed.all_gather(counts, count)
        sizes = [int(one) for one in counts]
        padded = torch.cat([rows, rows.new_zeros((max(sizes) - len(rows), rows.shape[1]))])
        gathered = [torch.empty_like(padded) for _ in range(self.world)]
        torch.distributed.all_gather(gathered, padded)
        return [one[:size] for one, size in zip(gathered, sizes, strict=True)]


class RayWorkerGroup(Collectives):
    """The group of a Ray Train worker; `monitor` is the actor that the driver looks at."""

    def __init__(self, monitor: Any, device: Any) -> None:
        import ray.train

        context = ray.train.get_context()
        super().__init__(context.get_world_rank(), context.get_world_size(), device)
        self._monitor = monitor
        self._pending: Any = None
        self._asked = 0.0
        self._stop: bool = False

    def update(self, progress: dict[str, Any]) -> bool:
        """Send without waiting, at most twice a second."""
        import ray

        if self.rank != 0:
            return False
        if self._pending is not None and ray.wait([self._pending], timeout=0)[0]:
            self._stop = bool(ray.get(self._pending)) or self._stop
            self._pending = None
        now = time.monotonic()
        if self._pending is None and now - self._asked >= _UPDATE_EVERY_S:
            self._asked = now
            self._pending = self._monitor.record_progress.remote(progress)
        return self._stop

    def report(self, metrics: dict[str, Any]) -> None:
        """Report to Ray Train, which hands it to the driver's callbacks."""
        import ray.train

        ray.train.report(metrics)
