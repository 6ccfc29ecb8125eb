"""What a page shows of each clip: a picture, its caption, people with their actions, questions and answers."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from microg.arrow import pc
from microg.data.dataset import Dataset
from microg.data.label_space import LabelSpace
from microg.errors import DatasetError, VideoError
from microg.reports.clips.pictures import Box, PictureStyle, clip_picture, colour_number, key_frame


@dataclass(frozen=True)
class PersonLine:
    """A person of a clip, the number of its box's colour, and its actions by name."""

    person_id: int
    colour: int
    actions: tuple[str, ...]


@dataclass(frozen=True)
class ClipCard:
    """One clip on the page. `picture` is a data URI, or None and `problem` says why."""

    clip_id: str
    details: str
    picture: str | None
    problem: str | None
    people: tuple[PersonLine, ...] = ()
    captions: tuple[str, ...] = ()
    questions: tuple[tuple[str, str], ...] = field(default_factory=tuple)


def gallery_cards(dataset: Dataset, limit: int) -> list[ClipCard]:
    """Return cards of at most `limit` kept clips, spread evenly over the dataset; clips with boxes come first."""
    kept = dataset.kept_clips()
    boxed = set(pc.unique(dataset.table("boxes")["clip_id"]).to_pylist())
    rows = sorted(kept.to_pylist(), key=lambda row: row["clip_id"])
    with_boxes = spread([row for row in rows if row["clip_id"] in boxed], limit)
    others = spread([row for row in rows if row["clip_id"] not in boxed], limit - len(with_boxes))
    return clip_cards(dataset, with_boxes + others)


def clip_cards(dataset: Dataset, rows: list[dict[str, Any]], style: PictureStyle | None = None) -> list[ClipCard]:
    """Return a card for each of these rows of the `clips` table."""
    ids = pa.array([row["clip_id"] for row in rows], pa.string())
    found = {name: _by_clip(dataset.table(name), ids) for name in ("boxes", "samples", "actions", "captions", "qa")}
    return [
        _card(dataset, row, {name: part.get(row["clip_id"], []) for name, part in found.items()}, style) for row in rows
    ]


def spread(rows: list[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """Return at most `limit` of the rows at even distances, first and last among them."""
    if limit <= 0 or not rows:
        return []
    if len(rows) <= limit:
        return rows
    return [rows[int(index)] for index in np.linspace(0, len(rows) - 1, limit).round()]


def _by_clip(table: pa.Table, ids: pa.Array) -> dict[str, list[dict[str, Any]]]:
    result: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in table.filter(pc.is_in(table["clip_id"], value_set=ids)).to_pylist():
        result[row["clip_id"]].append(row)
    return result


def _card(
    dataset: Dataset, row: dict[str, Any], found: dict[str, list[dict[str, Any]]], style: PictureStyle | None
) -> ClipCard:
    size = f"{row['width']}x{row['height']}" if row["width"] and row["height"] else None
    length = f"{row['num_frames']} frames" if row["num_frames"] else None
    rate = f"{row['fps']:g} fps" if row["fps"] else None
    picture, problem = _picture(dataset, row, found, style)
    numbers = sorted({item["person_id"] for name in ("boxes", "actions") for item in found[name]} - {None})
    people = [
        PersonLine(number, colour_number(number), _actions(number, found["actions"], dataset.label_space))
        for number in numbers
    ]
    return ClipCard(
        clip_id=row["clip_id"],
        details=", ".join(part for part in (row["origin"], size, length, rate) if part),
        picture=picture,
        problem=problem,
        people=tuple(people),
        captions=tuple(item["caption"] or "" for item in found["captions"]),
        questions=tuple(
            (item["question"] or "", item["answer"] or "")
            for item in sorted(found["qa"], key=lambda item: item["qa_index"] or 0)
        ),
    )


def _actions(person: int, actions: list[dict[str, Any]], space: LabelSpace) -> tuple[str, ...]:
    ids = sorted({item["action_id"] for item in actions if item["person_id"] == person} - {None})
    return tuple(space.names.get(action_id, f"unknown action {action_id}") for action_id in ids)


def _picture(
    dataset: Dataset, row: dict[str, Any], found: dict[str, list[dict[str, Any]]], style: PictureStyle | None
) -> tuple[str | None, str | None]:
    drawable = [item for item in found["boxes"] if _is_drawable(item)]
    frames = np.array([item["frame"] for item in drawable], dtype=int)
    sampled = np.array([item["frame"] for item in found["samples"] if item["frame"]], dtype=int)
    frame = key_frame(frames, sampled) or max((row["num_frames"] or 1) // 2, 1)
    boxes = [
        Box(*(item[key] for key in ("person_id", "x1", "y1", "x2", "y2")))
        for item in drawable
        if item["frame"] == frame
    ]
    if not row["uri"]:
        return None, "it has no video"
    try:
        return clip_picture(dataset.resolve(row["uri"], row["clip_id"]), frame, boxes, style), None
    except (DatasetError, VideoError) as error:
        return None, error.what


def _is_drawable(box: dict[str, Any]) -> bool:
    values = [box[name] for name in ("frame", "person_id", "x1", "y1", "x2", "y2")]
    return all(value is not None and np.isfinite(value) for value in values)
