"""Checks of tables alone: ids and references, boxes, people, texts, facts of clips, splits."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import pyarrow as pa

from microg.arrow import pc
from microg.data import schema
from microg.data.ids import check_id, split_clip_id
from microg.data.label_space import MICROG_50, LabelSpace
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
    "annotations": ("annotation_id",),
}


def check_ids(tables: dict[str, pa.Table]) -> list[Finding]:
    """Find ids that may not become paths, and clips whose `source_id` or `sequence` contradicts their id."""
    findings: list[Finding] = []
    columns = [(name, column) for name in tables for column in ("clip_id", "source_id")]
    for name, column in columns:
        table = tables[name]
        if column not in table.column_names:
            continue
        values = pc.unique(table[column]).to_pylist()
        bad = [
            value
            for value in values
            if not (_valid(value, column) or (value is None and column == "source_id" and name != "sources"))
        ]
        if not bad:
            continue
        rows = where(table, pc.is_in(table[column], value_set=pa.array(bad, pa.string())))
        message = f"{len(bad)} {column} values are not allowed as ids"
        findings.append(Finding("error", "invalid_id", name, None, message, rows.num_rows, first_texts(bad)))
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
    for row in clips.select(["clip_id", "source_id", "sequence"]).to_pylist():
        if not _valid(row["clip_id"], "clip_id"):
            continue
        source_id, sequence = split_clip_id(row["clip_id"])
        # A null is "not recorded", which is no contradiction.
        if row["source_id"] not in (None, source_id) or row["sequence"] not in (None, sequence):
            by_id, by_row = (f"source {s!r}, sequence {n}" for s, n in ((source_id, sequence), list(row.values())[1:]))
            message = f"the id says {by_id}; the row says {by_row}"
            findings.append(Finding("error", "clip_id_parts", "clips", row["clip_id"], message))
    return findings


def check_references(tables: dict[str, pa.Table], space: LabelSpace = MICROG_50) -> list[Finding]:
    """Find rows about clips that `clips` lacks, sources that `sources` lacks, and action ids not of `space`."""
    findings: list[Finding] = []
    known = tables["clips"]["clip_id"].combine_chunks()
    for name, table in tables.items():
        if name != "clips" and "clip_id" in table.column_names:
            findings += by_clip(
                where(table, pc.invert(pc.is_in(table["clip_id"], value_set=known))),
                "unknown_clip",
                name,
                "{count} rows are about a clip that the clips table lacks",
            )
        if "action_id" in table.column_names:
            known_actions = pc.is_in(table["action_id"], value_set=pa.array(space.ids, pa.int32()))
            # An unlabelled sample has a null action; an action row without an action says nothing.
            mask = pc.invert(known_actions)
            if name == "samples":
                mask = pc.and_(mask, pc.is_valid(table["action_id"]))
            findings += by_clip(
                where(table, mask),
                "unknown_action",
                name,
                f"{{count}} rows have an action id that is not one of the {len(space)}",
                ("person_id", "action_id"),
            )
    sources = tables["sources"]
    if sources.num_rows:
        clips = tables["clips"]
        findings += by_clip(
            where(clips, pc.invert(pc.is_in(clips["source_id"], value_set=sources["source_id"].combine_chunks()))),
            "unknown_source",
            "clips",
            "its source is not in the sources table",
            ("source_id",),
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
    repeats = by_clip(
        repeated, "repeated_rows", name, "rows repeat the same " + ", ".join(key), (*key[1:], "count_all")
    )
    summed = repeated.group_by("clip_id", use_threads=False).aggregate([("count_all", "sum"), ([], "count_all")])
    extras = {row["clip_id"]: row["count_all_sum"] - row["count_all"] for row in summed.to_pylist()}
    result = []
    for item in repeats:
        extra = extras[item.clip_id]
        examples = tuple(text.replace("count_all", "rows") for text in item.examples)
        result.append(replace(item, message=f"{extra} {item.message}", count=extra, examples=examples))
    return result


def check_values(name: str, table: pa.Table) -> list[Finding]:
    """Find values outside a closed vocabulary (origin, status, split); null is allowed for `origin` only."""
    findings: list[Finding] = []
    for column, allowed in schema.closed_sets(name).items():
        mask = pc.invert(pc.is_in(table[column], value_set=pa.array(allowed, pa.string())))
        if column == "origin":
            mask = pc.and_(mask, pc.is_valid(table[column]))
        rows = where(table, mask)
        message = f"{column} must be one of {', '.join(allowed)}"
        if "clip_id" in table.column_names:
            findings += by_clip(rows, "unknown_value", name, message, (column,))
        elif rows.num_rows:
            examples = first_texts(rows[column].to_pylist())
            findings.append(Finding("error", "unknown_value", name, None, message, rows.num_rows, examples))
    return findings


_COORDINATES = ("x1", "y1", "x2", "y2")
_ROW = ("frame", "person_id", *_COORDINATES)
# Rounding of a box that ends at the frame's edge is not an error.
_PIXEL_TOLERANCE = 0.01
_UNIT_TOLERANCE = 1e-6


def check_boxes(boxes: pa.Table, clips: pa.Table) -> list[Finding]:
    """Check the `boxes` table (pixels, origin top left, frames from 1) against width, height and length in `clips`.

    Finds: coordinates missing, NaN or infinite; x2 <= x1 or y2 <= y1; boxes beyond the frame; frame < 1 or beyond the
    clip's last; a missing or negative person id; a confidence outside 0..1. Boxes of clips that `clips` lacks are
    judged by the checks that need no frame size; `check_references` reports the unknown clip.
    """
    facts = _clip_facts(boxes, clips)
    findings = _check_rows(boxes, "boxes", facts["width"], facts["height"], facts["num_frames"], _PIXEL_TOLERANCE)
    confidence = boxes["confidence"]
    bad = pc.invert(pc.and_(pc.greater_equal(confidence, 0), pc.less_equal(confidence, 1)))
    findings += by_clip(
        where(boxes, bad),
        "confidence_range",
        "boxes",
        "{count} boxes have a confidence outside 0..1",
        ("frame", "person_id", "confidence"),
    )
    return findings


def check_samples(samples: pa.Table, clips: pa.Table) -> list[Finding]:
    """Check the `samples` table (boxes normalised to 0..1, frames from 1) the same way."""
    facts = _clip_facts(samples, clips)
    one = pa.scalar(1.0)
    return _check_rows(samples, "samples", one, one, facts["num_frames"], _UNIT_TOLERANCE)


def _clip_facts(rows: pa.Table, clips: pa.Table) -> dict[str, Any]:
    """Look up width, height and num_frames of each row's clip; null where the clip or the value is unknown."""
    ids = clips["clip_id"].combine_chunks()
    index = pc.index_in(rows["clip_id"].combine_chunks(), value_set=ids, skip_nulls=True)
    return {name: clips[name].combine_chunks().take(index) for name in ("width", "height", "num_frames")}


