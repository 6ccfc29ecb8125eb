"""Tables that many workers append to, file by file; of several rows with one key the newest counts.

Every commit is one small file, written atomically. `written`, a time or nanoseconds since the epoch, tells which row is
newest.
"""

from __future__ import annotations

import uuid
from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from microg import storage
from microg.arrow import pc
from microg.errors import WorkerError

WRITTEN = "written"


@dataclass(frozen=True)
class PartFiles:
    """An append-only table of small Parquet files in `folder`; `schema` has the string column `key`, and `WRITTEN`."""

    folder: str
    schema: pa.Schema
    key: str

    def append(self, table: pa.Table) -> None:
        """Commit rows as one new file, atomically."""
        self._write("part", table)

    def newest(self, columns: list[str] | None = None) -> pa.Table:
        """Return the newest row of each key, sorted by key."""
        wanted = None if columns is None else sorted({*columns, self.key, WRITTEN})
        table = storage.read_parquet_folder(self.folder, self.schema, wanted)
        if table.num_rows:
            order = pc.sort_indices(table, sort_keys=[(self.key, "ascending"), (WRITTEN, "descending")])
            keys = table[self.key].take(order).to_numpy(zero_copy_only=False)
            table = table.take(order.filter(pa.array(np.r_[True, keys[1:] != keys[:-1]])))
        return table if columns is None else table.select(columns)

    def complete(self, keys: Sequence[str]) -> pa.Table:
        """Return the newest rows of exactly these keys, in this order, without `WRITTEN`.

        Raises `WorkerError` when some are missing, as `require` does.
        """
        table = self.newest()
        place = {key: number for number, key in enumerate(table[self.key].to_pylist())}
        self._check(keys, place)
        return table.drop_columns([WRITTEN]).take(pa.array([place[key] for key in keys], pa.int64()))

    def require(self, keys: Sequence[str]) -> None:
        """Raise `WorkerError` when a key has no row: then workers wrote somewhere else than this process reads."""
        self._check(keys, set(self.newest([self.key])[self.key].to_pylist()))

    def _check(self, keys: Sequence[str], known: Container[str]) -> None:
        missing = sum(key not in known for key in keys)
        if missing:
            raise WorkerError(
                f"{missing} of {len(keys)} rows that workers wrote to {self.folder} are not there for this process",
                "write to a folder that all nodes share, or to s3:// or gs://",
            )

    def compact(self, when_more_than: int = 16) -> None:
        """Join many small files into one. Killed halfway, it leaves rows twice, which `newest` takes once."""
        fs, path = storage.filesystem(self.folder)
        parts = sorted(name for name in fs.find(path) if name.endswith(".parquet"))
        if len(parts) <= when_more_than:
            return
        self._write("all", self.newest())
        fs.rm(parts)

    def _write(self, kind: str, table: pa.Table) -> None:
        storage.write_parquet(storage.join(self.folder, f"{kind}-{uuid.uuid4().hex}.parquet"), table)
