"""The stream of a whole run: units of the plan, decoded by Ray Data tasks on any node, dealt out to the workers.

One execution serves all epochs with their validations: starting Ray Data anew for each would cost seconds, and decoding
goes on while a worker validates or saves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from microg.errors import WorkerError
from microg.pipelines.core.stage import Pipeline, build_dataset
from microg.pipelines.core.training.plan import Plan, Position

if TYPE_CHECKING:
    from ray.data import Dataset

# A step of a large model on a laptop takes minutes, and while the workers' buffers are full nothing moves.
_NO_PROGRESS_TIMEOUT_S = 24 * 3600
_RANGE_BLOCK = 1024
_LOT_UNITS, _LOT_BYTES = 16, 16 * 2**20
# One lot a call, and so one lot a block: a block is what is dealt out.
LOT_NUMBERS = pa.schema([("id", pa.int64())])


@dataclass(frozen=True)
class Lots:
    """Units of one worker that one task decodes: lot `number` goes to worker `number % workers`.

    Ray Data's scheduling takes tens of milliseconds of a core for each block, whatever is in it: with blocks of one
    unit it took as much of a laptop as a small model did.
    """

    first: int
    end: int
    workers: int
    size: int

    @classmethod
    def of(cls, plan: Plan, start: Position, clip_bytes: int) -> Lots:
        """Return the lots from `start` on, of some megabytes each."""
        size = max(1, min(_LOT_UNITS, _LOT_BYTES // max(plan.block * clip_bytes, 1)))
        return cls(plan.first_unit(start), plan.units, plan.workers, size)

    @property
    def count(self) -> int:
        """Number of lots; as many for each worker."""
        return -(-(self.end - self.first) // (self.workers * self.size)) * self.workers

    def units(self, number: int) -> range:
        """Return the numbers of the units of a lot."""
        turn, worker = divmod(number, self.workers)
        begin = self.first + turn * self.size * self.workers
        return range(begin + worker, min(begin + self.size * self.workers, self.end), self.workers)


def stream_of(pipeline: Pipeline, lots: Lots) -> Dataset:
    """Return the decoded units of all lots, one lot a block, in order; the pipeline reads `LOT_NUMBERS`."""
    import ray

    from microg.pipelines.core import session

    session.configure_data()
    ray.data.DataContext.get_current().execution_no_progress_timeout_s = _NO_PROGRESS_TIMEOUT_S
    return build_dataset(pipeline, ray.data.range(lots.count, override_num_blocks=-(-lots.count // _RANGE_BLOCK)))


def units_in_order(blocks: Iterator[pa.Table], plan: Plan, worker: int, start: Position) -> Iterator[pa.Table]:
    """Yield the rows of each unit of `worker` from `start` on; blocks have a column `unit`, a number a row.

    Raises `WorkerError` when a unit is not the one due: no sample is lost or taken twice unnoticed.
    """
    due = plan.units_of(worker, start)
    for block in blocks:
        for first in range(0, block.num_rows, plan.block):
            table = block.slice(first, plan.block)
            number, wanted = table["unit"][0].as_py(), next(due)
            if number != wanted:
                raise WorkerError(
                    f"unit {wanted} of the samples was due, {number} came", "run the same command again to resume"
                )
            yield table
    left = next(due, None)
    if left is not None:
        raise WorkerError(f"the stream of samples ended before unit {left}", "run the same command again to resume")
