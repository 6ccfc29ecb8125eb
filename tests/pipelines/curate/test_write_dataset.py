"""A curation written as a dataset."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from microg.data import schema
from microg.data.dataset import Dataset
from microg.models.curation.box_rule import CORRECTED, PUBLISHED
from microg.pipelines.curate import observations
from microg.pipelines.curate.decide import FilterSettings
from microg.pipelines.curate.previews import missing_previews, preview_uri
from microg.pipelines.curate.write_dataset import remove_leftovers, write_dataset
from tests.support.curation import observed_row, source_row

DEFAULT = FilterSettings()


@pytest.fixture
def root(tmp_path: Path) -> str:
    """Three clips of two sources (one clip rejected), and a source that cannot be read."""
    root = str(tmp_path / "set")
    rows = [observed_row("a_000"), observed_row("a_001", person_frames=5), observed_row("b_000")]
    rows = [row | {"uri": f"{root}/videos/{row['clip_id']}.mp4", "sha256": row["clip_id"]} for row in rows]
    observations.commit(root, [*rows, source_row("c", status="error", error="VideoError: no")])
    return root


def test_counts_tell_kept_rejected_and_failed(root: str):
    assert write_dataset(root, "set", DEFAULT, PUBLISHED) == {
        "sources": 3,
        "sources_failed": 1,
        "sources_rejected": 0,
        "clips": 3,
        "clips_kept": 2,
        "clips_rejected": 1,
        "clips_failed": 0,
        "boxes": 2 * 76,
        "persons": 2,
        "key_boxes": 2,
    }


def test_the_published_csv_holds_the_boxes_in_whole_pixels(root: str):
    write_dataset(root, "set", DEFAULT, PUBLISHED)
    with (Path(root) / "bounding_boxes.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["video_id", "frame_id", "person_id", "xmin", "ymin", "xmax", "ymax"]
    assert rows[1] == ["a_000.mp4", "15", "1", "16", "4", "40", "44"]
    assert len(rows) == 1 + Dataset.open(root).table("boxes").num_rows


def test_the_csv_names_clips_without_extension_where_the_rule_says_so(root: str):
    write_dataset(root, "set", DEFAULT, PUBLISHED.replaced(video_extension=False))
    assert "\na_000,15,1," in (Path(root) / "bounding_boxes.csv").read_text()


def test_each_person_has_one_key_frame_and_each_kept_clip_a_split_of_each_scheme(root: str):
    write_dataset(root, "set", DEFAULT, PUBLISHED)
    dataset = Dataset.open(root)
    samples = dataset.table("samples").to_pylist()
    # The frame nearest the median of frames 15..90, the first of two as near.
    assert [(row["clip_id"], row["frame"], row["person_id"]) for row in samples] == [("a_000", 52, 1), ("b_000", 52, 1)]
    splits = {(row["clip_id"], row["scheme"]) for row in dataset.table("splits").to_pylist()}
    assert splits == {(clip, scheme) for clip in ("a_000", "b_000") for scheme in ("published", "source")}


def test_annotations_that_are_there_survive_and_label_the_samples(root: str):
    write_dataset(root, "set", DEFAULT, PUBLISHED)
    actions = [{"clip_id": "a_000", "person_id": 1, "action_id": action} for action in (12, 17)]
    Dataset.open(root).write("actions", schema.from_rows("actions", actions))
    write_dataset(root, "set", DEFAULT, PUBLISHED)
    dataset = Dataset.open(root)
    assert dataset.table("actions").to_pylist() == actions
    labelled = [(row["clip_id"], row["action_id"]) for row in dataset.table("samples").to_pylist()]
    assert sorted(labelled, key=str) == [("a_000", 12), ("a_000", 17), ("b_000", None)]


def test_other_thresholds_and_rules_give_another_dataset_from_the_same_observations(root: str):
    write_dataset(root, "set", DEFAULT, PUBLISHED)
    looser = write_dataset(root, "set", FilterSettings(min_person_percentage=5), CORRECTED)
    assert (looser["clips_kept"], looser["clips_rejected"]) == (3, 0)
    assert looser["boxes"] == 180  # a person seen in five frames only is none to the corrected rule
    assert write_dataset(root, "set", FilterSettings(person_confidence=0.95), PUBLISHED)["clips_kept"] == 0
    assert Dataset.open(root).table("boxes").num_rows == 0
    assert Dataset.open(root).table("splits").num_rows == 0


def test_a_preview_is_dropped_when_its_clip_looks_different_and_kept_otherwise(
    root: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MICROG_ALLOW_EXTERNAL", "1")  # the videos of these rows are nowhere
    write_dataset(root, "set", DEFAULT, PUBLISHED)
    dataset = Dataset.open(root)
    folder = Path(root) / "previews"
    folder.mkdir()

    def previews() -> list[str]:
        return sorted(path.stem for path in folder.iterdir())

    for clip_id in ("a_000", "b_000"):
        Path(preview_uri(dataset, clip_id)).write_bytes(b"film")
    write_dataset(root, "set", DEFAULT, PUBLISHED)
    assert previews() == ["a_000", "b_000"]
    observations.commit(root, [observed_row("b_000", sha256="other", written=2)])
    write_dataset(root, "set", DEFAULT, PUBLISHED)
    assert previews() == ["a_000"]
    (missing,) = missing_previews(dataset)
    assert (missing["clip_id"], min(missing["boxes"]), max(missing["boxes"])) == ("b_000", 15, 90)
    write_dataset(root, "set", DEFAULT, CORRECTED)
    assert previews() == []


def test_leftovers_of_killed_processes_are_removed_and_nothing_else(root: str):
    write_dataset(root, "set", DEFAULT, PUBLISHED)
    stray = [
        "videos/.tmp-x1.mp4",
        "observations/part-1.parquet.ab12cd34.tmp",
        "tables/clips.parquet.0.tmp",
        "run.json.1.tmp",
    ]
    kept = ["videos/a_000.mp4", "videos/my notes.txt", "videos/.tmp-mine.txt"]
    for name in stray + kept:
        (Path(root) / name).write_bytes(b"x")
    before = {str(path) for path in Path(root).rglob("*")}
    remove_leftovers(root)
    assert before - {str(path) for path in Path(root).rglob("*")} == {f"{root}/{name}" for name in stray}
