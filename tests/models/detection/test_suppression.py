"""Non-maximum suppression against torchvision's."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from microg.models.detection.yolo import non_maximum_suppression


@pytest.mark.parametrize("seed", range(40))
def test_suppression_keeps_exactly_what_torchvision_keeps(seed: int):
    import torch
    import torchvision

    random = np.random.default_rng(seed)
    count = int(random.integers(0, 200))
    corner = random.uniform(0, 200, (count, 2))
    boxes = np.concatenate([corner, corner + random.uniform(0, 150, (count, 2))], axis=1).astype(np.float32)
    scores = random.uniform(0.1, 1, count).round(1 if seed % 2 else 6).astype(np.float32)  # with and without ties
    if seed % 4 == 0:
        boxes = boxes.round(-1)  # equal and empty boxes, overlaps of exactly the threshold
    threshold = float(random.choice([0.3, 0.5, 0.7]))
    expected = torchvision.ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold)
    assert non_maximum_suppression(boxes, scores, threshold).tolist() == expected.tolist()


def test_the_detector_does_not_import_torchvision():
    code = (
        "import microg.models.detection.yolo, microg.models.curation.tracking, sys; "
        "sys.exit('torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
