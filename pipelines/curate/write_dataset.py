"""Writing what a curation decided as a dataset: tables and `bounding_boxes.csv`; and tidying up after killed runs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from microg import storage
from microg.annotations.accept import PEOPLE, with_people
from microg.annotations.apply import accept_anew
from microg.annotations.rows import Annotation
from microg.annotations.table import add_annotations
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

    Annotations that are there already (actions, captions, questions) are kept, and enter samples and splits; what
    people decided about clips, and their edits of boxes, are applied to the new tables. Previews of clips that look
    different now are removed.
    """
    decided = decide(current_observations(root), filters, rule, root)
    dataset = Dataset.create(root, name)
    judged = with_judgements(dataset, decided)
    tables = judged.tables
    drop_stale_previews(dataset, tables["clips"], tables["boxes"])
    if judged.acceptance is not None:
        add_annotations(dataset, judged.before)
        dataset = dataset.describe(acceptance=judged.acceptance)
    for table_name, table in tables.items():
        dataset.write(table_name, table)
    _write_boxes_csv(dataset, with_extension=rule.video_extension)
    clips = dataset.kept_clips()
    boxes = tables["boxes"].filter(pc.is_in(tables["boxes"]["clip_id"], clips["clip_id"]))
    samples = make_samples(boxes, clips, dataset.table("actions"), keep_unlabelled=True)
    dataset.write("samples", samples)
    if samples.num_rows:
        splits = pa.concat_tables([make_split(scheme, samples, clips) for scheme in SCHEMES])
    else:
        splits = schema.empty("splits")
    dataset.write("splits", splits)
    # a person with several actions has a row for each, once the dataset is annotated
    people = samples.group_by(["clip_id", "frame", "person_id"], use_threads=False).aggregate([])
    return counts(tables) | judged.counts | {"key_boxes": people.num_rows}


@dataclass(frozen=True)
class JudgedTables:
    """Tables of a curation with what people judged of them.

    Attributes:
        tables: The tables.
        counts: How many clips people dropped, and how many of those they kept the filter rejects all the same; nothing
            where nobody screened.
        before: What the curation says of judged items, as judgements of the dataset.
        acceptance: What `dataset.json` says of it; None where nobody judged anything.
    """

    tables: dict[str, pa.Table]
    counts: dict[str, int] = field(default_factory=dict)
    before: Sequence[Annotation] = ()
    acceptance: dict[str, Any] | None = None


def with_judgements(dataset: Dataset, decided: Mapping[str, pa.Table]) -> JudgedTables:
    """Return a curation's tables with what people judged: clips they dropped are rejected, boxes edited.

    A clip that people kept and the filter rejects stays rejected, and has no boxes.

    Args:
        dataset: The dataset, with the judgements, and the decisions of people without a judgement.
        decided: What `decide` gave.
    """
    tables = dict(decided)
    held = dataset.table("decisions")
    by_people = pc.and_(pc.equal(held["stage"], PEOPLE), pc.is_in(held["clip_id"], tables["clips"]["clip_id"]))
    tables["decisions"] = pa.concat_tables([tables["decisions"], held.filter(by_people)])
    tables["clips"] = with_people(tables["clips"], tables["decisions"])
    before: Sequence[Annotation] = ()
    acceptance = None
    if dataset.table("annotations").num_rows:
        accepted, acceptance = accept_anew(dataset, tables, ("screening", "box"))
        tables |= accepted.tables
        before = accepted.before
        filtered = decided["clips"].filter(pc.not_equal(decided["clips"]["status"], "ok"))["clip_id"]
        tables["boxes"] = tables["boxes"].filter(pc.invert(pc.is_in(tables["boxes"]["clip_id"], filtered)))
    verdicts = tables["decisions"].filter(pc.equal(tables["decisions"]["stage"], PEOPLE)).to_pylist()
    if not verdicts:
        return JudgedTables(tables, {}, before, acceptance)
    passed = set(decided["clips"].filter(pc.equal(decided["clips"]["status"], "ok"))["clip_id"].to_pylist())
    dropped = sum(not row["keep"] for row in verdicts)
    overruled = sum(row["keep"] and row["clip_id"] not in passed for row in verdicts)
    return JudgedTables(tables, {"people_dropped": dropped, "people_kept_filtered": overruled}, before, acceptance)


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
    """Write the boxes of kept clips as the published `bounding_boxes.csv`, integer pixels."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")  # noqa: TID251 (published bytes: checked ids and numbers only)
    writer.writerow(_CSV_HEADER)
    ending = ".mp4" if with_extension else ""
    boxes = dataset.table("boxes")
    boxes = boxes.filter(pc.is_in(boxes["clip_id"], dataset.kept_clips()["clip_id"]))
    for batch in boxes.to_batches(max_chunksize=65536):
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
