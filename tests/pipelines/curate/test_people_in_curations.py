"""A curation that is filtered again after people judged it: what they decided stays."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from microg.annotations.apply import accept_into
from microg.annotations.table import read_annotations
from microg.data import schema
from microg.data.dataset import Dataset
from microg.models.curation.box_rule import CORRECTED, PUBLISHED
from microg.pipelines.curate import observations
from microg.pipelines.curate.decide import FilterSettings
from microg.pipelines.curate.previews import preview_uri
from microg.pipelines.curate.write_dataset import write_dataset
from tests.support.annotations import rows
from tests.support.curation import observed_row
from tests.support.judged import judgement

DEFAULT, LOOSER = FilterSettings(), FilterSettings(min_person_percentage=1)


@pytest.fixture
def judged(tmp_path: Path) -> Dataset:
    """A curation of four clips, one of which the filter rejects (a_001); people dropped a_000, kept a_001 and b_000,
    and drew a second person into a_001, whose boxes nobody publishes, and b_000."""
    root = str(tmp_path / "set")
    clips = [observed_row("a_000"), observed_row("a_001", person_frames=30), observed_row("b_000")]
    clips.append(observed_row("b_001"))
    clips = [row | {"uri": f"{root}/videos/{row['clip_id']}.mp4", "sha256": row["clip_id"]} for row in clips]
    observations.commit(root, clips)
    write_dataset(root, "set", DEFAULT, PUBLISHED)
    draw = {"op": "draw", "stretches": [[[20, 0, 0, 10, 10], [40, 20, 0, 30, 10]]]}
    said = [
        judgement("screening", {"keep": False, "reason": "a title"}, "ann", "a_000"),
        judgement("screening", {"keep": True}, "ann", "a_001"),
        judgement("screening", {"keep": True}, "ann", "b_000"),
        judgement("box", draw, "ann", "a_001", person_id=7),
        judgement("box", draw, "ann", "b_000", person_id=7),
        judgement("box", {"op": "delete"}, "ann", "b_000", person_id=1),
    ]
    accept_into(Dataset.open(root), added=said)
    return Dataset.open(root)


def people_of(dataset: Dataset) -> set[tuple[str, int]]:
    return {(row["clip_id"], row["person_id"]) for row in dataset.table("boxes").to_pylist()}


def statuses(dataset: Dataset) -> dict[str, str]:
    return {row["clip_id"]: row["status"] for row in dataset.table("clips").to_pylist()}


def test_dropped_clips_stay_rejected_and_edited_boxes_edited_under_another_filter(judged: Dataset):
    counted = write_dataset(judged.root, "set", LOOSER, CORRECTED)
    dataset = Dataset.open(judged.root)
    assert statuses(dataset) == {"a_000": "rejected", "a_001": "ok", "b_000": "ok", "b_001": "ok"}
    assert (counted["clips_kept"], counted["clips_rejected"]) == (3, 1)
    assert (counted["people_dropped"], counted["people_kept_filtered"]) == (1, 0)
    # a_000 keeps its boxes, for the day on which people keep it
    assert people_of(dataset) == {("a_000", 1), ("a_001", 1), ("a_001", 7), ("b_000", 7), ("b_001", 1)}
    assert {row["clip_id"] for row in dataset.table("samples").to_pylist()} == {"a_001", "b_000", "b_001"}
    with (Path(dataset.root) / "bounding_boxes.csv").open() as file:
        ending = "" if not CORRECTED.video_extension else ".mp4"
        named = {row[0] for row in csv.reader(file)} - {"video_id"}
    assert named == {f"{clip_id}{ending}" for clip_id in ("a_001", "b_000", "b_001")}
    verdicts = {row["clip_id"]: row for row in dataset.table("decisions").to_pylist() if row["stage"] == "people"}
    assert {clip_id: row["keep"] for clip_id, row in verdicts.items()} == {"a_000": False, "a_001": True, "b_000": True}
    assert verdicts["a_000"]["reason"] == "a title"


def test_the_filter_rejects_what_people_kept_and_counts_it(judged: Dataset):
    counted = write_dataset(judged.root, "set", DEFAULT, PUBLISHED)
    assert (counted["people_dropped"], counted["people_kept_filtered"]) == (1, 1)
    dataset = Dataset.open(judged.root)
    assert statuses(dataset)["a_001"] == "rejected"
    assert not {clip_id for clip_id, _ in people_of(dataset)} & {"a_001"}
    error = next(row["error"] for row in dataset.table("clips").to_pylist() if row["clip_id"] == "a_001")
    assert error.startswith("persons: ")


def test_there_and_back_gives_the_same_dataset_and_loses_no_judgement(judged: Dataset):
    write_dataset(judged.root, "set", DEFAULT, PUBLISHED)
    before = {name: rows(judged.table(name)) for name in ("clips", "decisions", "boxes", "samples", "splits")}
    said = {each.annotation_id for each in read_annotations(judged) if each.source == "app"}
    write_dataset(judged.root, "set", LOOSER, CORRECTED)
    assert rows(judged.table("boxes")) != before["boxes"]
    write_dataset(judged.root, "set", DEFAULT, PUBLISHED)
    assert {name: rows(judged.table(name)) for name in before} == before
    assert {each.annotation_id for each in read_annotations(judged) if each.source == "app"} == said


def test_boxes_return_to_the_new_filters_once_people_take_their_edits_back(judged: Dataset):
    write_dataset(judged.root, "set", LOOSER, CORRECTED)
    edits = [each for each in read_annotations(judged) if each.kind == "box" and each.annotator == "ann"]
    undone = [
        judgement("box", {"withdrawn": True}, "ann", e.clip_id, person_id=e.person_id, supersedes=e.annotation_id)
        for e in edits
    ]
    accept_into(Dataset.open(judged.root), added=undone)
    back = rows(judged.table("boxes"))
    plain = Dataset.open(judged.root)
    plain.write("annotations", schema.empty("annotations"))
    write_dataset(judged.root, "set", LOOSER, CORRECTED)
    assert rows(plain.table("boxes")) == back


def test_decisions_of_people_that_came_without_judgements_stay(judged: Dataset):
    judged.write("annotations", schema.empty("annotations"))
    write_dataset(judged.root, "set", DEFAULT, PUBLISHED)
    assert statuses(judged)["a_000"] == "rejected"
    assert [row["clip_id"] for row in judged.table("decisions").to_pylist() if row["stage"] == "people"] == [
        "a_000",
        "a_001",
        "b_000",
    ]


def test_previews_of_clips_that_look_as_before_stay(judged: Dataset):
    write_dataset(judged.root, "set", DEFAULT, PUBLISHED)
    for clip_id in ("b_000", "b_001"):
        path = Path(preview_uri(judged, clip_id))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"preview")
    write_dataset(judged.root, "set", DEFAULT, PUBLISHED)
    assert all(Path(preview_uri(judged, clip_id)).exists() for clip_id in ("b_000", "b_001"))
