"""Checks of boxes: pixel boxes against the frame of their clip, normalised sample boxes against the unit square."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from microg.arrow import pc
from microg.validation.findings import Finding, by_clip, where

_COORDINATES = ("x1", "y1", "x2", "y2")
_ROW = ("frame", "person_id", *_COORDINATES)
# Rounding of a box that ends at the frame's edge is not an error.
_PIXEL_TOLERANCE = 0.01
_UNIT_TOLERANCE = 1e-6


def check_boxes(boxes: pa.Table, clips: pa.Table) -> list[Finding]:
    """Check the `boxes` table (pixels, origin top left, frames from 1) against width, height and length in `clips`.

    Finds: coordinates missing, NaN or infinite; x2 <= x1 or y2 <= y1; boxes beyond the frame; frame < 1 or beyond the
    clip's last; a missing or negative person id; a confidence outside 0..1. Boxes of clips that `clips` lacks are
    judged by the checks that need no frame size; `identity` reports the unknown clip.
    """
    facts = _clip_facts(boxes, clips)
    findings = _check_rows(boxes, "boxes", facts["width"], facts["height"], facts["num_frames"], _PIXEL_TOLERANCE)
    confidence = boxes["confidence"]
    bad = pc.invert(pc.and_(pc.greater_equal(confidence, 0), pc.less_equal(confidence, 1)))
    findings += by_clip(
        where(boxes, bad),
        severity="error",
        check="confidence_range",
        table="boxes",
        message="{count} boxes have a confidence outside 0..1",
        show=("frame", "person_id", "confidence"),
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
    finite = None
    for column in (x1, y1, x2, y2):
        good = pc.fill_null(pc.is_finite(column), False)
        finite = good if finite is None else pc.and_(finite, good)
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
        findings += by_clip(where(rows, mask), severity="error", check=check, table=table, message=message, show=_ROW)
    return findings


def _any(*masks: Any) -> Any:
    result = None
    for mask in masks:
        filled = pc.fill_null(mask, False)
        result = filled if result is None else pc.or_(result, filled)
    return result
