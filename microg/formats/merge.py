"""Taking an import over into a dataset that is there already, as when annotators send their work back."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from microg.arrow import pc

_DERIVED = ("samples", "splits")


def merge(existing: Mapping[str, pa.Table], imported: Mapping[str, pa.Table]) -> tuple[dict[str, pa.Table], list[str]]:
    """Return the tables to write, and notes.

    In every table that the import speaks of, its clips' rows replace those that were there; other clips keep theirs,
    and tables that the import cannot express stay. A clip that is known keeps its row in `clips`, whose nulls are
    filled from the import; new clips are added.
    """
    clip_ids = imported["clips"]["clip_id"]
    result, notes = {"clips": _merge_clips(existing.get("clips"), imported["clips"])}, []
    for name, table in imported.items():
        if name == "clips":
            continue
        old = existing.get(name)
        if old is not None:
            kept = old.filter(pc.invert(pc.is_in(old["clip_id"], clip_ids)))
            replaced = old.num_rows - kept.num_rows
            if replaced:
                notes.append(f"table '{name}': {replaced} rows of imported clips were replaced by {table.num_rows}")
            table = pa.concat_tables([kept, table])
        result[name] = table
    stale = [name for name in _DERIVED if name in existing and name not in imported and existing[name].num_rows]
    if stale:
        notes.append(f"{' and '.join(stale)} were made before this import: run 'microg data split' again")
    return result, notes


def _merge_clips(old: pa.Table | None, new: pa.Table) -> pa.Table:
    if old is None:
        return new
    filled = {row["clip_id"]: row for row in new.to_pylist()}
    rows = []
    for row in old.to_pylist():
        fresh = filled.pop(row["clip_id"], {})
        rows.append({key: fresh.get(key) if value is None else value for key, value in row.items()})
    return pa.Table.from_pylist([*rows, *filled.values()], schema=new.schema)