def _check_rows(
    rows: pa.Table, table: str, width: Any, height: Any, num_frames: Any, tolerance: float
) -> list[Finding]:
    x1, y1, x2, y2 = (rows[name] for name in _COORDINATES)
    finite = pc.invert(_any(*(pc.invert(pc.fill_null(pc.is_finite(column), False)) for column in (x1, y1, x2, y2))))
    empty = pc.or_(pc.less_equal(x2, x1), pc.less_equal(y2, y1))
    outside = _any(
        pc.less(x1, -tolerance),
        pc.less(y1, -tolerance),
        pc.greater(pc.subtract(x2, pc.cast(width, pa.float64())), tolerance),
        pc.greater(pc.subtract(y2, pc.cast(height, pa.float64())), tolerance),
    )
    frame = rows["frame"]
    no_frame = _any(pc.is_null(frame), pc.less(frame, 1), pc.greater(frame, num_frames))
    no_person = _any(pc.is_null(rows["person_id"]), pc.less(rows["person_id"], 0))
    checks = [
        ("box_not_finite", pc.invert(finite), "{count} boxes have a missing, NaN or infinite coordinate"),
        ("box_empty", pc.and_(finite, empty), "{count} boxes are empty: x2 <= x1 or y2 <= y1"),
        ("box_outside_frame", pc.and_(finite, outside), "{count} boxes reach beyond the frame"),
        ("frame_range", no_frame, "{count} boxes are on a frame before the clip's first (1) or after its last"),
        ("invalid_person_id", no_person, "{count} boxes have no person id, or a negative one"),
    ]
    findings: list[Finding] = []
    for check, mask, message in checks:
        findings += by_clip(where(rows, mask), check, table, message, _ROW)
    return findings


def _any(*masks: Any) -> Any:
    return functools.reduce(pc.or_, (pc.fill_null(mask, False) for mask in masks))


# The published annotation rules: at most five actions a person, six question-answer pairs a clip.
MAX_LABELS = 5
QUESTIONS_PER_CLIP = 6
_PERSON = ["clip_id", "person_id"]


