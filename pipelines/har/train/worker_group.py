"""How a worker talks to the others and to the driver: through Ray and torch.distributed, or alone in one process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol

_UPDATE_EVERY_S = 0.5


class Link(Protocol):
    """What the training loop needs of the world around it."""

    rank: int
    world: int

    def total(self, values: Sequence[float]) -> list[float]:
        """Return the sums over all workers; every worker must call."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """Return every worker's value in the order of ranks; every worker must call."""
        ...

    def update(self, progress: dict[str, Any]) -> bool:
        """Tell the driver where this worker is; return whether it asked to stop."""
        ...

    def report(self, metrics: dict[str, Any]) -> None:
        """Report a finished epoch; every worker must call."""
        ...


class Alone:
    """One worker in this process, for tests and for debugging; reports are kept in `reports`."""

    rank, world = 0, 1

    def __init__(self, stop_after_updates: int | None = None) -> None:
        self.reports: list[dict[str, Any]] = []
        self.updates = 0
        self._stop_after = stop_after_updates

    def total(self, values: Sequence[float]) -> list[float]:
        """Return the values."""
        return list(values)

    def gather(self, value: Any) -> list[Any]:
        """Return the value alone."""
        return [value]

    def update(self, progress: dict[str, Any]) -> bool:
        """Count the update."""
        self.updates += 1
        return self._stop_after is not None and self.updates >= self._stop_after

    def report(self, metrics: dict[str, Any]) -> None:
        """Keep the report."""
        self.reports.append(metrics)


class RayLink:
    """A worker of a Ray Train group; `monitor` is the actor that the driver looks at."""

    def __init__(self, monitor: Any, device: Any) -> None:
        import ray.train

        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.world: int = context.get_world_size()
        self._monitor, self._device = monitor, device
        self._pending: Any = None
        self._asked = 0.0
        self._stop: bool = False

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
            self._pending = self._monitor.update.remote(progress)
        return self._stop

    def report(self, metrics: dict[str, Any]) -> None:
        """Report to Ray Train, which hands it to the driver's callbacks."""
        import ray.train

        ray.train.report(metrics)
