"""INT8 weights and how far they agree with float32."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microg.errors import WeightsError
from microg.models.detection.base import Detections, DetectorSettings
from microg.models.detection.export import build_quantized
from microg.models.detection.load import load_detector
from microg.models.detection.sparse import agreement, iou_matrix
from microg.video import decode_frames

BLANK = np.zeros((48, 64, 3), np.uint8)


class Fixed:
    """A detector that finds the same in every frame."""

    def __init__(self, *rows: Sequence[float]) -> None:
        self.rows = np.array(rows, dtype=np.float32)

    def detect(self, frames: Sequence[np.ndarray]) -> list[Detections]:
        return [Detections.from_array(self.rows) for _ in frames]


def boxes(low: int = 0, high: int = 50) -> st.SearchStrategy[list[int]]:
    corner, side = st.integers(low, high), st.integers(1, 30)
    return st.tuples(corner, corner, side, side).map(lambda v: [v[0], v[1], v[0] + v[2], v[1] + v[3]])


@given(st.lists(boxes(), max_size=4), st.lists(boxes(), max_size=4))
def test_iou_is_that_of_counted_pixels(a: list[list[int]], b: list[list[int]]):
    def pixels(box: list[int]) -> np.ndarray:
        mask = np.zeros((80, 80), bool)
        mask[box[1] : box[3], box[0] : box[2]] = True
        return mask

    found = iou_matrix(np.array(a, float).reshape(-1, 4), np.array(b, float).reshape(-1, 4))
    assert found.shape == (len(a), len(b))
    for i, first in enumerate(a):
        for j, second in enumerate(b):
            p, q = pixels(first), pixels(second)
            assert found[i, j] == pytest.approx((p & q).sum() / (p | q).sum())


def test_boxes_without_area_overlap_nothing():
    flat = np.array([[5.0, 5.0, 5.0, 9.0]])
    assert iou_matrix(flat, flat).tolist() == [[0.0]]


def test_a_detector_agrees_with_itself():
    detector = Fixed([0, 0, 30, 40, 0.9, 0], [20, 10, 60, 40, 0.7, 0], [1, 1, 9, 9, 0.9, 5])
    result = agreement(detector.detect([BLANK] * 3), detector.detect([BLANK] * 3))
    assert result == {
        "frames": 3,
        "person_frame_agreement": 1.0,
        "recall": 1.0,
        "iou": pytest.approx(1.0),
        "confidence_difference": 0.0,
        "corner_difference_px": 0.0,
    }


def test_agreement_counts_what_is_missed_moved_and_less_sure():
    exact = Fixed([0, 0, 40, 40, 0.9, 0], [100, 0, 140, 40, 0.8, 0], [0, 0, 9, 9, 0.5, 0])
    fast = Fixed([2, 0, 42, 40, 0.5, 0], [100, 0, 140, 40, 0.9, 7])
    result = agreement(exact.detect([BLANK] * 2), fast.detect([BLANK] * 2))
    assert result["person_frame_agreement"] == 0.0
    assert result["recall"] == 0.5
    assert result["iou"] == pytest.approx(38 / 42)
    assert result["confidence_difference"] == pytest.approx(0.4)
    assert result["corner_difference_px"] == pytest.approx(1.0)


def test_where_nobody_is_found_only_the_frames_agree():
    result = agreement(Fixed().detect([BLANK]), Fixed([0, 0, 9, 9, 0.3, 0]).detect([BLANK]))
    assert result["person_frame_agreement"] == 1.0
    assert math.isnan(result["recall"])
    assert math.isnan(result["iou"])


def test_calibration_needs_frames(tmp_path: Path, person_weights: Path):
    with pytest.raises(WeightsError, match="without frames"):
        build_quantized(person_weights, [], 320, str(tmp_path / "int8.onnx"))


def test_int8_weights_that_were_not_built_are_an_error_that_says_how(person_weights: Path, tmp_path: Path):
    for calibration in (None, str(tmp_path / "none.onnx")):
        settings = DetectorSettings(weights=str(person_weights), precision="int8", calibration=calibration)
        with pytest.raises(WeightsError, match="--detector-profile fast"):
            load_detector(settings)


def test_quantised_weights_find_nearly_what_exact_ones_find(oracles: Path, person_weights: Path, tmp_path: Path):
    clip = oracles / "curation" / "clips" / "kin_armwrestle_000.mp4"
    frames = list(islice(decode_frames(str(clip)), 0, 40, 5))
    level = logging.getLogger().level
    target = tmp_path / "out" / "int8.onnx"
    build_quantized(person_weights, frames[::2], 320, str(target))
    assert logging.getLogger().level == level
    exact = DetectorSettings(weights=str(person_weights), image_size=320, backend="torch")
    fast = exact.replaced(precision="int8", calibration=str(target))
    result = agreement(load_detector(exact).detect(frames[1::2]), load_detector(fast).detect(frames[1::2]))
    assert result["person_frame_agreement"] == 1.0
    assert result["recall"] >= 0.8
    assert result["iou"] > 0.85
    assert 0 < result["corner_difference_px"] < 15
    assert target.stat().st_size < 0.4 * 4 * 2.6e6


def test_quantised_weights_are_fetched_once_from_another_filesystem(person_weights: Path, model_cache: Path):
    import fsspec

    from microg.models.detection.export import quantized_model

    with fsspec.open("memory://run/int8.onnx", "wb") as file:
        file.write(b"weights")  # type: ignore[union-attr]
    settings = DetectorSettings(precision="int8", calibration="memory://run/int8.onnx")
    first = quantized_model(settings, person_weights)
    assert (first.read_bytes(), first) == (b"weights", quantized_model(settings, person_weights))
    assert model_cache in first.parents
