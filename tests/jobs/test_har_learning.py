"""Training really learns: the small model against chance, from rendered clips to the score of the test split."""

from __future__ import annotations

from pathlib import Path

import pytest

from microg import storage
from tests.support.processes import microg


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_the_tiny_recipe_learns_the_synthetic_actions(tmp_path: Path, ray_session: None) -> None:
    data, trained, predicted, scored = (tmp_path / name for name in ("data", "trained", "predicted", "scored"))
    assert microg("data", "synth", data, "--clips", 640, "--width", 320, "--height", 240, "--seed", 1) == 0
    assert microg("data", "split", data) == 0
    assert microg("har", "train", data, "--recipe", "tiny", "--run", trained) == 0
    assert microg("har", "predict", data, "--weights", trained, "--run", predicted) == 0
    assert microg("har", "score", "--predictions", predicted, "--groundtruth", data, "--run", scored) == 0
    scores = storage.read_json(str(scored / "metrics.json"))
    assert scores["protocols"]["corrected"]["map"]["macro"] >= 0.6
