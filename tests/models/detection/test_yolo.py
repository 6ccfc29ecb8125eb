"""The YOLO detector against the reference's detections and against ultralytics' own steps."""

from __future__ import annotations

import csv
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from microg.config import load_config
from microg.errors import ConfigError, WeightsError
from microg.models.detection import network_backends
from microg.models.detection.base import CONFIDENCE_FLOOR, Backend, DetectorSettings
from microg.models.detection.load import load_detector
from microg.models.detection.network_backends import letterbox, to_frame
from microg.models.detection.yolo import select
from microg.video import decode_frames


def reference(oracles: Path, clip: str, frame: int) -> np.ndarray:
    """Return the (N, 6) rows of one frame, numbered from 1, by descending confidence."""
    with (oracles / "curation" / "dets" / f"{clip}.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if int(row["frame"]) == frame]
    values = np.array([[float(row[name]) for name in ("x1", "y1", "x2", "y2", "conf", "cls")] for row in rows])
    return values.reshape(-1, 6)[np.argsort([-float(row["conf"]) for row in rows], kind="stable")]


@pytest.mark.parametrize("backend", ["torch", "openvino", "onnxruntime"])
def test_every_backend_finds_what_the_reference_found(oracles: Path, person_weights: Path, backend: Backend):
    detector = load_detector(DetectorSettings(weights=str(person_weights), backend=backend, batch_size=3))
    boxes = 0
    # A wide clip and a nearly square one: two network input shapes; a batch that is not full.
    for clip, count in (("sintel_cuts_000", 4), ("kin_armwrestle_002", 5)):
        frames = list(islice(decode_frames(str(oracles / "curation" / "clips" / f"{clip}.mp4")), count))
        for number, found in enumerate(detector.detect(frames), start=1):
            expected = reference(oracles, clip, number)
            assert found.class_id.tolist() == expected[:, 5].astype(int).tolist(), (clip, number)
            assert np.abs(found.boxes - expected[:, :4]).max(initial=0) < 0.01, (clip, number)
            assert np.abs(found.confidence - expected[:, 4]).max(initial=0) < 1e-3, (clip, number)
            boxes += len(found)
    assert boxes > 30


@pytest.mark.gpu
def test_a_gpu_finds_what_the_reference_found(oracles: Path, person_weights: Path):
    detector = load_detector(DetectorSettings(weights=str(person_weights), backend="torch", device="cuda"))
    frame = next(decode_frames(str(oracles / "curation" / "clips" / "kin_armwrestle_002.mp4")))
    found, expected = detector.detect([frame])[0].persons(0.5), reference(oracles, "kin_armwrestle_002", 1)
    expected = expected[(expected[:, 5] == 0) & (expected[:, 4] > 0.5)]
    assert np.abs(found.boxes - expected[:, :4]).max() < 2  # convolutions in TF32


def test_auto_uses_the_fastest_engine_of_the_machine():
    expected = "torch" if torch.cuda.is_available() else "openvino"
    assert network_backends.choose("auto", "auto") == expected
    assert network_backends.choose("auto", "cpu") == "openvino"
    assert network_backends.choose("torch", "cpu") == "torch"


def test_a_backend_that_is_not_installed_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(network_backends.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="'openvino' is not installed"):
        network_backends.choose("openvino", "cpu")
    assert network_backends.choose("auto", "cpu") == "torch"


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_a_device_that_is_not_there_is_an_error_that_says_so(device: str):
    with pytest.raises(ConfigError, match=f"no torch device '{device}'"):
        network_backends.resolve_device(device)


def test_missing_weights_are_an_error_that_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MICROG_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"'none\.pt' are not in any of") as caught:
        load_detector(DetectorSettings(weights="none.pt"))
    assert str(tmp_path) in str(caught.value)
    for way in ("MICROG_WEIGHTS", "./weights", "microg data download weights"):
        assert way in str(caught.value.fix)


