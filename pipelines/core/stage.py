"""What the last stage of a graph tells the driver: small rows, one for each key, or that nothing can be done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from microg.errors import WorkerError
from microg.pipelines.core.session import surfaced

# Status of a row that says: not this row but all of them cannot be done, for the reason `error` (and `fix`, if there).
ABORT = "abort"
_AGAIN = "put that right and run the same command again"


def each_once(dataset: Any, key: str, unable: str) -> Iterator[dict[str, Any]]:
    """Run a Ray dataset and yield its rows, of those with the same `key` the first: a killed task is done again.

    Raises `WorkerError` when a row is an `ABORT`, where `unable` says what cannot be done, and when Ray gives up.
    """
    seen: set[str] = set()
    batch: Any
    with surfaced():
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            for row in batch.to_pylist():
                if row["status"] == ABORT:
                    raise WorkerError(f"{unable}: {row['error']}", row.get("fix") or _AGAIN)
                if row[key] not in seen:
                    seen.add(row[key])
                    yield row
