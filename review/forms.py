"""What the page is told: tasks, clips and people as plain values."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from microg.annotations.boxes import Tracks
from microg.annotations.rows import Annotation
from microg.review.desk import Desk, Task
from microg.review.material import Clip
from microg.review.media import frames_to_show
from microg.review.previous import previous_value
from microg.review.rules import Annotator


def find(desk: Desk, clip_id: str) -> Clip:
    """Return a clip by its id. Raises `RefusedError` for one that is not here."""
    return desk.material.clips.clip(desk.clip_number(clip_id))


def time_form(time: datetime) -> str:
    """Return a time as the page reads it."""
    return time.isoformat(timespec="milliseconds")


def clip_form(clip: Clip) -> dict[str, Any]:
    """Return a clip."""
    shown = ("clip_id", "source_id", "fps", "num_frames", "width", "height", "duration_s", "origin")
    places = {"video": f"/video/{clip.clip_id}", "thumb": f"/thumb/{clip.clip_id}.jpg"}
    return {**{name: getattr(clip, name) for name in shown}, **places}


def people_form(tracks: Tracks) -> list[dict[str, Any]]:
    """Return people with their boxes: [frame, x1, y1, x2, y2] in pixels, frames from 1."""
    result = []
    for person_id, track in sorted(tracks.items()):
        frames = sorted(track)
        boxes = [[frame, *(round(each, 2) for each in track[frame][:4])] for frame in frames]  # pyright: ignore
        result.append({"person_id": person_id, "key_frame": frames[len(frames) // 2], "boxes": boxes})
    return result


def said_form(annotation: Annotation) -> dict[str, Any]:
    """Return what somebody said."""
    return {
        "annotator": annotation.annotator,
        "value": dict(annotation.value),
        "round": annotation.round,
        "time": time_form(annotation.time),
    }


def task_form(task: Task, desk: Desk, who: Annotator) -> dict[str, Any]:
    """Return a task, as an annotator may see it."""
    item = task.name.item
    clip = find(desk, item.clip_id)
    texts = item.kind in ("caption", "qa")
    return {
        "task_id": str(task.name),
        "mode": task.name.mode,
        "kind": item.kind,
        "until": time_form(task.until),
        "clip": clip_form(clip),
        "people": people_form(desk.tracks(who, item.clip_id)),
        "person_id": item.person_id,
        "item": item.index,
        "proposal": None if task.proposal is None else {"value": dict(task.proposal.value), "by": task.proposal.by},
        "held": None if task.held is None else dict(task.held),
        "mine": None
        if task.mine is None
        else {"annotation_id": task.mine.annotation_id, "value": dict(task.mine.value)},
        "edits": [
            {"annotation_id": each.annotation_id, "person_id": each.person_id, "value": dict(each.value)}
            for each in task.edits
        ],
        "previous": previous_value(desk, who, item) if item.kind == "action" else None,
        "why": task.why,
        "frames": frames_to_show(clip) if texts else [],
        "said": [said_form(each) for each in task.said],
        "notes": [
            {"annotator": each.annotator, "text": each.text, "time": time_form(each.time)} for each in task.notes
        ],
    }
