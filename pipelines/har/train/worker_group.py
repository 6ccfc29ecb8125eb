"""How a worker talks to the others of its group and to the driver."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol

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

    def update(self, progress: dict[str, Any]) -> bool:
        """Tell the driver where this worker is; return whether it asked to stop."""
        ...

    def report(self, metrics: dict[str, Any]) -> None:
        """Report a finished epoch; every worker must call."""
        ...


class RayWorkerGroup:
    """The group of a Ray Train worker; `monitor` is the actor that the driver looks at."""

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
            self._pending = self._monitor.record_progress.remote(progress)
        return self._stop

    def report(self, metrics: dict[str, Any]) -> None:
        """Report to Ray Train, which hands it to the driver's callbacks."""
        import ray.train

        ray.train.report(metrics)
