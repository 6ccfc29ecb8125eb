"""Checkpoints are data: nothing in them is executed, nothing is downloaded, and what would give garbage is refused."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from microg.errors import WeightsError
from microg.models.detection import export
from microg.models.detection.export import export_onnx, export_split
from microg.models.detection.ultralytics_model import load_model


class Attack:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def save(path: Path, content: Any, *, kind: str = "zip") -> Path:
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    return path


def network(kind: str = "DetectionModel", config: str = "yolov8n.yaml") -> Any:
    from ultralytics.nn import tasks

    return getattr(tasks, kind)(config, verbose=False)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("place", ["model", "beside"])
def test_code_in_a_checkpoint_is_not_executed(tmp_path: Path, kind: str, place: str):
    marker = tmp_path / "attacked"
    attack = Attack(marker)
    content = {"model": attack} if place == "model" else {"model": torch.nn.Identity(), "train_args": attack}
    path = save(tmp_path / "evil.pt", content, kind=kind)
    with pytest.raises(WeightsError, match=r"evil\.pt is not a usable ultralytics checkpoint"):
        load_model(path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(attack))  # noqa: S301  (proves that the attack works where it is let)
    assert marker.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"this is no checkpoint", b"PK\x03\x04 truncated", b"\x80\x02K\x01."],
    ids=["empty", "text", "zip", "int"],
)
def test_a_file_that_is_no_checkpoint_is_refused_by_its_name(tmp_path: Path, content: bytes):
    path = tmp_path / "weights with space.pt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"weights with space\.pt is not a usable") as caught:
        load_model(path)
    assert "microg-weights" not in str(caught.value)


def test_a_checkpoint_of_another_kind_of_file_is_refused(tmp_path: Path):
    with pytest.raises(WeightsError, match="not a usable"):
        load_model(save(tmp_path / "state.pt", {"state_dict": {"weight": torch.zeros(2)}}))
    with pytest.raises(WeightsError, match="holds a Linear, not a DetectionModel"):
        load_model(save(tmp_path / "linear.pt", {"model": torch.nn.Linear(2, 2)}))


def test_a_segmentation_model_is_refused(tmp_path: Path):
    path = save(tmp_path / "seg.pt", {"model": network("SegmentationModel", "yolov8n-seg.yaml")})
    with pytest.raises(WeightsError, match="holds a SegmentationModel"):
        load_model(path)


def test_a_model_whose_first_class_is_no_person_is_refused(tmp_path: Path):
    model = network()
    model.names = {0: "Accordion", 1: "Person"}
    with pytest.raises(WeightsError, match=r"class 0 of oiv7\.pt is 'accordion', not a person"):
        load_model(save(tmp_path / "oiv7.pt", {"model": model}))
    model.names = {0: "astronaut"}
    load_model(save(tmp_path / "one.pt", {"model": model}))


def test_a_model_of_a_larger_stride_is_refused(tmp_path: Path):
    with pytest.raises(WeightsError, match="stride of 64"):
        load_model(save(tmp_path / "p6.pt", {"model": network(config="yolov8n-p6.yaml")}))


def test_weights_with_an_outdated_name_are_loaded_and_not_replaced(tmp_path: Path):
    # ultralytics takes yolov5n.pt for a request to download yolov5nu.pt.
    model = load_model(save(tmp_path / "yolov5n.pt", {"model": network(config="yolov5n.yaml")}))
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert list(tmp_path.iterdir()) == [tmp_path / "yolov5n.pt"]


def test_an_end_to_end_model_gives_candidates_like_any_other(tmp_path: Path):
    model = network(config="yolo26n.yaml")
    model.model[-1].end2end = True
    loaded = load_model(save(tmp_path / "yolo26n.pt", {"model": model}))
    with torch.inference_mode():
        output = loaded(torch.zeros(1, 3, 64, 96))
    assert output[0].shape == (1, 84, 64 * 96 // 64 + 64 * 96 // 256 + 64 * 96 // 1024)


def test_a_torch_that_cannot_load_safely_is_refused(person_weights: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(torch.serialization, "get_unsafe_globals_in_checkpoint")
    with pytest.raises(WeightsError, match="cannot load checkpoints safely"):
        load_model(person_weights)


def test_a_model_is_exported_once_and_leaves_no_half_files(person_weights: Path, model_cache: Path, monkeypatch):
    whole, split = export_onnx(person_weights), export_split(person_weights)
    assert model_cache in whole.parents
    monkeypatch.setattr(export, "load_model", lambda path: pytest.fail("loaded again"))
    assert (export_onnx(person_weights), export_split(person_weights)) == (whole, split)
    assert not list((model_cache / "microg" / "onnx").glob(".tmp*"))


@pytest.mark.parametrize("make", [export_onnx, export_split])
def test_a_failed_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Any]):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = save(tmp_path / "bad.pt", {"model": network()})

    def fail(*arguments: Any, **options: Any) -> None:
        Path(arguments[2]).write_bytes(b"half")
        raise RuntimeError("no space")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(RuntimeError, match="no space"):
        make(path)
    assert not list((tmp_path / "cache" / "microg" / "onnx").iterdir())
