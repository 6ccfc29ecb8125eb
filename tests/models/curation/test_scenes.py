"""Scene cuts from stored scores."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import scenedetect

from microg.models.curation.scenes import SceneScorer, scene_cuts
from microg.video import decode_frames
from tests.support.helpers import moving_scene, write_video


def scores_of(path: Path) -> list[float]:
    scorer = SceneScorer()
    for frame in decode_frames(str(path)):
        scorer.update(frame)
    return scorer.scores


def cuts_anew(path: Path, threshold: float) -> list[int]:
    """Return the cuts that PySceneDetect finds by itself in a video."""
    scenes = scenedetect.detect(str(path), scenedetect.ContentDetector(threshold=threshold))
    return [start.frame_num for start, _ in scenes[1:]]


def pan(seed: int, count: int, width: int = 320, height: int = 176) -> list[np.ndarray]:
    wide = moving_scene(seed, frames=1, width=width + 4 * count, height=height)[0]
    return [np.ascontiguousarray(wide[:, 4 * index : 4 * index + width]) for index in range(count)]


def flash(frames: list[np.ndarray], at: int) -> list[np.ndarray]:
    return [*frames[:at], np.full_like(frames[0], 255), *frames[at + 1 :]]


def test_a_cut_is_found_where_it_is_and_a_pan_is_none(tmp_path: Path):
    panned = scores_of(write_video(tmp_path / "pan.mp4", pan(3, 40)))
    assert scene_cuts(panned) == []
    cut = scores_of(write_video(tmp_path / "cut.mp4", [*pan(3, 25), *pan(4, 25)]))
    assert scene_cuts(cut) == [25]
    assert cut[0] == 0.0
    assert cut[25] == max(cut) > 40


@pytest.mark.parametrize("threshold", [3.0, 12.0, 27.0, 40.0, 90.0])
def test_another_threshold_on_stored_scores_equals_detecting_anew(tmp_path: Path, threshold: float):
    # Two cuts closer than PySceneDetect's shortest scene, a flash, and one close to the end.
    frames = [*pan(3, 20), *pan(4, 8), *flash(pan(5, 40), 20), *pan(6, 6)]
    path = write_video(tmp_path / "a.mp4", frames)
    anew = cuts_anew(path, threshold)
    assert scene_cuts(scores_of(path), threshold) == anew
    assert anew or threshold in (3.0, 90.0)  # every step is a cut to the former, and one scene goes on


def test_wide_frames_are_scored_as_pyscenedetect_scores_them(tmp_path: Path):
    frames = [*pan(3, 18, 854, 480), *pan(4, 4, 854, 480)]
    path = write_video(tmp_path / "a.mp4", frames)
    found = scores_of(path)
    assert scene_cuts(found) == cuts_anew(path, 40.0) == [18]
    for threshold in (found[18] - 1e-3, found[18] + 1e-3):
        assert scene_cuts(found, threshold) == cuts_anew(path, threshold)


def test_cuts_of_real_clips_are_those_of_the_reference(oracles: Path):
    with (oracles / "curation" / "clips.csv").open() as file:
        counts = {row["clip"]: int(row["scene_changes"]) for row in csv.DictReader(file)}
    assert len(counts) == 21
    assert sum(counts.values()) >= 5
    found = {clip: len(scene_cuts(scores_of(oracles / "curation" / "clips" / f"{clip}.mp4"))) for clip in counts}
    assert found == counts
