"""Writing what a curation decided as a dataset: tables and `bounding_boxes.csv`; and tidying up after killed runs."""

from __future__ import annotations

import csv
import io
from typing import Any

import pyarrow as pa

from microg import storage
from microg.arrow import pc
from microg.data import schema
from microg.data.dataset import Dataset
from microg.data.splits import SCHEMES, make_samples, make_split
from microg.models.curation.box_rule import BoxRule
from microg.pipelines.curate import observations
from microg.pipelines.curate.decide import FilterSettings, decide
from microg.pipelines.curate.previews import drop_stale_previews

# What `microg.models.video.encode` and `microg.storage` call their unfinished files, by folder.
_TEMPORARY = dict.fromkeys(("videos", "previews"), ".tmp-*.mp4")
_TEMPORARY |= dict.fromkeys(("observations", "tables", "."), "*.tmp")
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

    Annotations that are there already (actions, captions, questions) are kept, and enter samples and splits. Previews
    of clips that look different now are removed.
    """
    tables = decide(current_observations(root), filters, rule, root)
    dataset = Dataset.create(root, name)
    drop_stale_previews(dataset, tables["clips"], tables["boxes"])
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
    # a person with several actions has a row for each, once the dataset is annotated
    people = samples.group_by(["clip_id", "frame", "person_id"], use_threads=False).aggregate([])
    return counts(tables) | {"key_boxes": people.num_rows}


def counts(tables: dict[str, pa.Table]) -> dict[str, int]:
    """Count what `decide` gave."""

    def by_status(name: str) -> dict[str, int]:
        counted = pc.value_counts(tables[name]["status"]).to_pylist()
        return {item["values"]: item["counts"] for item in counted}

    clips, sources = by_status("clips"), by_status("sources")
    return {
        "sources": tables["sources"].num_rows,
        "sources_failed": sources.get("error", 0),
        "sources_rejected": sources.get("rejected", 0),
        "clips": tables["clips"].num_rows,
        "clips_kept": clips.get("ok", 0),
        "clips_rejected": clips.get("rejected", 0),
        "clips_failed": clips.get("error", 0),
        "boxes": tables["boxes"].num_rows,
        "persons": tables["boxes"].group_by(["clip_id", "person_id"]).aggregate([]).num_rows,
    }


def _write_boxes_csv(dataset: Dataset, *, with_extension: bool) -> None:
    """Write the boxes as the published `bounding_boxes.csv`, integer pixels."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")  # noqa: TID251 (published bytes: checked ids and numbers only)
    writer.writerow(_CSV_HEADER)
    ending = ".mp4" if with_extension else ""
    for batch in dataset.table("boxes").to_batches(max_chunksize=65536):
        columns = [batch[name].to_pylist() for name in ("clip_id", "frame", "person_id", "x1", "y1", "x2", "y2")]
        writer.writerows(
            (f"{clip_id}{ending}", frame, person, *(int(value) for value in box))
            for clip_id, frame, person, *box in zip(*columns, strict=True)
        )
    storage.write_bytes(storage.join(dataset.root, "bounding_boxes.csv"), text.getvalue().encode())


def remove_leftovers(root: str) -> None:
    """Remove the temporary files that killed processes left in a local dataset that nobody else writes to."""
    if storage.is_local(root):
        for folder, pattern in _TEMPORARY.items():
            for path in (storage.local_path(root) / folder).glob(pattern):
                path.unlink(missing_ok=True)
