"""One pass over a clip: stored detections or a detector, and everything else measured on the same frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from microg.errors import FormatError, VideoError
from microg.models.curation.motion import MotionMeter
from microg.models.curation.observe import Observation, observe
from microg.models.curation.scenes import SceneScorer
from microg.models.detection.base import Detections
from microg.video import decode_frames
from tests.support.footage import damage_packet, write_footage
from tests.support.helpers import FRAMES, moving_scene, write_video


class SquareFinder:
    """Finds the drifting square of `moving_scene`: a detector that knows the answer and counts its calls."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def detect(self, frames: Sequence[np.ndarray]) -> list[Detections]:
        start = sum(self.batches)
        self.batches.append(len(frames))
        return square(start, len(frames))


def square(start: int, count: int) -> list[Detections]:
    rows = [[[10 + 2 * k, 20, 30 + 2 * k, 40, 0.9, 0]] for k in range(start, start + count)]
    return [Detections.from_array(np.array(row)) for row in rows]


def same(a: Observation, b: Observation) -> bool:
    pairs = zip([*a.detections, *a.tracks], [*b.detections, *b.tracks], strict=True)
    return a.measured == b.measured and all(np.array_equal(x.boxes, y.boxes) for x, y in pairs)


def test_a_clip_is_detected_once_in_batches_and_all_measures_see_all_frames(tmp_path: Path):
    path = str(write_video(tmp_path / "a.mp4", moving_scene(2)))
    finder = SquareFinder()
    seen = observe(path, finder, num_frames=FRAMES, batch_size=5)
    assert finder.batches == [5, 5, 2]
    assert (seen.num_frames, seen.width, seen.height) == (FRAMES, 96, 64)
    assert len(seen.detections) == len(seen.tracks) == len(seen.measured["content_scores"]) == FRAMES
    assert {tuple(found.track_id) for found in seen.tracks[1:]} == {(1,)}
    scenes, motion = SceneScorer(), MotionMeter(FRAMES)
    for frame in decode_frames(path):
        scenes.update(frame)
        motion.update(frame)
    assert seen.measured == {**scenes.columns(), **motion.columns()}
    assert seen.measured["content_scores"] == scenes.scores
    assert seen.measured["motion_published"] == motion.published
    assert set(seen.seconds) == {"decode", "detect", "scenes", "motion", "track"}


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_stored_detections_give_what_the_detector_gave_whatever_the_batch(tmp_path: Path, batch_size: int):
    path = str(write_video(tmp_path / "a.mp4", moving_scene(2)))
    live = observe(path, SquareFinder(), num_frames=FRAMES)
    stored = observe(path, None, num_frames=FRAMES, stored=live.detections, batch_size=batch_size)
    assert same(live, stored)


@pytest.mark.parametrize("count", [0, FRAMES - 1, FRAMES + 1])
def test_stored_detections_of_another_number_of_frames_are_refused(tmp_path: Path, count: int):
    path = str(write_video(tmp_path / "a.mp4", moving_scene(2)))
    with pytest.raises(FormatError, match=f"{FRAMES - 1}|{FRAMES + 1}|more frames than the 0"):
        observe(path, None, num_frames=FRAMES, stored=square(0, count))


def test_a_detector_or_stored_detections_are_needed(tmp_path: Path):
    with pytest.raises(ValueError, match="either a detector or stored"):
        observe(str(tmp_path / "a.mp4"), None, num_frames=1)


def test_a_damaged_clip_is_a_video_error(tmp_path: Path):
    path = write_footage(tmp_path / "a.mp4", 30)
    damage_packet(path, 12)
    with pytest.raises(VideoError, match="is damaged"):
        observe(str(path), None, num_frames=30, stored=square(0, 30))


def test_a_clip_of_one_frame_is_observed(tmp_path: Path):
    path = str(write_video(tmp_path / "a.mp4", moving_scene(2, frames=1)))
    seen = observe(path, SquareFinder(), num_frames=1)
    assert (seen.num_frames, seen.measured["content_scores"], seen.measured["motion_published"]) == (1, [0.0], 0.0)
