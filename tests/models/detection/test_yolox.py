"""YOLOX files: decoding, geometry, what is refused, and the people that the real one finds."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from microg.errors import ConfigError, WeightsError
from microg.models.detection.base import Detections, DetectorSettings
from microg.models.detection.load import detector_on, load_detector
from microg.models.detection.yolox import decoded
from microg.video import decode_frames


@pytest.fixture
def nano(videos: Path) -> str:
    return str(videos / "weights" / "yolox_nano_416.onnx")


def iou(a: np.ndarray, b: np.ndarray) -> float:
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    inside = float(np.prod(sides))
    return inside / float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inside)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_real_file_finds_the_people_that_yolo11_finds(videos: Path, nano: str, person_weights: Path, backend: str):
    frames = list(islice(decode_frames(str(videos / "carphone.mp4")), 2))
    ours = load_detector(DetectorSettings.model_validate({"weights": nano, "backend": backend})).detect(frames)
    others = load_detector(DetectorSettings(weights=str(person_weights), backend="onnxruntime")).detect(frames)
    for found, other in zip(ours, others, strict=True):
        (box,), (same,) = found.persons(0.5).boxes, other.persons(0.5).boxes
        assert iou(box, same) > 0.9
    empty = [np.full((240, 320, 3), 90, np.uint8)]
    assert len(load_detector(DetectorSettings.model_validate({"weights": nano})).detect(empty)[0].persons(0.4)) == 0


def test_outputs_are_decoded_at_their_cells_and_strides():
    # 32 pixels a side: 4 x 4 cells of 8, 2 x 2 of 16, one of 32
    raw = np.zeros((21, 7), np.float32)
    raw[6] = [0.5, 0.25, np.log(2), np.log(3), 0.5, 0.8, 0.4]  # cell (2, 1) of stride 8
    raw[18] = [0, 0, 0, 0, 1, 1, 0]  # cell (0, 1) of stride 16
    raw[20] = [0.5, 0.5, 0, 0, 1, 0, 1]
    got = decoded(raw, 32)
    assert got.shape == (6, 21)
    np.testing.assert_allclose(got[:, 6], [20, 10, 16, 24, 0.4, 0.2], rtol=1e-6)
    np.testing.assert_allclose(got[:, 18], [0, 16, 16, 16, 1, 0])
    np.testing.assert_allclose(got[:, 20], [16, 16, 32, 32, 0, 1])


class _Pointing:
    """An engine that finds one person, whose box is in pixels of the square; it remembers the squares."""

    def __init__(self, box: tuple[float, float, float, float]) -> None:
        self.box = box

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.images = images
        x1, y1, x2, y2 = self.box
        column = np.array([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, 0.9, 0.0], np.float32)
        return np.repeat(column[None, :, None], len(images), axis=0)


def test_a_frame_lies_at_the_top_left_of_its_square_and_boxes_come_back_to_it():
    engine = _Pointing((10, 20, 400, 400))
    settings = DetectorSettings(weights="x.onnx", image_size=416)
    frame = np.zeros((320, 832, 3), np.uint8)
    (found,) = detector_on(engine, settings).detect([frame])
    assert engine.images.shape == (1, 416, 416, 3)
    assert not engine.images[0, :160].any()
    assert (engine.images[0, 160:] == 114).all()
    assert isinstance(found, Detections)
    np.testing.assert_allclose(found.boxes, [[20, 40, 800, 320]], rtol=1e-6)  # clipped to the frame


@pytest.mark.parametrize("more", [{"precision": "int8"}, {"backend": "torch"}, {"device": "cuda"}])
def test_what_no_onnx_file_can_do_is_refused(nano: str, more: dict[str, str]):
    with pytest.raises(ConfigError, match="runs in float32, on the CPU"):
        load_detector(DetectorSettings.model_validate({"weights": nano, **more}))


def test_other_networks_and_damaged_files_are_refused_by_name(tmp_path: Path, nano: str):
    import onnx
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 64, 64]) for name in ("in", "out")]
    graph = helper.make_graph([helper.make_node("Relu", ["in"], ["out"])], "other", value[:1], value[1:])
    other = tmp_path / "other.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), other)
    with pytest.raises(WeightsError, match="is no YOLOX network"):
        load_detector(DetectorSettings(weights=str(other)))
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(Path(nano).read_bytes()[:100_000])
    with pytest.raises(WeightsError, match=r"damaged\.onnx"):
        load_detector(DetectorSettings(weights=str(damaged)))


def test_ultralytics_is_offline_whoever_imports_it_first():
    program = (
        "import os; from microg.models.curation.tracking import BotSort; BotSort(); "
        "print(os.environ['YOLO_OFFLINE'], os.environ['YOLO_AUTOINSTALL'])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("YOLO_")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["true", "false"]
