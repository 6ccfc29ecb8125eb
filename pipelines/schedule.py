"""In which order a rank sees which samples: a pure function of seed, epoch, rank and sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from microg.errors import ConfigError


@dataclass(frozen=True)
class Schedule:
    """Samples 0 .. num_rows - 1, taken in epochs `first_epoch` .. `last_epoch` - 1 by `world_size` ranks.

    An epoch is an order of all samples (shuffled by seed and epoch, or as they are), cut into global batches of
    `batch_size`; a rank takes every `world_size`-th sample of each. Over all ranks each sample comes exactly once an
    epoch; with `drop_last` those of an incomplete last batch not at all. All ranks have the same number of steps; in an
    incomplete last batch a rank may have no sample.
    """

    num_rows: int
    batch_size: int
    first_epoch: int = 0
    last_epoch: int = 1
    shuffle: bool = False
    seed: int = 0
    drop_last: bool = False
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.num_rows < 1 or not 0 <= self.rank < self.world_size or self.first_epoch > self.last_epoch:
            raise ConfigError(f"there is no such schedule: {self}")
        if self.batch_size < self.world_size:
            raise ConfigError(
                f"a global batch of {self.batch_size} does not give each of {self.world_size} workers a sample",
                "raise the batch size, or use fewer workers",
            )
        if not self.steps:
            raise ConfigError(
                f"{self.num_rows} samples do not fill one global batch of {self.batch_size}", "lower the batch size"
            )

    @property
    def steps(self) -> int:
        """Global batches an epoch."""
        whole, rest = divmod(self.num_rows, self.batch_size)
        return whole + (1 if rest and not self.drop_last else 0)

    @property
    def epochs(self) -> range:
        """The epochs, in order."""
        return range(self.first_epoch, self.last_epoch)

    @property
    def rank_rows(self) -> int:
        """How many samples the rank takes in an epoch."""
        return sum(self.rank_batch(step) for step in range(self.steps))

    def rank_batch(self, step: int) -> int:
        """How many samples the rank takes in step `step`."""
        whole = min(self.batch_size, self.num_rows - step * self.batch_size)
        return len(range(self.rank, whole, self.world_size))

    def rank_order(self, epoch: int) -> np.ndarray:
        """Return the rank's samples of an epoch, step after step, int64."""
        return _rank_order(self, epoch)

    def batches(self) -> Iterator[tuple[int, int, int]]:
        """Yield (epoch, step, number of samples of the rank)."""
        for epoch in self.epochs:
            for step in range(self.steps):
                yield epoch, step, self.rank_batch(step)


@lru_cache(maxsize=4)
def _rank_order(schedule: Schedule, epoch: int) -> np.ndarray:
    order = np.arange(schedule.num_rows)
    if schedule.shuffle:
        order = np.random.default_rng((schedule.seed, epoch)).permutation(schedule.num_rows)
    size = schedule.batch_size
    parts = [order[step * size : (step + 1) * size][schedule.rank :: schedule.world_size]
             for step in range(schedule.steps)]  # fmt: skip
    return np.concatenate(parts)
