"""A pretrained person detector finds the rendered people."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def test_a_pretrained_detector_finds_upright_people(videos: Path):
    from microg.demo.synthetic.annotate import iou
    from microg.demo.synthetic.dataset import Settings, make_clip_shot, source_of
    from microg.demo.synthetic.render import ShotRenderer
    from microg.demo.synthetic.scenes import draw_module
    from microg.models.detection.base import DetectorSettings
    from microg.models.detection.load import load_detector

    weights = str(videos / "weights" / "yolo11n_dq.pt")
    detector = load_detector(DetectorSettings(weights=weights, backend="torch"), threads=1)
    settings = Settings(11, 854, 480, 1.0, "mix")
    found = []
    for index in range(0, 70, 5):  # fourteen sources: every module twice
        background = draw_module(source_of(settings, index)[1], np.random.default_rng(index), 854, 480)
        frame = ShotRenderer(make_clip_shot(settings, index), background, 854, 480).frame(1.5)
        people = detector.detect([frame.image])[0].persons(0.6).boxes.astype(np.float64)
        for box in frame.boxes:
            assert box is not None
            found.append(len(people) > 0 and bool((iou(np.asarray(box), people) >= 0.5).any()))
    assert len(found) >= 20
    assert np.mean(found) >= 0.9
