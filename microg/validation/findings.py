"""What a check reports: findings, and the report that collects them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from microg.arrow import parse_schema, pc

Severity = Literal["error", "warning"]
_EXAMPLES = 3

SCHEMA = parse_schema("severity check table clip_id message: string, count: int64, examples: [string]")


@dataclass(frozen=True)
class Finding:
    """One thing wrong in one clip (`clip_id` None: in no particular clip).

    An `error` contradicts the schema or cannot be used as it stands; a `warning` is usable but suspicious. `count`
    is the number of rows (or files) concerned, `examples` the first of them as text.
    """

    severity: Severity
    check: str
    table: str
    clip_id: str | None
    message: str
    count: int = 1
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckSummary:
    """All findings of one check: rows concerned, clips concerned, and the first findings."""

    severity: Severity
    check: str
    table: str
    count: int
    clips: int
    first: tuple[Finding, ...]


@dataclass(frozen=True)
class ValidationReport:
    """The findings of one validation, the rows each table had, and the checks that could not run and why."""

    findings: tuple[Finding, ...]
    rows: dict[str, int] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()

    @property
    def errors(self) -> int:
        """Number of findings of severity `error`."""
        return sum(finding.severity == "error" for finding in self.findings)

    @property
    def warnings(self) -> int:
        """Number of findings of severity `warning`."""
        return len(self.findings) - self.errors

    def summaries(self, examples: int = 3) -> list[CheckSummary]:
        """Group the findings by check, errors first, then by rows concerned."""
        groups: dict[tuple[str, str, str], list[Finding]] = {}
        for finding in self.findings:
            groups.setdefault((finding.severity, finding.check, finding.table), []).append(finding)
        result = [
            CheckSummary(
                found[0].severity,
                check,
                table,
                sum(finding.count for finding in found),
                len({finding.clip_id for finding in found if finding.clip_id is not None}),
                tuple(found[:examples]),
            )
            for (_, check, table), found in groups.items()
        ]
        return sorted(result, key=lambda summary: (summary.severity, -summary.count, summary.check, summary.table))

    def to_table(self) -> pa.Table:
        """Return the findings as an Arrow table of schema `SCHEMA`."""
        return pa.Table.from_pylist([asdict(finding) for finding in self.findings], schema=SCHEMA)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "errors": self.errors,
            "warnings": self.warnings,
            "rows": self.rows,
            "skipped": list(self.skipped),
            "findings": [asdict(finding) for finding in self.findings],
        }


def by_clip(
    rows: pa.Table, check: str, table: str, message: str, show: Sequence[str] = (), *, severity: Severity = "error"
) -> list[Finding]:
    """Turn the bad `rows` of a table into one finding a clip.

    `rows` has a string column `clip_id` (null: no clip). `message` may hold `{count}`. The first three rows of each
    clip become examples, written from the columns `show`.
    """
    if rows.num_rows == 0:
        return []
    encoded = pc.dictionary_encode(rows["clip_id"].combine_chunks(), null_encoding="encode")
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    clip_ids = encoded.dictionary.to_pylist()
    order = np.argsort(codes, kind="stable")
    counts = np.bincount(codes, minlength=len(clip_ids))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    position = np.arange(len(order)) - np.repeat(starts, counts)
    chosen = np.sort(order[position < _EXAMPLES])
    examples: dict[int, list[str]] = {}
    shown = rows.select(list(show)).take(chosen).to_pylist() if show else []
    for code, row in zip(codes[chosen], shown, strict=False):
        examples.setdefault(int(code), []).append(", ".join(f"{name} {_text(value)}" for name, value in row.items()))
    result = []
    for code, (clip_id, count) in enumerate(zip(clip_ids, counts.tolist(), strict=True)):
        text = message.format(count=count)
        result.append(Finding(severity, check, table, clip_id, text, count, tuple(examples.get(code, ()))))
    return result


def where(rows: pa.Table, mask: Any) -> pa.Table:
    """Return the rows where `mask` is true; a null in the mask counts as false."""
    return rows.filter(pc.fill_null(mask, False))


def first_texts(values: Iterable[Any], limit: int = _EXAMPLES) -> tuple[str, ...]:
    """Return the first few values as text."""
    return tuple(_text(value) for _, value in zip(range(limit), values, strict=False))


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str) and len(value) > 80:
        return repr(value[:77] + "...")
    return repr(value) if isinstance(value, str) else str(value)
