"""Checks of splits: source videos that appear on both sides, kept clips that a source-grouped split forgot."""

from __future__ import annotations

import pyarrow as pa

from microg.arrow import pc
from microg.validation.findings import Finding

# The scheme that promises that no source is on two sides; the published one splits by clip and leaks by construction.
GROUPED_SCHEME = "source"


def check_source_leakage(splits: pa.Table, clips: pa.Table) -> list[Finding]:
    """Find sources whose clips are in more than one split of the same scheme.

    An error in the scheme `source`, which promises otherwise; a warning in every other scheme.
    """
    joined = splits.join(
        clips.select(["clip_id", "source_id"]).group_by("clip_id", use_threads=False).aggregate([("source_id", "min")]),
        keys="clip_id",
        join_type="inner",
    ).rename_columns([*splits.column_names, "source_id"])
    counts = joined.group_by(["scheme", "source_id", "split"]).aggregate([([], "count_all")])
    places: dict[tuple[str, str], dict[str, int]] = {}
    for row in counts.sort_by(
        [("scheme", "ascending"), ("source_id", "ascending"), ("split", "ascending")]
    ).to_pylist():
        if row["source_id"] is not None:
            places.setdefault((row["scheme"], row["source_id"]), {})[row["split"]] = row["count_all"]
    findings = []
    for (scheme, source_id), sides in places.items():
        if len(sides) < 2:
            continue
        total = sum(sides.values())
        findings.append(
            Finding(
                "error" if scheme == GROUPED_SCHEME else "warning",
                "source_leakage",
                "splits",
                None,
                f"scheme {scheme!r}: clips of one source are in {len(sides)} splits",
                total,
                (f"{source_id}: " + ", ".join(f"{count} {split}" for split, count in sides.items()),),
            )
        )
    return findings


def split_of(splits: pa.Table) -> dict[str, dict[str, str]]:
    """Return scheme -> clip id -> split."""
    result: dict[str, dict[str, str]] = {}
    columns = (splits[name].to_pylist() for name in ("scheme", "clip_id", "split"))
    for scheme, clip_id, split in zip(*columns, strict=True):
        result.setdefault(scheme, {})[clip_id] = split
    return result


def check_clip_facts(clips: pa.Table) -> list[Finding]:
    """Find kept clips whose size, frame rate or number of frames is missing or not positive."""
    findings = []
    kept = clips.filter(pc.fill_null(pc.equal(clips["status"], "ok"), False))
    for row in kept.select(["clip_id", "fps", "num_frames", "width", "height"]).to_pylist():
        clip_id = row.pop("clip_id")
        bad = {name: value for name, value in row.items() if value is None or not value > 0}
        if bad:
            text = ", ".join(f"{name} {value}" for name, value in bad.items())
            findings.append(Finding("error", "clip_facts", "clips", clip_id, f"missing or not positive: {text}"))
    return findings
