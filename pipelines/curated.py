"""Writing what a curation decided as a dataset: tables, `bounding_boxes.csv`, previews."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from microg import schema, storage
from microg.arrow import pc
from microg.dataset import Dataset
from microg.errors import describe
from microg.samples import make_samples
from microg.splits import SCHEMES, make_split
from models.box_rule import BoxRule
from pipelines import observations
from pipelines.decide import FilterSettings, decide

_CSV_HEADER = ("video_id", "frame_id", "person_id", "xmin", "ymin", "xmax", "ymax")


def current_observations(root: str) -> pa.Table:
    """Return the rows that count.

    Those are the rows made from the newest version of each source file, without the failures of a stretch of footage
    that later gave clips.
    """
    table = observations.read(root)
    light = table.select(["source_id", "source_fingerprint", "stretch", "clip_id", "written"]).to_pylist()
    newest: dict[str, str] = {}
    last_clip: dict[tuple[str, int], int] = {}
    for row in sorted(light, key=lambda row: row["written"]):
        newest[row["source_id"]] = row["source_fingerprint"]
        if row["clip_id"]:
            last_clip[row["source_id"], row["stretch"]] = row["written"]
    counts = [
        row["source_fingerprint"] == newest[row["source_id"]]
        and (row["clip_id"] is not None or row["written"] > last_clip.get((row["source_id"], row["stretch"]), 0))
        for row in light
    ]
    return table.filter(pa.array(counts, pa.bool_()))


def write_dataset(root: str, name: str, filters: FilterSettings, rule: BoxRule) -> dict[str, Any]:
    """Decide on all observations under `root`, write the dataset there, and return counts.

    Annotations that are there already (actions, captions, questions) are kept, and enter samples and splits.
    """
    tables = decide(current_observations(root), filters, rule, root)
    dataset = Dataset.create(root, name)
    for table_name, table in tables.items():
        dataset.write(table_name, table)
    _write_boxes_csv(dataset, with_extension=rule.video_extension)
    clips = dataset.kept_clips()
    samples = make_samples(tables["boxes"], clips, dataset.table("actions"), keep_unlabelled=True)
    dataset.write("samples", samples)
    if samples.num_rows:
        splits = pa.concat_tables([make_split(scheme, samples, clips) for scheme in SCHEMES])
    else:
        splits = schema.empty("splits")
    dataset.write("splits", splits)
    return _counts(tables, samples)


def _counts(tables: dict[str, pa.Table], samples: pa.Table) -> dict[str, Any]:
    def by_status(name: str) -> dict[str, int]:
        counted = pc.value_counts(tables[name]["status"]).to_pylist()
        return {item["values"]: item["counts"] for item in counted}

    clips, sources = by_status("clips"), by_status("sources")
    return {
        "sources": tables["sources"].num_rows,
        "sources_failed": sources.get("error", 0),
        "sources_too_short": sources.get("rejected", 0),
        "clips": tables["clips"].num_rows,
        "clips_kept": clips.get("ok", 0),
        "clips_rejected": clips.get("rejected", 0),
        "clips_failed": clips.get("error", 0),
        "boxes": tables["boxes"].num_rows,
        "persons": tables["boxes"].group_by(["clip_id", "person_id"]).aggregate([]).num_rows,
        "key_boxes": samples.num_rows,
    }


def _write_boxes_csv(dataset: Dataset, *, with_extension: bool) -> None:
    """Write the boxes as the published `bounding_boxes.csv`, integer pixels."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_HEADER)
    ending = ".mp4" if with_extension else ""
    for batch in dataset.table("boxes").to_batches(max_chunksize=65536):
        columns = [batch[name].to_pylist() for name in ("clip_id", "frame", "person_id", "x1", "y1", "x2", "y2")]
        writer.writerows(
            (f"{clip_id}{ending}", frame, person, *(int(value) for value in box))
            for clip_id, frame, person, *box in zip(*columns, strict=True)
        )
    storage.write_bytes(storage.join(dataset.root, "bounding_boxes.csv"), text.getvalue().encode())


def preview_rows(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """Yield the kept clips that have no preview yet, with their boxes."""
    boxes: dict[str, dict[int, list[tuple[int, float, float, float, float]]]] = {}
    for row in dataset.table("boxes").to_pylist():
        box = (row["person_id"], row["x1"], row["y1"], row["x2"], row["y2"])
        boxes.setdefault(row["clip_id"], {}).setdefault(row["frame"], []).append(box)
    for clip in dataset.kept_clips().to_pylist():
        yield {
            "clip_id": clip["clip_id"],
            "uri": dataset.resolve(clip["uri"]),
            "target": storage.join(dataset.root, "previews", f"{clip['clip_id']}.mp4"),
            "fps": clip["fps"],
            "boxes": boxes.get(clip["clip_id"], {}),
        }


def write_previews(dataset: Dataset) -> Iterator[str]:
    """Write annotated previews of all kept clips on the connected Ray; yields an error, or "", for each."""
    import ray

    from models.preview import write_preview

    @ray.remote(num_cpus=1)
    def work(row: dict[str, Any]) -> str:
        try:
            write_preview(row["uri"], row["boxes"], row["target"], row["fps"])
        except Exception as error:
            return f"{row['clip_id']}: {describe(error)}"
        return ""

    rows, pending = preview_rows(dataset), []
    for row in rows:
        pending.append(work.remote(row))
        if len(pending) >= 16:
            ready, pending = ray.wait(pending)
            yield from ray.get(ready)
    yield from ray.get(pending)
