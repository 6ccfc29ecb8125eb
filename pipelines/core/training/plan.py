"""Which samples are shown when: a pure function of seed, sizes and settings, whatever the number of workers.

A run is one sequence of units of `block` samples: of each epoch its training iterations in a new order, then, where
it is due, all of validation, padded to whole rounds. Units go round the workers in turn, so a place in the run
(epoch, iteration) is all the state that a sampler has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from microg.errors import ConfigError

PADDING = -1
_LARGEST_BLOCK = 4  # samples: small enough for several tasks to share one batch


@dataclass(frozen=True, order=True)
class Position:
    """A place in a run: `iteration` optimizer steps of epoch `epoch` are done (all of them: validation is next)."""

    epoch: int = 0
    iteration: int = 0


@dataclass(frozen=True)
class Unit:
    """A block of samples decoded together; indices into the split's rows, `PADDING` where there is none."""

    number: int
    epoch: int
    validation: bool
    keys: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The order of all samples of a run.

    Attributes:
        train: Samples of the train split.
        val: Samples of the val split.
        batch: Samples of one optimizer step, over all workers.
        micro_batch: Samples whose loss is averaged first.
        workers: Processes that train.
        epochs: Epochs of the run.
        validate_every: Epochs between two validations; the last epoch always has one.
        seed: Of the order of samples.
        noun: What people call the samples.
    """

    train: int
    val: int
    batch: int
    micro_batch: int
    workers: int
    epochs: int
    validate_every: int
    seed: int
    noun: str = "samples"

    def __post_init__(self) -> None:
        if self.train < self.batch:
            raise ConfigError(
                f"the train split has {self.train} {self.noun}, fewer than one batch of {self.batch}",
                "lower it with --set batch=N (and --set micro_batch=N)",
            )

    @property
    def iterations(self) -> int:
        """Optimizer steps of an epoch; the last incomplete batch is left out, as in the reference."""
        return self.train // self.batch

    @property
    def micro_batches(self) -> int:
        """Micro-batches that one worker computes for each step."""
        return self.batch // (self.micro_batch * self.workers)

    @cached_property
    def block(self) -> int:
        """Samples of a unit: the largest divisor of a micro-batch up to a bound."""
        return next(size for size in range(min(_LARGEST_BLOCK, self.micro_batch), 0, -1) if not self.micro_batch % size)

    @property
    def blocks(self) -> int:
        """Units of a micro-batch."""
        return self.micro_batch // self.block

    @property
    def step_units(self) -> int:
        """Units of one optimizer step over all workers."""
        return self.batch // self.block

    @property
    def val_rounds(self) -> int:
        """Units of validation that each worker gets."""
        return -(-self.val // (self.block * self.workers))

    def validates(self, epoch: int) -> bool:
        """Tell whether validation follows the training of `epoch` (0-based)."""
        return self.val > 0 and ((epoch + 1) % self.validate_every == 0 or epoch + 1 == self.epochs)

    @cached_property
    def _starts(self) -> np.ndarray:
        """Number of the first unit of each epoch, and of the end."""
        own = [
            self.iterations * self.step_units + self.validates(epoch) * self.val_rounds * self.workers
            for epoch in range(self.epochs)
        ]
        return np.concatenate([[0], np.cumsum(own, dtype=np.int64)])

    def first_unit(self, position: Position) -> int:
        """Return the number of the first unit after `position`."""
        if position.epoch >= self.epochs:
            return self.units
        return int(self._starts[position.epoch]) + position.iteration * self.step_units

    @property
    def units(self) -> int:
        """Number of units of the whole run."""
        return int(self._starts[-1])

    def order(self, epoch: int) -> np.ndarray:
        """Return the order of the train samples (train,) int64 in `epoch`."""
        return _order(self.seed, epoch, self.train)

    def unit(self, number: int) -> Unit:
        """Return unit `number` of the run."""
        epoch = int(np.searchsorted(self._starts, number, side="right")) - 1
        offset = number - int(self._starts[epoch])
        training = self.iterations * self.step_units
        if offset >= training:
            first = (offset - training) * self.block
            keys = range(first, first + self.block)
            return Unit(number, epoch, True, tuple(key if key < self.val else PADDING for key in keys))
        iteration, offset = divmod(offset, self.step_units)
        turn, worker = divmod(offset, self.workers)
        micro, part = divmod(turn, self.blocks)
        first = iteration * self.batch + (micro * self.workers + worker) * self.micro_batch + part * self.block
        return Unit(number, epoch, False, tuple(self.order(epoch)[first : first + self.block].tolist()))

    def units_of(self, worker: int, start: Position) -> Iterator[int]:
        """Yield the numbers of the units that `worker` gets from `start` on, in order."""
        yield from range(self.first_unit(start) + worker, self.units, self.workers)


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch, 0x0D)).permutation(count)
