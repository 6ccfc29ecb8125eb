"""Files that are not weights, or want to be more than weights: one clear error each, and nothing runs."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from microg.errors import WeightsError
from microg.models.har.backbones import build
from microg.models.har.checkpoints import load_weights, open_model
from tests.support.weight_files import skeleton


class _Trap:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("kind", ["torch", "torch legacy", "pickle", "caffe2", "pickle protocol 0"])
def test_a_file_that_would_run_code_is_refused_and_does_not_run(kind: str, tmp_path: Path) -> None:
    trap = _Trap(tmp_path / "sprung")
    path = tmp_path / "weights.pkl"
    if kind.startswith("torch"):
        content = {"model_state": {"a": torch.zeros(2)}, "cfg": trap}
        torch.save(content, path, _use_new_zipfile_serialization=kind == "torch")
    elif kind == "caffe2":
        path.write_bytes(pickle.dumps({"blobs": {"conv1_w": np.zeros(2), "pred_w": trap}}, protocol=2))
    else:
        path.write_bytes(pickle.dumps(trap, protocol=0 if kind.endswith("0") else 2))
    with pytest.raises(WeightsError, match=r"refused: it asks for \w+\.mkdir") as caught:
        load_weights(build("TINY"), str(path), allow_missing=["*"])
    assert "tensors only" in str(caught.value.fix)
    assert not trap.path.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html>not found</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"epoch,loss\n1,0.5\n", "neither a torch file nor a caffe2 pickle|no weights file"),
        (pickle.dumps({"weights": [1, 2]}), "without 'blobs'"),
        (pickle.dumps({"blobs": {"lr": np.float32(1)}}, protocol=2), "no arrays"),
    ],
)
def test_a_file_that_holds_no_weights_is_told_apart(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pyth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        load_weights(build("TINY"), str(path))


@pytest.mark.parametrize("container", ["torch", "torch legacy", "caffe2"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_a_cut_off_file_is_refused(container: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / "weights.pyth"
    if container == "caffe2":
        data = pickle.dumps({"blobs": {f"res{i}_0_branch2a_w": np.zeros(500) for i in range(9)}}, protocol=2)
    else:
        torch.save(build("TINY").state_dict(), path, _use_new_zipfile_serialization=container == "torch")
        data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(WeightsError, match=r"cut off|damaged"):
        load_weights(build("TINY"), str(path))


def test_a_zip_that_is_no_torch_file_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    with pytest.raises(WeightsError, match=r"damaged|tensors"):
        load_weights(build("TINY"), str(tmp_path / "arrays.npz"))


@pytest.mark.parametrize("content", [[torch.zeros(3)], {"epoch": 3}, {"model_state": {"a": 1}}])
def test_a_torch_file_without_named_tensors_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match="named tensors"):
        load_weights(build("TINY"), str(tmp_path / "a.pt"))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is not there"):
        load_weights(skeleton("TINY"), str(tmp_path / "none.pyth"))
    with pytest.raises(WeightsError, match="folder"):
        load_weights(skeleton("TINY"), str(tmp_path))


def test_a_foreign_file_does_not_open_without_a_model_name(tmp_path: Path) -> None:
    torch.save(build("TINY").state_dict(), tmp_path / "a.pt")
    with pytest.raises(WeightsError, match="does not say which model"):
        open_model(str(tmp_path / "a.pt"))
