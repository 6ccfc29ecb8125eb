"""Checks of identity: valid ids, references between tables, repeated rows, values of closed vocabularies."""

from __future__ import annotations

import pyarrow as pa

from microg.arrow import pc
from microg.data.ids import check_id, split_clip_id
from microg.data.schema import ORIGINS, SPLITS
from microg.data.taxonomy import ACTION_IDS
from microg.errors import IdError
from microg.validation.findings import Finding, by_clip, first_texts, where

# The columns that name a row; a second row with the same values is a repetition.
KEYS: dict[str, tuple[str, ...]] = {
    "clips": ("clip_id",),
    "sources": ("source_id",),
    "decisions": ("clip_id", "stage"),
    "boxes": ("clip_id", "frame", "person_id"),
    "actions": ("clip_id", "person_id", "action_id"),
    "captions": ("clip_id",),
    "qa": ("clip_id", "qa_index"),
    "samples": ("clip_id", "frame", "person_id", "action_id"),
    "splits": ("clip_id", "scheme"),
}
_VOCABULARIES: dict[str, dict[str, tuple[str, ...]]] = {
    "clips": {"origin": ORIGINS, "status": ("ok", "rejected", "error")},
    "sources": {"origin": ORIGINS},
    "splits": {"split": SPLITS},
}


def check_ids(tables: dict[str, pa.Table]) -> list[Finding]:
    """Find ids that may not become paths, and clips whose `source_id` or `sequence` contradicts their id."""
    findings: list[Finding] = []
    for name, table in tables.items():
        column = "clip_id" if "clip_id" in table.column_names else "source_id"
        bad = [value for value in pc.unique(table[column]).to_pylist() if not _valid(value, column)]
        if not bad:
            continue
        rows = where(table, pc.is_in(table[column], value_set=pa.array(bad, pa.string())))
        findings.append(
            Finding(
                "error",
                "invalid_id",
                name,
                None,
                f"{len(bad)} {column} values are not allowed as ids",
                rows.num_rows,
                first_texts(bad),
            )
        )
    return findings + _check_clip_parts(tables["clips"])


def _valid(value: str | None, column: str) -> bool:
    try:
        if column == "clip_id":
            split_clip_id(value)  # pyright: ignore[reportArgumentType]
        check_id(value)  # pyright: ignore[reportArgumentType]
    except IdError:
        return False
    return True


def _check_clip_parts(clips: pa.Table) -> list[Finding]:
    findings = []
    columns = clips.select(["clip_id", "source_id", "sequence"]).to_pylist()
    for row in columns:
        if not _valid(row["clip_id"], "clip_id"):
            continue
        source_id, sequence = split_clip_id(row["clip_id"])
        # A null is "not recorded", which is no contradiction.
        if row["source_id"] not in (None, source_id) or row["sequence"] not in (None, sequence):
            findings.append(
                Finding(
                    "error",
                    "clip_id_parts",
                    "clips",
                    row["clip_id"],
                    f"the id says source {source_id!r}, sequence {sequence}; the row says source "
                    f"{row['source_id']!r}, sequence {row['sequence']}",
                )
            )
    return findings


def check_references(tables: dict[str, pa.Table]) -> list[Finding]:
    """Find rows about clips that `clips` lacks, sources that `sources` lacks, and action ids not of the 50."""
    findings: list[Finding] = []
    known = tables["clips"]["clip_id"].combine_chunks()
    for name, table in tables.items():
        if name != "clips" and "clip_id" in table.column_names:
            findings += by_clip(
                where(table, pc.invert(pc.is_in(table["clip_id"], value_set=known))),
                severity="error",
                check="unknown_clip",
                table=name,
                message="{count} rows are about a clip that the clips table lacks",
            )
        if "action_id" in table.column_names:
            known_actions = pc.is_in(table["action_id"], value_set=pa.array(ACTION_IDS, pa.int32()))
            # An unlabelled sample has a null action; an action row without an action says nothing.
            mask = pc.invert(known_actions)
            if name == "samples":
                mask = pc.and_(mask, pc.is_valid(table["action_id"]))
            findings += by_clip(
                where(table, mask),
                severity="error",
                check="unknown_action",
                table=name,
                message="{count} rows have an action id that is not one of the 50",
                show=("person_id", "action_id"),
            )
    sources = tables["sources"]
    if sources.num_rows:
        clips = tables["clips"]
        findings += by_clip(
            where(clips, pc.invert(pc.is_in(clips["source_id"], value_set=sources["source_id"].combine_chunks()))),
            severity="error",
            check="unknown_source",
            table="clips",
            message="its source is not in the sources table",
            show=("source_id",),
        )
    return findings


def check_repeated_rows(name: str, table: pa.Table) -> list[Finding]:
    """Find rows that repeat the key of an earlier row of the same table."""
    key = list(KEYS[name])
    groups = table.group_by(key, use_threads=False).aggregate([([], "count_all")])
    repeated = groups.filter(pc.greater(groups["count_all"], 1))
    if repeated.num_rows == 0:
        return []
    if "clip_id" not in key:
        extra = int(pc.sum(repeated["count_all"]).as_py()) - repeated.num_rows
        examples = first_texts(repeated[key[0]].to_pylist())
        return [Finding("error", "repeated_rows", name, None, f"{extra} rows repeat {key[0]}", extra, examples)]
    found = by_clip(
        repeated,
        severity="error",
        check="repeated_rows",
        table=name,
        message="rows repeat the same " + ", ".join(key),
        show=(*key[1:], "count_all"),
    )
    extra = dict(_extra_rows(repeated))
    return [
        Finding(
            item.severity,
            item.check,
            name,
            item.clip_id,
            f"{extra[item.clip_id]} {item.message}",
            extra[item.clip_id],
            tuple(text.replace("count_all", "rows") for text in item.examples),
        )
        for item in found
    ]


def _extra_rows(repeated: pa.Table) -> list[tuple[str | None, int]]:
    summed = repeated.group_by("clip_id", use_threads=False).aggregate([("count_all", "sum"), ([], "count_all")])
    return [(row["clip_id"], row["count_all_sum"] - row["count_all"]) for row in summed.to_pylist()]


def check_values(name: str, table: pa.Table) -> list[Finding]:
    """Find values outside a closed vocabulary (origin, status, split); null is allowed for `origin` only."""
    findings: list[Finding] = []
    for column, allowed in _VOCABULARIES.get(name, {}).items():
        mask = pc.invert(pc.is_in(table[column], value_set=pa.array(allowed, pa.string())))
        if column == "origin":
            mask = pc.and_(mask, pc.is_valid(table[column]))
        rows = where(table, mask)
        message = f"{column} must be one of {', '.join(allowed)}"
        if "clip_id" in table.column_names:
            findings += by_clip(
                rows, severity="error", check="unknown_value", table=name, message=message, show=(column,)
            )
        elif rows.num_rows:
            findings.append(
                Finding(
                    "error", "unknown_value", name, None, message, rows.num_rows, first_texts(rows[column].to_pylist())
                )
            )
    return findings
