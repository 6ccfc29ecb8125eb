"""BoT-SORT fed with detections, against the reference's tracks and on made-up ones."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from microg.models.curation.tracking import BotSort, TrackerSettings, Tracks
from microg.models.detection.base import Detections
from microg.models.detection.replay import read_detections
from microg.video import decode_frames
from tests.support.helpers import moving_scene

# Few objects and many, cuts, high motion, objects that are never tracked; the others take 12 seconds.
CLIPS = ("carphone_000", "kin_armwrestle_002", "bikes_cuts_000", "sintel_cuts_002", "nasa_13013_001", "raw25_000")
OTHERS = (
    "bbb_noperson_000",
    "bikes_cuts_001",
    "kin_armwrestle_000",
    "made_60fps_000",
    "made_vfr_000",
    "made_vfr_001",
    "nasa_13013_000",
    "nasa_13013_002",
    "ntu_one_000",
    "sintel_cuts_000",
    "sintel_cuts_001",
    "street_small_000",
    "street_small_001",
    "ucf_makeup_000",
    "ucf_makeup_001",
)


def detection(x: float, confidence: float = 0.9, class_id: int = 0) -> list[float]:
    return [x, 20, x + 20, 50, confidence, class_id]


def follow(rows: list[list[list[float]]], settings: TrackerSettings | None = None) -> list[Tracks]:
    tracker = BotSort(settings)
    scene = moving_scene(1, frames=1)[0]
    return [tracker.update(Detections.from_array(np.array(frame)), scene) for frame in rows]


def oracle(folder: Path, clip: str) -> dict[int, list[list[float]]]:
    """Return by frame the rows (x1, y1, x2, y2, id, confidence, class) that the reference tracked."""
    result: dict[int, list[list[float]]] = {}
    with (folder / "tracks" / f"{clip}.csv").open() as file:
        for row in csv.DictReader(file):
            if row["id"]:
                values = [float(row[name]) for name in ("x1", "y1", "x2", "y2", "id", "conf", "cls")]
                result.setdefault(int(row["frame"]), []).append(values)
    return result


@pytest.mark.parametrize("clip", [*CLIPS, *(pytest.param(clip, marks=pytest.mark.slow) for clip in OTHERS)])
def test_tracks_from_stored_detections_are_those_of_the_reference(oracles: Path, clip: str):
    folder = oracles / "curation"
    with (folder / "clips.csv").open() as file:
        facts = {row["clip"]: row for row in csv.DictReader(file)}[clip]
    count = int(facts["frames"])
    stored = read_detections(str(folder / "dets"), clip, count)
    expected = oracle(folder, clip)
    tracker = BotSort()
    seen = 0
    for number, frame in enumerate(decode_frames(str(folder / "clips" / f"{clip}.mp4")), start=1):
        tracks = tracker.update(stored[number - 1], frame)
        rows = np.array(expected.get(number, [])).reshape(-1, 7)
        assert tracks.track_id.tolist() == rows[:, 4].astype(int).tolist(), number
        assert tracks.class_id.tolist() == rows[:, 6].astype(int).tolist(), number
        assert np.abs(tracks.boxes - rows[:, :4]).max(initial=0) < 0.01, number
        assert np.abs(tracks.confidence - rows[:, 5]).max(initial=0) < 1e-4, number
        seen += len(rows)
    assert (number, seen) == (count, sum(map(len, expected.values())))
    frames = sum(len(found.persons(0.6)) > 0 for found in stored)
    assert 100 * frames / count == pytest.approx(float(facts["person_pct_predict"]), abs=1e-4)


def test_person_percentages_of_all_stored_detections_are_those_of_plain_prediction(oracles: Path):
    folder = oracles / "curation"
    with (folder / "clips.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 21
    for row in rows:
        stored = read_detections(str(folder / "dets"), row["clip"], int(row["frames"]))
        share = 100 * np.mean([len(found.persons(0.6)) > 0 for found in stored])
        assert share == pytest.approx(float(row["person_pct_predict"]), abs=1e-4), row["clip"]


def test_an_object_keeps_its_id_while_it_moves_and_is_briefly_lost():
    rows = [[detection(10 + k), detection(60 - k)] for k in range(12)]
    rows[5] = [detection(60 - 5)]
    tracks = follow(rows)
    first, second = tracks[0].track_id.tolist()
    assert {first, second} == {1, 2}
    for k, found in enumerate(tracks):
        at = dict(zip(found.track_id.tolist(), found.boxes[:, 0].tolist(), strict=True))
        assert at[second] == pytest.approx(60 - k, abs=3)
        assert (first in at) == (k != 5)


def test_each_tracker_starts_counting_anew():
    rows = [[detection(10), detection(50)]] * 3
    assert [found.track_id.tolist() for found in follow(rows)] == [found.track_id.tolist() for found in follow(rows)]


def test_only_sure_detections_start_a_track_and_unsure_ones_keep_it():
    assert [len(found) for found in follow([[detection(10, 0.55)]] * 4)] == [0] * 4
    weak = [[detection(10, 0.9)], *[[detection(10, 0.2)]] * 3]
    assert [found.track_id.tolist() for found in follow(weak)] == [[1]] * 4
    assert [len(found) for found in follow([[detection(10, 0.55)]] * 4, TrackerSettings(new_track_thresh=0.5))] == [
        1
    ] * 4


def test_boxes_are_clipped_to_the_frame():
    found = follow([[[-8.0, 10.0, 40.0, 90.0, 0.9, 0.0]]] * 2)[-1]
    assert found.boxes.tolist() == [[0.0, pytest.approx(10, abs=1), pytest.approx(40, abs=1), 64.0]]
    assert (found.boxes.dtype, found.track_id.dtype, found.class_id.dtype) == (np.float32, np.int32, np.int32)


def test_a_track_that_starts_after_the_first_frame_shows_once_it_is_seen_again():
    found = follow([[], [detection(10)], [detection(10)], []])
    assert [len(item) for item in found] == [0, 0, 1, 0]
    assert found[0].boxes.shape == (0, 4)
