"""Where answers lie while they are made, and the table `generations` they become at the end.

Each block of clips is committed as one small file, atomically; of two rows of one item the newest counts. The table is
written when everything asked has a row, so that an unfinished run cannot be scored unnoticed.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from microg import storage
from microg.arrow import pc
from microg.data import schema
from microg.errors import RunConflictError
from microg.pipelines.core.part_files import WRITTEN, PartFiles
from microg.runs import differences
from microg.texts.items import GENERATED

TABLE = "generations"
KEY = "key"
SCHEMA = schema.schema_of(TABLE).append(pa.field(KEY, pa.string()))
_ENGINE = "engine.json"


def fingerprint_hash(fingerprint: Mapping[str, Any]) -> str:
    """Return a short hash of an engine's fingerprint."""
    return hashlib.sha256(json.dumps(fingerprint, sort_keys=True, default=str).encode()).hexdigest()[:16]


def claim(root: str, fingerprint: Mapping[str, Any]) -> None:
    """Record which engine makes the rows of a run.

    Raises `RunConflictError` when another one began it, naming what differs: answers of two would be mixed.
    """
    path = storage.join(root, _ENGINE)
    own = json.loads(json.dumps(fingerprint, default=str))
    if not storage.exists(path):
        storage.write_json(path, own)
    elif different := differences(storage.read_json(path), own):
        raise RunConflictError(
            f"run folder {root} was begun by another engine: {'; '.join(different)}",
            "give another run name, or the same model, server and engine settings to resume",
        )


def commit(root: str, rows: Sequence[dict[str, Any]]) -> None:
    """Append rows as one new file, atomically."""
    now = time.time_ns() // 1000
    files(root).append(pa.Table.from_pylist([{**row, WRITTEN: now} for row in rows], schema=SCHEMA))


def finished_keys(root: str) -> set[str]:
    """Return the keys of items that have an answer; those with errors are to be tried again."""
    table = files(root).newest([KEY, "status"])
    return set(table.filter(pc.equal(table["status"], "ok"))[KEY].to_pylist())


def spent(root: str) -> float:
    """Return the dollars that committed rows cost, as far as that is known."""
    return float(pc.sum(files(root).newest(["cost"])["cost"]).as_py() or 0.0)


def answers(root: str) -> list[dict[str, Any]]:
    """Return task, clip_id, qa_index and text of every committed answer."""
    table = files(root).newest(["task", "clip_id", "qa_index", "text", "status"])
    return table.filter(pc.equal(table["status"], "ok")).to_pylist()


def finish(root: str, keys: Iterable[str]) -> tuple[pa.Table, pa.Table]:
    """Write the table of everything that was ever asked in this run; return it, and the rows of `keys` alone.

    Raises `WorkerError` when rows of `keys` are missing.
    """
    mine = files(root).complete(list(keys))
    result = order_of(schema.conform(TABLE, files(root).newest().drop_columns([KEY])))
    storage.write_parquet(storage.join(root, "tables", f"{TABLE}.parquet"), result)
    return result, mine


def order_of(table: pa.Table) -> pa.Table:
    """Return rows of `generations` by clip, task and question."""
    places = pa.array([GENERATED.index(task) for task in table["task"].to_pylist()], pa.int8())
    keys = table.select(["clip_id", "qa_index"]).append_column("place", places)
    return table.take(
        pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in ("clip_id", "place", "qa_index")])
    )


def files(root: str) -> PartFiles:
    """Return the files in which rows are committed."""
    return PartFiles(storage.join(root, "parts"), SCHEMA, KEY)
