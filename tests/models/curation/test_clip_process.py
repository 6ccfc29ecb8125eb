"""A clip observed in a process of its own, with the network elsewhere, is the same observation; faults stay its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from microg.models.curation.clip_process import ClipProcess, ClipProcessDiedError
from microg.models.curation.observe import observe
from microg.models.curation.tracking import TrackerSettings
from microg.models.detection.base import DetectorSettings
from microg.models.detection.load import detector_on
from tests.models.curation.test_observe import same
from tests.support.footage import damage_packet, write_footage
from tests.support.helpers import FRAMES, moving_scene, write_video

SETTINGS = DetectorSettings(image_size=96, batch_size=5)


class Network:
    """Finds one person, as bright as the image: what it says depends on what it sees."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        outputs = np.zeros((len(images), 4 + 2, 50), np.float32)
        for output, image in zip(outputs, images, strict=True):
            output[:, 3] = [40, 30, 20 + float(image.mean()) / 10, 30, 0.9, 0]
        return outputs


@pytest.fixture(scope="module")
def process() -> Iterator[ClipProcess]:
    process = ClipProcess(TrackerSettings(), SETTINGS)
    yield process
    process.close()


def test_what_a_process_sees_is_what_this_one_would(process: ClipProcess, tmp_path: Path):
    path = str(write_video(tmp_path / "a.mp4", moving_scene(2)))
    alone = observe(path, detector_on(Network(), SETTINGS), num_frames=FRAMES, batch_size=5)
    beside = process.observe(path, FRAMES, Network())
    assert not isinstance(beside, str)
    assert same(alone, beside)
    assert all(
        np.array_equal(a.to_array(), b.to_array()) for a, b in zip(alone.detections, beside.detections, strict=True)
    )
    assert set(beside.seconds) == {"decode", "detect", "scenes", "motion", "track"}


def test_what_fails_is_told_by_its_type_and_the_process_goes_on(process: ClipProcess, tmp_path: Path):
    path = write_footage(tmp_path / "a.mp4", 30)
    damage_packet(path, 12)
    assert str(process.observe(str(path), 30, Network())).startswith("VideoError: a.mp4 is damaged")

    def full(images: np.ndarray) -> np.ndarray:
        raise MemoryError("the GPU is full")

    good = str(write_video(tmp_path / "b.mp4", moving_scene(2)))
    assert process.observe(good, FRAMES, full) == "MemoryError: the GPU is full"
    assert not isinstance(process.observe(good, FRAMES, Network()), str)


def test_a_process_that_a_clip_kills_is_another_for_the_next(process: ClipProcess, tmp_path: Path):
    path = str(write_video(tmp_path / "a.mp4", moving_scene(2)))

    def killer(images: np.ndarray) -> np.ndarray:
        process._process.kill()
        process._process.join()
        return Network()(images)

    with pytest.raises(ClipProcessDiedError):
        process.observe(path, FRAMES, killer)
    assert not isinstance(process.observe(path, FRAMES, Network()), str)
