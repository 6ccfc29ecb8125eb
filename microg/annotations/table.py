"""The table `annotations` of a dataset: rows are added, never changed; the current ones are those nobody superseded."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from microg.annotations.rows import Annotation, checked, from_row
from microg.arrow import pc
from microg.data import schema
from microg.data.dataset import Dataset
from microg.errors import AnnotationError


def read_annotations(dataset: Dataset) -> list[Annotation]:
    """Return all judgements of a dataset, oldest first.

    Raises:
        AnnotationError: A row cannot be read.
    """
    rows = dataset.table("annotations").sort_by([("time", "ascending"), ("annotation_id", "ascending")])
    return [from_row(row) for row in rows.to_pylist()]


def add_annotations(dataset: Dataset, annotations: Iterable[Annotation]) -> int:
    """Add judgements to a dataset whose folder the caller holds, and return how many were new.

    One that is there already, by its id, is left as it is, so that adding twice is adding once.

    Raises:
        AnnotationError: A judgement is not fit to be saved, or another one has its id; nothing is added then.
    """
    vocabulary = dataset.vocabulary
    rows = [checked(annotation, vocabulary).to_row() for annotation in annotations]
    if not rows:
        return 0
    stored = dataset.table("annotations")
    mine = pc.is_in(stored["annotation_id"], pa.array([row["annotation_id"] for row in rows], pa.string()))
    known = {row["annotation_id"]: row for row in stored.filter(mine).to_pylist()}
    new: dict[str, dict] = {}
    for row in rows:
        same = known.get(row["annotation_id"]) or new.get(row["annotation_id"])
        if same is None:
            new[row["annotation_id"]] = row
        elif any(same[name] != row[name] for name in ("clip_id", "person_id", "kind", "item", "value", "annotator")):
            raise AnnotationError(f"annotation {row['annotation_id']!r} is there already, and says something else")
    if new:
        dataset.write("annotations", pa.concat_tables([stored, schema.from_rows("annotations", list(new.values()))]))
    return len(new)


def current(annotations: Iterable[Annotation]) -> list[Annotation]:
    """Return the judgements that stand, oldest first: neither superseded nor withdrawn.

    Of an annotator's judgements of one item in one round the newest stands, whether or not it names the one before;
    edits of boxes stand side by side.
    """
    everything = sorted(annotations, key=lambda each: (each.time, each.annotation_id))
    gone = {each.supersedes for each in everything if each.supersedes}
    newest = {
        (each.about, each.annotator, each.adjudicated): each.annotation_id for each in everything if each.kind != "box"
    }
    standing = set(newest.values())
    return [
        each
        for each in everything
        if each.annotation_id not in gone
        and not each.withdrawn
        and (each.kind == "box" or each.annotation_id in standing)
    ]
