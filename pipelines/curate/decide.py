"""From observations to a dataset: which clips are kept and why, whose boxes are published, what each source gave.

Pure functions of tables: another threshold or rule gives another dataset without touching a video.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from microg.arrow import pc
from microg.config import Config
from microg.data import schema
from microg.data.ids import split_clip_id
from microg.models.curation.box_rule import BoxRule, PersonBoxes, person_boxes
from microg.models.curation.measure import Decision
from microg.models.curation.motion import motion_level
from microg.models.curation.registry import MEASURES
from microg.models.detection.base import PERSON
from microg.pipelines.curate.observations import WORK, tracks_of


class PersonThresholds(Config):
    """A clip is kept when enough of its frames hold a person."""

    person_confidence: float = Field(
        default=0.6, ge=0.1, lt=1, description="A detection counts as a person above this confidence."
    )
    min_person_percentage: float = Field(
        default=60.0, ge=0, le=100, description="Percentage of a clip's frames that must hold a person."
    )


class FilterSettings(PersonThresholds, *(measure.thresholds for measure in MEASURES if measure.thresholds)):
    """Thresholds of the filter: people, and whatever a measure of `microg.models.curation.registry` decides by.

    The defaults are the published ones (docs/protocols.md, "Curation").
    """


def person_percentage(row: Mapping[str, Any], confidence: float) -> float:
    """Return the share of a clip's frames, in percent, that hold a person above `confidence`."""
    person = np.asarray(row["detection_class"]) == PERSON
    strong = np.asarray(row["detection_confidence"], dtype=np.float32) > np.float32(confidence)
    frames = np.asarray(row["detection_frame"])[person & strong] if len(person) else []
    return 100.0 * len(np.unique(frames)) / row["num_frames"]


def decide_persons(row: Mapping[str, Any], thresholds: PersonThresholds) -> Decision:
    """Decide by the share of frames with a person."""
    percentage, least = person_percentage(row, thresholds.person_confidence), thresholds.min_person_percentage
    reason = f"a person above confidence {thresholds.person_confidence:g} in {percentage:.1f}% of frames"
    return Decision(percentage >= least, reason, percentage, least)


def _decide_decoding(row: Mapping[str, Any]) -> Decision:
    if row["status"] != "ok":
        return Decision(False, row["error"] or "not observed")
    if row["damaged"]:
        return Decision(False, f"the source is damaged here: {row['damaged']}")
    return Decision(True, f"{row['num_frames']} frames", row["num_frames"])


def decide_clip(row: Mapping[str, Any], filters: FilterSettings) -> list[dict[str, Any]]:
    """Return the rows of table `decisions` for one observed clip: decode, persons, then each measure that decides."""
    made = {"decode": _decide_decoding(row)}
    if row["status"] == "ok":
        made["persons"] = decide_persons(row, filters)
        made |= {measure.name: measure.decide(row, filters) for measure in MEASURES if measure.decide}
    return [{"clip_id": row["clip_id"], "stage": stage, **decision._asdict()} for stage, decision in made.items()]


def boxes_of(row: dict[str, Any], rule: BoxRule) -> PersonBoxes:
    """Return the person boxes that `rule` publishes for one observed clip."""
    value = row["motion_published"] if rule.manhattan_motion else row["motion_euclidean"]
    return person_boxes(
        tracks_of(row), width=row["width"], height=row["height"], fps=row["fps"], level=motion_level(value), rule=rule
    )


def decide(observations: pa.Table, filters: FilterSettings, rule: BoxRule, root: str) -> dict[str, pa.Table]:
    """Return the tables clips, decisions, boxes and sources of the dataset under `root`.

    Boxes are given for kept clips only, as published. Every clip that was cut or left out has a row in `clips` with
    status ok, rejected or error, and every source a row in `sources`.
    """
    clips: list[dict[str, Any]] = []
    decisions: list[dict[str, Any]] = []
    boxes: list[pa.Table] = []
    for row in _rows(observations):
        if not row["clip_id"]:
            continue
        made = decide_clip(row, filters)
        rejected = next((item for item in made if not item["keep"]), None)
        failed = row["status"] not in ("ok", "rejected") or bool(row["damaged"])
        status = "ok" if rejected is None else "error" if failed else "rejected"
        if rejected is None:
            published = boxes_of(row, rule)
            boxes.append(_boxes_table(row["clip_id"], published))
            made.append(_track_decision(row["clip_id"], published))
        decisions += made
        clips.append(_clip_row(row, root, status, rejected))
    return {
        "clips": schema.from_rows("clips", clips),
        "decisions": schema.from_rows("decisions", decisions),
        "boxes": pa.concat_tables([schema.empty("boxes"), *boxes]),
        "sources": sources(observations),
    }


