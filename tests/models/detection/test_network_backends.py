"""Boxes worked out only where something is likely are those of the whole network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ultralytics.nn.tasks import DetectionModel

from microg.models.detection import network_backends
from microg.models.detection.base import DetectorSettings
from microg.models.detection.export import export_onnx, export_split
from microg.models.detection.load import make_engine
from microg.models.detection.network_backends import LazyBoxes, window
from microg.models.detection.yolo import YoloDetector

NETWORKS = {"openvino": network_backends.OpenVinoNetwork, "onnxruntime": network_backends.OnnxRuntimeNetwork}


def save(path: Path, config: str) -> Path:
    """Write a detector of random weights that sees many classes in noise."""
    torch.manual_seed(0)
    model: Any = DetectionModel(config, nc=3, verbose=False)
    for parameter in model.parameters():
        if parameter.ndim == 4:
            torch.nn.init.kaiming_normal_(parameter)
    for branch in model.model[-1].cv3:
        torch.nn.init.zeros_(branch[-1].bias)
    torch.save({"model": model}, path)
    return path


@pytest.fixture(scope="module", params=["yolo11n.yaml", "yolov8n.yaml", "yolo26n.yaml"])
def weights(request: pytest.FixtureRequest, model_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("weights") / request.param.replace(".yaml", ".pt"), request.param)


@pytest.mark.parametrize("backend", NETWORKS)
def test_likely_boxes_and_all_probabilities_are_those_of_the_whole_network(weights: Path, backend: str):
    network = NETWORKS[backend]
    whole, split = network_backends.WholeNetwork(network(export_onnx(weights), 1)), export_split(weights)
    assert split is not None
    branches = [network(branch, 1, of_frames=False) for branch in split.branches]
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 160, 3)).astype(np.uint8)
    images[1, :, :80] = 0
    expected = whole(images)
    best = expected[:, 4:].max(axis=1)
    for floor in (*np.quantile(best, [0, 0.5, 0.9, 0.99]), 1.0):
        found = LazyBoxes(network(split.trunk, 1), branches, float(floor))(images)
        likely = best > floor
        assert found.shape == expected.shape
        assert np.allclose(found[:, 4:], expected[:, 4:], atol=1e-5)
        assert np.allclose(
            found[:, :4].transpose(0, 2, 1)[likely], expected[:, :4].transpose(0, 2, 1)[likely], atol=2e-3
        )
        assert not found[:, :4].transpose(0, 2, 1)[~likely].any()


def test_a_head_of_another_build_runs_whole(tmp_path: Path, model_cache: Path):
    path = save(tmp_path / "other.pt", "yolov8n.yaml")
    checkpoint = torch.load(path, weights_only=False)
    checkpoint["model"].model[-1].cv2[0][1] = torch.nn.Identity()
    torch.save(checkpoint, path)
    assert export_split(path) is None
    assert export_split(path) is None  # which is remembered
    settings = DetectorSettings(backend="onnxruntime", image_size=96)
    engine = make_engine(settings, path)
    assert isinstance(engine, network_backends.WholeNetwork)
    assert len(YoloDetector(settings, engine).detect([np.zeros((96, 96, 3), np.uint8)])) == 1


@given(st.integers(1, 90), st.data())
def test_a_window_holds_all_that_reaches_its_cells_and_has_few_sizes(size: int, data: st.DataObject):
    cells = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1)))
    start, end = window(cells, size)
    assert 0 <= start <= max(cells.min() - 2, 0)
    assert min(cells.max() + 3, size) <= end <= size
    assert (end - start) % 8 == 0 or end - start == size