@pytest.mark.parametrize("override", ["image_size=500", "rotations=2", "backend=tensorrt", "iou_threshold=0"])
def test_settings_no_detector_can_have_are_refused(override: str):
    with pytest.raises(ConfigError, match=override.split("=")[0]):
        load_config(DetectorSettings, None, [override])


@pytest.mark.parametrize(
    ("width", "height", "image_size"),
    [
        *[(854, 480, 640), (638, 480, 640), (480, 854, 640), (640, 640, 640), (96, 64, 640), (1920, 1080, 320)],
        *[(1130, 480, 640), (33, 1000, 640), (271, 480, 512)],
    ],
)
def test_letterboxing_is_that_of_ultralytics(width: int, height: int, image_size: int):
    from ultralytics.data.augment import LetterBox

    frame = np.random.default_rng(width).integers(0, 256, (height, width, 3)).astype(np.uint8)
    expected = np.asarray(LetterBox(image_size, auto=True, stride=32)(image=frame))
    assert np.array_equal(letterbox(frame, image_size), expected)


@st.composite
def outputs(draw: st.DrawFn) -> np.ndarray:
    """A network output of few anchors around few places, so that boxes overlap; scores tie and cross the floor.

    Not of six anchors: ultralytics takes those for the rows of an end-to-end model.
    """
    anchors, classes = draw(st.integers(0, 40).filter(lambda count: count != 6)), draw(st.integers(1, 3))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    centres = random.choice([100.0, 150.0, 400.0], (2, anchors)) + random.normal(0, 8, (2, anchors))
    sizes = random.choice([60.0, 120.0], (2, anchors)) + random.normal(0, 6, (2, anchors))
    scores = random.choice([0.0, 0.05, 0.11, 0.3, 0.9], (classes, anchors)) * random.uniform(
        0.9, 1.0, (classes, anchors)
    )
    return np.concatenate([centres, sizes, scores]).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(outputs(), st.sampled_from([0.3, 0.5, 0.7]))
def test_selection_is_ultralytics_non_maximum_suppression(output: np.ndarray, iou: float):
    import torchvision  # noqa: F401  (ultralytics uses its suppression where it is imported)
    from ultralytics.utils import nms

    found = nms.non_max_suppression(torch.from_numpy(output[None].copy()), CONFIDENCE_FLOOR, iou, max_det=300)
    assert np.allclose(select(output, CONFIDENCE_FLOOR, iou), found[0].numpy(), atol=1e-4)  # type: ignore[union-attr]


def test_at_most_300_detections_stay():
    grid = np.stack(np.meshgrid(np.arange(25.0), np.arange(20.0))).reshape(2, -1) * 20
    scores = np.linspace(0.2, 0.9, 500)
    rows = select(np.concatenate([grid, np.full((2, 500), 10.0), scores[None]]).astype(np.float32), 0.1, 0.7)
    assert len(rows) == 300
    assert rows[:, 4].tolist() == sorted(scores.astype(np.float32), reverse=True)[:300]


@given(st.integers(32, 2000), st.integers(32, 2000))
def test_a_box_around_the_frame_maps_back_to_the_frame(width: int, height: int):
    frame = np.zeros((height, width, 3), np.uint8)
    frame[:] = 255
    boxed = letterbox(frame, 640)
    light = np.argwhere(boxed[..., 0] > 200)
    (top, left), (bottom, right) = light.min(axis=0), light.max(axis=0) + 1
    back = to_frame(np.array([[left, top, right, bottom]], np.float32), boxed.shape[:2], (height, width))
    # One pixel of the letterboxed frame is this much of the frame.
    tolerance = 1.5 * max(width, height) / 640
    assert np.allclose(back, [[0, 0, width, height]], atol=max(tolerance, 1.5))
    beyond = to_frame(np.array([[-50, -50, 900, 900]], np.float32), boxed.shape[:2], (height, width))
    assert beyond.tolist() == [[0, 0, width, height]]
