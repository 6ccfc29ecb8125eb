"""Annotated preview videos of the kept clips: which are missing or out of date, and writing them on Ray."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from microg import storage
from microg.arrow import pc
from microg.data.dataset import Dataset
from microg.errors import describe
from microg.pipelines.core.attempts import raise_what_ends_run

# How many are under way at once on top of what runs: boxes travel with the task.
_QUEUED = 16


def preview_uri(dataset: Dataset, clip_id: str) -> str:
    """Return where the preview of a clip is kept."""
    return storage.join(dataset.root, "previews", f"{clip_id}.mp4")


def drop_stale_previews(dataset: Dataset, clips: pa.Table, boxes: pa.Table) -> None:
    """Remove the previews of clips that the tables `clips` and `boxes`, about to be written, show differently."""
    fs, folder = storage.filesystem(storage.join(dataset.root, "previews"))
    if not fs.exists(folder):
        return
    before, after = _looks(dataset.table("clips"), dataset.table("boxes")), _looks(clips, boxes)
    for clip_id, look in before.items():
        path = storage.filesystem(preview_uri(dataset, clip_id))[1]
        if after.get(clip_id) != look and fs.exists(path):
            fs.rm_file(path)


def _looks(clips: pa.Table, boxes: pa.Table) -> dict[str, list[Any]]:
    """Return what is to be seen of each kept clip: its video's hash, and its boxes."""
    kept = clips.filter(pc.equal(clips["status"], "ok"))
    digests = zip(kept["clip_id"].to_pylist(), kept["sha256"].to_pylist(), strict=True)
    looks: dict[str, list[Any]] = {clip_id: [digest] for clip_id, digest in digests}
    columns = [boxes[name].to_pylist() for name in ("clip_id", "frame", "person_id", "x1", "y1", "x2", "y2")]
    for clip_id, *box in zip(*columns, strict=True):
        if clip_id in looks:  # a clip that people dropped keeps its boxes
            looks[clip_id].append(box)
    return looks


def missing_previews(dataset: Dataset) -> list[dict[str, Any]]:
    """Return the work rows of the kept clips that have no preview, with their boxes by frame."""
    rows: dict[str, dict[str, Any]] = {}
    for clip in dataset.kept_clips().to_pylist():
        target = preview_uri(dataset, clip["clip_id"])
        if not storage.exists(target):
            work = {"uri": dataset.resolve(clip["uri"], clip["clip_id"]), "target": target, "boxes": {}}
            rows[clip["clip_id"]] = {"clip_id": clip["clip_id"], "fps": clip["fps"], **work}
    for box in dataset.table("boxes").to_pylist():
        if box["clip_id"] in rows:
            corners = (box["person_id"], box["x1"], box["y1"], box["x2"], box["y2"])
            rows[box["clip_id"]]["boxes"].setdefault(box["frame"], []).append(corners)
    return list(rows.values())


def write_previews(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Write the previews of `missing_previews` on the connected Ray; yields an error, or "", for each."""
    import ray

    @ray.remote(num_cpus=1)
    def work(row: dict[str, Any]) -> str:
        from microg.models.video.encode import write_preview

        try:
            write_preview(row["uri"], row["boxes"], row["target"], row["fps"])
        except Exception as error:
            raise_what_ends_run(error)
            return f"{row['clip_id']}: {describe(error)}"
        return ""

    pending: list[Any] = []
    for row in rows:
        pending.append(work.remote(row))
        if len(pending) >= _QUEUED:
            ready, pending = ray.wait(pending)
            yield from ray.get(ready)
    for reference in pending:
        yield ray.get(reference)