def _rows(observations: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in observations.to_batches(max_chunksize=64):
        yield from batch.to_pylist()


def _source_of(row: dict[str, Any]) -> str:
    """Return the source a row belongs to; files that are clips already are several to one source."""
    return split_clip_id(row["clip_id"])[0] if row["clip_id"] else row["source_id"]


def _clip_row(row: dict[str, Any], root: str, status: str, rejected: dict[str, Any] | None) -> dict[str, Any]:
    same = ("clip_id", "sequence", "origin", "fps", "num_frames", "width", "height", "sha256")
    return {name: row[name] for name in same} | {
        "source_id": _source_of(row),
        "uri": (row["uri"] or "").removeprefix(f"{root.rstrip('/')}/"),
        "duration_s": row["num_frames"] / row["fps"] if row["num_frames"] and row["fps"] else None,
        "status": status,
        "error": "" if rejected is None else f"{rejected['stage']}: {rejected['reason']}",
    }


def _track_decision(clip_id: str, published: PersonBoxes) -> dict[str, Any]:
    persons = len(np.unique(published.person_id))
    decision = Decision(True, f"{persons} persons in {len(published)} boxes", float(persons))
    return {"clip_id": clip_id, "stage": "track", **decision._asdict()}


def _boxes_table(clip_id: str, published: PersonBoxes) -> pa.Table:
    columns: dict[str, Any] = {"clip_id": pa.array([clip_id] * len(published), pa.string())}
    columns |= {"frame": published.frame, "person_id": published.person_id}
    columns |= dict(zip(("x1", "y1", "x2", "y2"), published.boxes.T.astype(np.float64), strict=True))
    columns["confidence"] = published.confidence
    return pa.table(columns, schema=schema.TABLES["boxes"])


def sources(observations: pa.Table) -> pa.Table:
    """Return table `sources`: what became of each raw file, with a reason for whatever is missing.

    Files that are clips already give one row for each source they were cut from, with the first one's uri.
    """
    by_source: dict[str, list[dict[str, Any]]] = {}
    for row in observations.select(WORK.names).to_pylist():
        by_source.setdefault(_source_of(row), []).append(row)
    return schema.from_rows("sources", [_source_row(rows) for _, rows in sorted(by_source.items())])


def _source_row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    first = rows[0]
    by_stretch = {(row["source_uri"], row["stretch"]): row for row in rows}
    by_file = {row["source_uri"]: row for row in rows}
    durations = [row["source_duration_s"] for row in by_file.values() if row["source_duration_s"] is not None]
    decode_errors = [error for row in by_stretch.values() for error in row["decode_errors"] or []]
    failures = [row["error"] for row in rows if row["status"] == "error"]
    left_out = [row["error"] for row in rows if row["status"] == "rejected"]
    cut = sum(1 for row in rows if row["clip_id"]) - len(left_out)
    notes = [f"{len(left_out)} clips left out: {left_out[0]}"] if left_out else []
    if (streams := first["source_streams"] or 1) > 1:
        size = f"{first['source_width']} x {first['source_height']}"
        notes.append(f"{streams} video streams: the largest, of {size} pixels, is read")
    tail = by_stretch[max(by_stretch)]["tail_s"] or 0.0
    if failures:
        status, error = "error", failures[0]
    elif decode_errors:
        status, error = "error", f"VideoError: {len(decode_errors)} parts cannot be decoded: {decode_errors[0]}"
    elif not cut:
        empty = next((row["error"] for row in rows if row["status"] == "empty" and row["error"]), None)
        status, error = "rejected", notes[0] if left_out else empty or f"shorter than one clip: {tail:.2f} s"
    else:
        status, error = "ok", ""
    return {
        "source_id": _source_of(first),
        "uri": first["source_uri"],
        "origin": first["origin"],
        "size_bytes": sum(row["source_size"] for row in by_file.values()),
        **{name: first[f"source_{name}"] for name in ("fps", "width", "height")},
        "duration_s": sum(durations) if durations else None,
        "clips": cut,
        "tail_s": tail,
        "decode_errors": len(decode_errors),
        "status": status,
        "error": error,
        "notes": "; ".join(notes),
    }


def compare_rules(observations: pa.Table, filters: FilterSettings, rules: dict[str, BoxRule]) -> list[dict[str, Any]]:
    """Return, for each rule, what it publishes for the kept clips: boxes, persons, and clips left without a box."""
    counts = ("kept_clips", "high_motion_clips", "boxes", "persons", "clips_without_boxes")
    totals: dict[str, dict[str, Any]] = {name: {"rule": name, **dict.fromkeys(counts, 0)} for name in rules}
    for row in _rows(observations.filter(pc.equal(observations["status"], "ok"))):
        if not all(item["keep"] for item in decide_clip(row, filters)):
            continue
        for name, rule in rules.items():
            published = boxes_of(row, rule)
            motion = row["motion_published"] if rule.manhattan_motion else row["motion_euclidean"]
            total = totals[name]
            total["kept_clips"] += 1
            total["high_motion_clips"] += motion_level(motion) == "high"
            total["boxes"] += len(published)
            total["persons"] += len(np.unique(published.person_id))
            total["clips_without_boxes"] += len(published) == 0
    return list(totals.values())
