"""Validation of a dataset: pure checks over its Arrow tables, and over its video files.

`validate` runs them all. Each check is a function from tables to findings and may be used alone.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from microg.data import schema
from microg.data.dataset import Dataset
from microg.data.label_space import MICROG_50, LabelSpace
from microg.errors import DatasetError
from microg.validation import tables as checks
from microg.validation.findings import SCHEMA, CheckSummary, Finding, ValidationReport

__all__ = ["SCHEMA", "CheckSummary", "Finding", "ValidationReport", "check_tables", "validate"]

_NOTHING_TO_SAY = {
    "boxes": "people, frames and frame edges",
    "actions": "labels",
    "captions": "captions",
    "qa": "questions",
    "splits": "source leakage",
}


def check_tables(tables: dict[str, pa.Table], space: LabelSpace = MICROG_50) -> list[Finding]:
    """Run every check that needs tables alone.

    `tables` maps names of `schema.TABLES` to tables of that schema; a missing one counts as empty. Vectorised: the
    390,000 boxes of MicroG-4M take about a second. `space` has the actions.
    """
    full = {name: tables.get(name, schema.empty(name)) for name in schema.TABLES}
    clips, boxes, actions = full["clips"], full["boxes"], full["actions"]
    findings = checks.check_ids(full) + checks.check_references(full, space)
    for name, table in full.items():
        findings += checks.check_repeated_rows(name, table)
        findings += checks.check_values(name, table)
    findings += checks.check_clip_facts(clips)
    findings += checks.check_boxes(boxes, clips)
    findings += checks.check_samples(full["samples"], clips)
    findings += checks.check_people(boxes, actions, full["samples"])
    findings += checks.check_label_counts(actions)
    findings += checks.check_clips_without_boxes(boxes, clips)
    findings += checks.check_text(full["captions"], full["qa"])
    findings += checks.check_source_leakage(full["splits"], clips)
    return findings


def validate(
    dataset: Dataset,
    *,
    videos: bool = True,
    workers: int | None = None,
    progress: Callable[[int], Callable[[], None]] | None = None,
) -> ValidationReport:
    """Check a dataset: its tables, that its video files are there and, with `videos`, what is in them.

    `progress`, when given, is called with the number of videos to decode and returns what to call after each. A
    table that cannot be read becomes a finding, and its checks are named in `skipped`.
    """
    from microg.validation import videos as video_checks

    findings: list[Finding] = []
    tables: dict[str, pa.Table] = {}
    skipped: list[str] = []
    for name in schema.TABLES:
        try:
            tables[name] = dataset.stored_table(name).combine_chunks()
        except DatasetError as error:
            findings.append(Finding("error", "unreadable_table", name, None, error.what))
            tables[name] = schema.empty(name)
    for name, what in _NOTHING_TO_SAY.items():
        if tables[name].num_rows == 0:
            skipped.append(f"no {name}: {what} not checked")
    findings += check_tables(tables, dataset.label_space)
    found, present = video_checks.check_files(dataset, tables["clips"])
    findings += found
    if videos:
        advance = progress(len(present)) if progress is not None else lambda: None
        findings += video_checks.check_videos(present, tables["splits"], workers=workers, progress=advance)
    else:
        skipped.append("videos not opened: unreadable, changed and near-duplicate videos not checked")
    rows = {name: table.num_rows for name, table in tables.items()}
    return ValidationReport(tuple(findings), rows, tuple(skipped))
