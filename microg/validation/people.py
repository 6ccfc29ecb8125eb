"""Checks of annotations: people with boxes and labels, captions, questions."""

from __future__ import annotations

import pyarrow as pa

from microg.arrow import pc
from microg.validation.findings import Finding, by_clip, where

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
            severity="error",
            check="person_without_boxes",
            table="actions",
            message="{count} labelled people have no box",
            show=("person_id",),
        )
        findings += by_clip(
            _missing(tracked, labelled),
            severity="warning",
            check="person_without_labels",
            table="boxes",
            message="{count} people with boxes have no action label",
            show=("person_id",),
        )
    if boxes.num_rows and samples.num_rows:
        findings += by_clip(
            _missing(sampled, tracked),
            severity="error",
            check="unknown_person",
            table="samples",
            message="{count} people of the samples are not in the boxes table",
            show=("person_id",),
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
            severity="error",
            check="too_many_labels",
            table="actions",
            message=f"{{count}} people have more than {MAX_LABELS} different actions",
            show=("person_id", "labels"),
        ),
        *by_clip(
            where(actions, nobody),
            severity="error",
            check="invalid_person_id",
            table="actions",
            message="{count} labels have no person id, or a negative one",
            show=("person_id", "action_id"),
        ),
    ]


def check_clips_without_boxes(boxes: pa.Table, clips: pa.Table) -> list[Finding]:
    """Find kept clips in which nobody has a box, when the dataset has boxes at all."""
    if boxes.num_rows == 0:
        return []
    kept = where(clips, pc.equal(clips["status"], "ok"))
    without = where(kept, pc.invert(pc.is_in(kept["clip_id"], value_set=pc.unique(boxes["clip_id"]))))
    return by_clip(
        without, severity="warning", check="clip_without_boxes", table="clips", message="nobody in it has a box"
    )


def check_text(captions: pa.Table, qa: pa.Table) -> list[Finding]:
    """Find empty captions, questions and answers, and described clips that do not have exactly six questions."""
    findings = by_clip(
        where(captions, _blank(captions["caption"])),
        severity="error",
        check="empty_caption",
        table="captions",
        message="the caption is empty",
    )
    for column in ("question", "answer"):
        findings += by_clip(
            where(qa, _blank(qa[column])),
            severity="error",
            check=f"empty_{column}",
            table="qa",
            message=f"{{count}} {column}s are empty",
            show=("qa_index",),
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