def check_people(boxes: pa.Table, actions: pa.Table, samples: pa.Table) -> list[Finding]:
    """Find labelled people without boxes, tracked people without labels, and sample people that nobody tracked.

    Each comparison is made only when both tables have rows: a dataset that is not annotated yet is not wrong.
    """
    tracked, labelled, sampled = (_people(table) for table in (boxes, actions, samples))
    findings: list[Finding] = []
    if boxes.num_rows and actions.num_rows:
        findings += by_clip(
            _missing(labelled, tracked),
            "person_without_boxes",
            "actions",
            "{count} labelled people have no box",
            ("person_id",),
        )
        findings += by_clip(
            _missing(tracked, labelled),
            "person_without_labels",
            "boxes",
            "{count} people with boxes have no action label",
            ("person_id",),
            severity="warning",
        )
    if boxes.num_rows and samples.num_rows:
        findings += by_clip(
            _missing(sampled, tracked),
            "unknown_person",
            "samples",
            "{count} people of the samples are not in the boxes table",
            ("person_id",),
        )
    return findings


def check_label_counts(actions: pa.Table) -> list[Finding]:
    """Find people with more than five different actions, and labels without a valid person."""
    distinct = actions.group_by([*_PERSON, "action_id"], use_threads=False).aggregate([])
    counts = distinct.group_by(_PERSON, use_threads=False).aggregate([([], "count_all")])
    many = counts.filter(pc.greater(counts["count_all"], MAX_LABELS)).rename_columns([*_PERSON, "labels"])
    person = actions["person_id"]
    nobody = pc.or_(pc.is_null(person), pc.fill_null(pc.less(person, 0), False))
    return [
        *by_clip(
            many,
            "too_many_labels",
            "actions",
            f"{{count}} people have more than {MAX_LABELS} different actions",
            ("person_id", "labels"),
        ),
        *by_clip(
            where(actions, nobody),
            "invalid_person_id",
            "actions",
            "{count} labels have no person id, or a negative one",
            ("person_id", "action_id"),
        ),
    ]


def check_clips_without_boxes(boxes: pa.Table, clips: pa.Table) -> list[Finding]:
    """Find kept clips in which nobody has a box, when the dataset has boxes at all."""
    if boxes.num_rows == 0:
        return []
    kept = where(clips, pc.equal(clips["status"], "ok"))
    without = where(kept, pc.invert(pc.is_in(kept["clip_id"], value_set=pc.unique(boxes["clip_id"]))))
    return by_clip(without, "clip_without_boxes", "clips", "nobody in it has a box", severity="warning")


def check_text(captions: pa.Table, qa: pa.Table) -> list[Finding]:
    """Find empty captions, questions and answers, and described clips that do not have exactly six questions."""
    findings = by_clip(
        where(captions, _blank(captions["caption"])), "empty_caption", "captions", "the caption is empty"
    )
    for column in ("question", "answer"):
        findings += by_clip(
            where(qa, _blank(qa[column])), f"empty_{column}", "qa", f"{{count}} {column}s are empty", ("qa_index",)
        )
    if qa.num_rows == 0:
        return findings
    counts = qa.group_by("clip_id", use_threads=False).aggregate([([], "count_all")])
    wrong = counts.filter(pc.not_equal(counts["count_all"], QUESTIONS_PER_CLIP))
    for clip_id, count in zip(wrong["clip_id"].to_pylist(), wrong["count_all"].to_pylist(), strict=True):
        findings.append(_question_count(clip_id, count))
    unasked = where(captions, pc.invert(pc.is_in(captions["clip_id"], value_set=pc.unique(qa["clip_id"]))))
    findings += [_question_count(clip_id, 0) for clip_id in pc.unique(unasked["clip_id"]).to_pylist()]
    return findings


def _question_count(clip_id: str | None, count: int) -> Finding:
    return Finding("warning", "question_count", "qa", clip_id, f"it has {count} questions, not {QUESTIONS_PER_CLIP}", 1)


def _blank(column: pa.ChunkedArray) -> pa.ChunkedArray:
    trimmed = pc.utf8_trim_whitespace(column)
    return pc.or_(pc.is_null(column), pc.fill_null(pc.equal(pc.utf8_length(trimmed), 0), True))


def _people(table: pa.Table) -> pa.Table:
    return table.select(_PERSON).group_by(_PERSON, use_threads=False).aggregate([])


def _missing(these: pa.Table, those: pa.Table) -> pa.Table:
    """Return the (clip, person) pairs of `these` that `those` lacks."""
    return these.join(those, keys=_PERSON, join_type="left anti").sort_by(
        [("clip_id", "ascending"), ("person_id", "ascending")]
    )


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
        severity = "error" if scheme == GROUPED_SCHEME else "warning"
        message = f"scheme {scheme!r}: clips of one source are in {len(sides)} splits"
        example = f"{source_id}: " + ", ".join(f"{count} {split}" for split, count in sides.items())
        findings.append(Finding(severity, "source_leakage", "splits", None, message, sum(sides.values()), (example,)))
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
