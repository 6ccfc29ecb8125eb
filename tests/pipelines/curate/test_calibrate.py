"""What a fast profile does before a curation: its agreement with the exact one, on the footage at hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from microg.errors import WeightsError
from microg.models.detection.base import PROFILES, DetectorSettings
from microg.pipelines.curate.calibrate import calibrate
from microg.pipelines.curate.find_footage import Footage


@pytest.fixture
def weights(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return videos / "weights" / "yolo11n_dq.pt"


def settings(weights: Path, profile: str) -> DetectorSettings:
    plain = DetectorSettings(weights=str(weights), backend="torch", image_size=320)
    return plain.replaced(**PROFILES[profile])


def footage(path: Path) -> list[Footage]:
    return [Footage(path.stem, str(path), "real", 1, "1")]


def test_agreement_is_measured_on_frames_that_follow_each_other_and_kept(weights: Path, oracles: Path, tmp_path: Path):
    clip = oracles / "curation" / "clips" / "kin_armwrestle_000.mp4"
    found = calibrate(footage(clip), str(tmp_path), settings(weights, "balanced"), weights)
    assert found["frames"] == 13
    assert found["person_frame_agreement"] == found["recall"] == 1.0
    assert 0.9 < found["iou"] < 1.0
    assert "calibration" not in found
    assert calibrate([], str(tmp_path), settings(weights, "balanced"), weights) == found
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["detector-agreement.json"]


def test_footage_that_cannot_be_decoded_is_left_to_the_run_but_gives_no_int8_weights(weights: Path, tmp_path: Path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    found = calibrate(footage(broken), str(tmp_path / "a"), settings(weights, "balanced"), weights)
    assert found["frames"] == 0
    assert math.isnan(found["recall"])
    with pytest.raises(WeightsError, match="no footage can be decoded"):
        calibrate(footage(broken), str(tmp_path / "b"), settings(weights, "fast"), weights)
