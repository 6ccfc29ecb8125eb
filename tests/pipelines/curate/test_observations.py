"""The observations table: what goes in comes out, and the newest row of a key counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from microg.models.curation.observe import Observation
from microg.models.curation.tracking import Tracks
from microg.models.detection.base import Detections
from microg.pipelines.curate import observations
from microg.pipelines.curate.write_dataset import current_observations
from tests.support.curation import observed_row, source_row


def random_observation(seed: int, frames: int = 7) -> Observation:
    random = np.random.default_rng(seed)
    detections, tracks = [], []
    for _ in range(frames):
        count, tracked = random.integers(0, 4, 2)
        rows = random.uniform(0, 50, (count, 6)).astype(np.float32)
        rows[:, 5] = random.integers(0, 80, count)
        detections.append(Detections.from_array(rows))
        boxes = random.uniform(0, 50, (tracked, 4)).astype(np.float32)
        ids, classes = random.integers(1, 9, (2, tracked)).astype(np.int32)
        scores = random.uniform(0, 1, tracked).astype(np.float32)
        tracks.append(Tracks(boxes=boxes, track_id=ids, confidence=scores, class_id=classes))
    measured = {"content_scores": [1.5] * frames, "motion_published": 3.0, "motion_euclidean": 2.0}
    seconds = {"decode": 0.25, "track": 0.5}
    return Observation(
        num_frames=frames,
        width=64,
        height=48,
        measured=measured,
        detections=detections,
        tracks=tracks,
        seconds=seconds,
    )


@pytest.mark.parametrize("seed", range(5))
def test_an_observation_comes_back_from_disk_exactly(tmp_path: Path, seed: int):
    seen = random_observation(seed)
    observations.commit(str(tmp_path), [source_row("a", clip_id="a_000", status="ok") | observations.to_row(seen)])
    (row,) = observations.read(str(tmp_path)).to_pylist()
    for mine, theirs in zip(observations.detections_of(row), seen.detections, strict=True):
        for name in ("boxes", "confidence", "class_id"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))
    for mine, theirs in zip(observations.tracks_of(row), seen.tracks, strict=True):
        for name in ("boxes", "confidence", "class_id", "track_id"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))
    assert row["content_scores"] == seen.measured["content_scores"]
    assert (row["motion_published"], row["motion_euclidean"]) == (3.0, 2.0)
    assert (row["decode_s"], row["track_s"], row["detect_s"]) == (0.25, 0.5, None)


def test_a_clip_without_any_box_comes_back(tmp_path: Path):
    observations.commit(str(tmp_path), [observed_row(person_frames=0)])
    (row,) = observations.read(str(tmp_path)).to_pylist()
    assert [len(found) for found in observations.detections_of(row)] == [0] * 90
    assert [len(found) for found in observations.tracks_of(row)] == [0] * 90


def test_the_newest_row_of_a_key_counts_whatever_the_order_of_files(tmp_path: Path):
    root = str(tmp_path)
    for written in (5, 9, 2):
        observations.commit(root, [observed_row(written=written, sha256=str(written))])
    observations.commit(root, [observed_row("a_001", written=1)])
    assert observations.read(root, ["clip_id", "sha256"]).to_pylist() == [
        {"clip_id": "a_000", "sha256": "9"},
        {"clip_id": "a_001", "sha256": None},
    ]


def test_nothing_observed_yet_is_an_empty_table(tmp_path: Path):
    assert observations.read(str(tmp_path)).num_rows == 0
    assert observations.read(str(tmp_path), ["clip_id"]).column_names == ["clip_id"]


def test_a_torn_file_of_a_killed_writer_is_passed_over(tmp_path: Path):
    observations.commit(str(tmp_path), [observed_row()])
    (tmp_path / "observations" / "part-torn.parquet").write_bytes(b"PAR1 half a fi")
    assert observations.read(str(tmp_path))["clip_id"].to_pylist() == ["a_000"]


def test_compaction_joins_many_files_and_changes_no_row(tmp_path: Path):
    root = str(tmp_path)
    for number in range(20):
        observations.commit(root, [observed_row(f"a_{number % 18:03d}", written=number)])
    before = observations.read(root)
    observations.store(root).compact()
    assert len(list((tmp_path / "observations").iterdir())) == 1
    assert observations.read(root).equals(before)
    observations.commit(root, [observed_row("b_000")])
    observations.store(root).compact()
    assert len(list((tmp_path / "observations").iterdir())) == 2  # not worth it yet


def test_compaction_killed_before_it_removed_the_parts_leaves_each_row_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from fsspec.implementations.local import LocalFileSystem

    root = str(tmp_path)
    for number in range(20):
        observations.commit(root, [observed_row(f"a_{number:03d}", written=number)])
    before = observations.read(root)

    def die(self, path, **_):
        for name in path[:7]:
            Path(name).unlink()
        raise SystemExit("killed")

    monkeypatch.setattr(LocalFileSystem, "rm", die)
    with pytest.raises(SystemExit):
        observations.store(root).compact()
    assert len(list((tmp_path / "observations").iterdir())) == 14
    assert observations.read(root).equals(before)


def test_rows_of_a_source_that_changed_are_dropped(tmp_path: Path):
    root = str(tmp_path)
    observations.commit(root, [observed_row("a_000", written=1), observed_row("a_001", written=2)])
    observations.commit(root, [observed_row("b_000", written=3)])
    observations.commit(root, [observed_row("a_000", written=4, source_fingerprint="2-2")])
    assert current_observations(root)["clip_id"].to_pylist() == ["a_000", "b_000"]


def test_a_failed_stretch_is_superseded_by_the_clips_it_gave_later_and_only_by_those(tmp_path: Path):
    root = str(tmp_path)
    failed = {"status": "error", "error": "WorkerCrashed: it does"}
    observations.commit(root, [source_row("a", written=1, **failed), source_row("b", written=9, **failed)])
    observations.commit(root, [source_row("c", key="c#1", stretch=1, stretches=2, written=1, **failed)])
    rows = [observed_row("a_000", written=2), observed_row("b_000", written=2), observed_row("c_000", written=2)]
    observations.commit(root, rows)
    assert current_observations(root)["key"].to_pylist() == ["a_000", "b#0", "b_000", "c#1", "c_000"]
