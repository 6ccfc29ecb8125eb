"""Annotations into a dataset that is there already."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pyarrow as pa

from microg.arrow import pc
from microg.errors import FormatError
from microg.formats.base import count_of

_DERIVED = ("samples", "splits")


def merge(
    existing: Mapping[str, pa.Table], imported: Mapping[str, pa.Table], named: Collection[str] = ()
) -> tuple[dict[str, pa.Table], list[str]]:
    """Return the tables to write, and notes.

    In every table that the import speaks of, its clips' rows replace those that were there; other clips keep theirs,
    and tables that the import cannot express stay. A clip that is known keeps its row in `clips`, whose nulls are
    filled from the import; new clips are added.

    Raises:
        FormatError: A clip's rows would be replaced by none, in a table that is not among the `named` ones.
    """
    clip_ids = imported["clips"]["clip_id"]
    refuse_loss(existing, imported, named)
    result, notes = {"clips": merge_clips(existing.get("clips"), imported["clips"])}, []
    for name, table in imported.items():
        if name == "clips":
            continue
        old = existing.get(name)
        if old is not None:
            mine = pc.is_in(old["clip_id"], clip_ids)
            gone = old.filter(mine)
            if gone.num_rows:
                notes.append(
                    f"table '{name}': {gone.num_rows} rows of imported clips were replaced by {table.num_rows}"
                )
            table = pa.concat_tables([old.filter(pc.invert(mine)), table])
        result[name] = table
    stale = [name for name in _DERIVED if name in existing and name not in imported and existing[name].num_rows]
    if stale:
        notes.append(f"{' and '.join(stale)} were made before this import: run 'microg data split' again")
    return result, notes


def refuse_loss(
    existing: Mapping[str, pa.Table], imported: Mapping[str, pa.Table], named: Collection[str] = ()
) -> None:
    """Raise `FormatError` when a clip's rows would be replaced by none, in a table that is not among the `named`."""
    lost = {}
    clip_ids = imported["clips"]["clip_id"]
    for name, table in imported.items():
        old = existing.get(name)
        if name == "clips" or old is None or name in named:
            continue
        gone = old.filter(pc.is_in(old["clip_id"], clip_ids))
        bare = gone.filter(pc.invert(pc.is_in(gone["clip_id"], table["clip_id"])))
        if bare.num_rows:
            lost[name] = f"{bare.num_rows} of {count_of(pc.unique(bare['clip_id']).to_pylist(), 'clip')} in {name!r}"
    if lost:
        kept = ",".join(name for name in imported if name not in lost and name != "clips")
        raise FormatError(
            f"the import has no rows in place of rows that are there: {', '.join(lost.values())}",
            (f"take the other tables with --tables {kept}; " if kept else "")
            + f"if these rows are to go, name their tables, too: --tables {','.join(lost)}",
        )


def merge_clips(old: pa.Table | None, new: pa.Table) -> pa.Table:
    """Return table `clips` with new clips after those that are known, whose nulls are filled from the new rows."""
    if old is None:
        return new
    filled = {row["clip_id"]: row for row in new.to_pylist()}
    rows = []
    for row in old.to_pylist():
        fresh = filled.pop(row["clip_id"], {})
        rows.append({key: fresh.get(key) if value is None else value for key, value in row.items()})
    return pa.Table.from_pylist([*rows, *filled.values()], schema=new.schema)
