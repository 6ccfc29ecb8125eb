"""Checkpoints of other trainers: whatever is around the weights, the model computes what the plain weights say."""

from __future__ import annotations

import argparse
import collections
import gzip
import io
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor

from microg.errors import WeightsError
from microg.models.har.backbones import build
from microg.models.har.backbones.roi_head import BoxClassifier
from microg.models.har.checkpoints import LoadReport, load_weights
from microg.models.har.checkpoints.names import pyslowfast_name

State = Mapping[str, Tensor]
CLIPS = torch.randn(1, 3, 4, 32, 32, generator=torch.Generator().manual_seed(5))
BOXES = torch.tensor([[0, 5.0, 5.0, 20.0, 30.0]])


def _model(seed: int) -> BoxClassifier:
    chance = torch.Generator().manual_seed(seed)
    model = build("TINY")
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=chance) * 0.2 + 0.05)
    return model.eval()


def _logits(model: BoxClassifier) -> Tensor:
    with torch.inference_mode():
        return model.eval()(CLIPS, BOXES)


RAW, AVERAGED = _model(1), _model(2)
PLAIN = RAW.state_dict()
LOGITS, AVERAGED_LOGITS = _logits(RAW), _logits(AVERAGED)


def _torch(content: object, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def _tar(members: Mapping[str, bytes], mode: Any = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))
    return buffer.getvalue()


def _renamed(change: Callable[[str], str], state: State = PLAIN) -> dict[str, Tensor]:
    return {change(name): value for name, value in state.items()}


def _prefixed(prefix: str, state: State = PLAIN) -> dict[str, Tensor]:
    return _renamed(lambda name: prefix + name, state)


def _of_pyslowfast(name: str) -> str:
    return pyslowfast_name(name, RAW.spec)


def _wrapped_inside(name: str) -> str:
    """Return a name as FullyShardedDataParallel over every other module writes it."""
    first, second, *rest = name.split(".")
    return ".".join(("_fsdp_wrapped_module", first, "_fsdp_wrapped_module", second, "_orig_mod", *rest))


BESIDE = {
    "epoch": np.int64(3),
    "best": np.float64(0.5),
    "curve": np.arange(3.0),
    "args": argparse.Namespace(lr=np.float32(0.1), out=Path("runs"), nested=argparse.Namespace(a=1)),
    "counts": collections.defaultdict(int, {"a": 1}),
    "rng": torch.arange(3),
    "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": np.float64(1)}]},
}
WRAPPINGS: dict[str, bytes] = {
    "safetensors": save_safetensors(dict(PLAIN)),
    "safetensors with a prefix": save_safetensors(_prefixed("net.")),
    "DeepSpeed": _torch({"module": PLAIN, "optimizer": None, "lr_scheduler": {"a": 1}}),
    "timm EMA alone": _torch({"state_dict_ema": PLAIN}),
    "ema": _torch({"ema": {"decay": torch.tensor(0.9), "module": PLAIN}}),
    "model_ema": _torch({"model_ema": PLAIN}),
    "nested model": _torch({"model": {"model": {"state_dict": PLAIN}}}),
    "Lightning model": _torch({"state_dict": _prefixed("model."), "pytorch-lightning_version": "2.1"}),
    "Lightning net": _torch({"state_dict": _prefixed("net."), "hyper_parameters": {"lr": 1.0}}),
    "Lightning and more": _torch({"state_dict": {**_prefixed("net."), "metric.total": torch.ones(2)}}),
    "FSDP": _torch({"model": _renamed(_wrapped_inside)}),
    "FSDP outside": _torch(_prefixed("_fsdp_wrapped_module.")),
    "mmaction backbone": _torch({"meta": {}, "state_dict": _prefixed("backbone.")}),
    "mmaction backbone, head of its own": _torch(
        {"state_dict": _renamed(lambda name: name if "head" in name else f"backbone.{name}")}
    ),
    "DDP in torch.compile": _torch(_prefixed("_orig_mod.module.")),
    "DDP in Lightning": _torch({"state_dict": _prefixed("model.module.")}),
    "checkpointed activations": _torch(_renamed(lambda name: name.replace(".", "._checkpoint_wrapped_module.", 1))),
    "numpy and Namespace": _torch({"model": PLAIN, **BESIDE}),
    "numpy and Namespace, legacy": _torch({"model": PLAIN, **BESIDE}, legacy=True),
    "gzip": gzip.compress(_torch(PLAIN)),
    "tar": _tar({"best.pth": _torch({"state_dict": PLAIN}), "._best.pth": b"\0", "readme.txt": b"hi"}),
    "tar.gz": _tar({"run/best.safetensors": save_safetensors(dict(PLAIN))}, "w:gz"),
    "all at once": gzip.compress(_tar({"a.ckpt": _torch({"state_dict": _prefixed("model.module."), **BESIDE})})),
}


def _load(data: bytes, folder: Path, **options: Any) -> tuple[BoxClassifier, LoadReport]:
    path = folder / "weights.bin"
    path.write_bytes(data)
    model = build("TINY")
    return model, load_weights(model, str(path), require_head=True, **options)


@pytest.mark.parametrize("name", WRAPPINGS)
def test_a_wrapped_checkpoint_gives_the_logits_of_the_plain_one(name: str, tmp_path: Path) -> None:
    model, report = _load(WRAPPINGS[name], tmp_path)
    assert report.complete
    assert torch.equal(_logits(model), LOGITS)
    assert not torch.equal(LOGITS, AVERAGED_LOGITS)
    assert report.other_keys == ()


SIDE_BY_SIDE: dict[str, tuple[object, str, str]] = {
    "timm": ({"state_dict": PLAIN, "state_dict_ema": AVERAGED.state_dict()}, "state_dict", "state_dict_ema"),
    "mmengine": ({"ema_state_dict": AVERAGED.state_dict(), "state_dict": PLAIN}, "state_dict", "ema_state_dict"),
    "nested": ({"ema": {"shadow": AVERAGED.state_dict()}, "model": {"model": PLAIN}}, "model.model", "ema.shadow"),
    "one state": (
        {"state_dict": {**_prefixed("ema.module.", AVERAGED.state_dict()), **_prefixed("model.")}},
        "state_dict",
        "state_dict.ema.module",
    ),
    "at the top": ({**PLAIN, "model_ema": AVERAGED.state_dict()}, "", "model_ema"),
}


@pytest.mark.parametrize("name", SIDE_BY_SIDE)
def test_raw_weights_are_taken_unless_the_key_says_otherwise_and_the_report_names_the_others(
    name: str, tmp_path: Path
) -> None:
    content, raw_key, averaged_key = SIDE_BY_SIDE[name]
    raw, report = _load(_torch(content), tmp_path)
    assert (report.key, report.other_keys) == (raw_key, (averaged_key,))
    assert f"for --weights-key: {averaged_key}" in str(report)
    assert torch.equal(_logits(raw), LOGITS)
    averaged, report = _load(_torch(content), tmp_path, key=averaged_key)
    assert report.key == averaged_key
    assert torch.equal(_logits(averaged), AVERAGED_LOGITS)


def test_a_key_may_be_any_name_in_the_file_and_one_that_is_not_there_is_refused(tmp_path: Path) -> None:
    content = {"student": PLAIN, "teacher": {"weights": AVERAGED.state_dict()}}
    model, _ = _load(_torch(content), tmp_path, key="teacher.weights")
    assert torch.equal(_logits(model), AVERAGED_LOGITS)
    with pytest.raises(WeightsError, match="no named tensors; its keys: student, teacher") as caught:
        _load(_torch(content), tmp_path)
    assert "--weights-key" in str(caught.value.fix)
    with pytest.raises(WeightsError, match="no weights under 'nobody'"):
        _load(_torch({"state_dict": PLAIN}), tmp_path, key="nobody")


def test_names_of_other_formats_are_found_behind_a_trainers_prefix(tmp_path: Path) -> None:
    model, report = _load(_torch({"state_dict": _prefixed("model.", _renamed(_of_pyslowfast))}), tmp_path)
    assert torch.equal(_logits(model), LOGITS)
    assert report.complete


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("wrap", [gzip.compress, lambda data: _tar({"a.pth": data})], ids=["gzip", "tar"])
def test_what_would_run_is_refused_inside_of_anything(wrap: Callable[[bytes], bytes], tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    for beside in (_Trap(trap), argparse.Namespace(a=_Trap(trap)), {"args": [np.float64(1), _Trap(trap)]}):
        with pytest.raises(WeightsError, match=r"refused: it asks for \w+\.mkdir"):
            _load(wrap(_torch({"model": PLAIN, "beside": beside})), tmp_path)
    assert not trap.exists()


def test_what_stands_beside_weights_runs_nothing_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = _torch({"model": PLAIN, **BESIDE})

    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was called")

    monkeypatch.setattr(argparse.Namespace, "__init__", never)
    monkeypatch.setattr(argparse.Namespace, "__setstate__", never, raising=False)
    assert _load(data, tmp_path)[1].complete


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (gzip.compress(b"\0" * (80 << 20)), "out of proportion"),
        (gzip.compress(_torch(PLAIN))[:200], "cannot unpack"),
        (_tar({"a.pth": b"x", "b.pth": b"y"}), "holds 2 files: a.pth, b.pth"),
        (_tar({}), "holds no|holds 0 files|neither a torch file"),
        (_tar({"a.pth": _torch(PLAIN)})[:3000], "damaged|cut off"),
        (save_safetensors(dict(PLAIN))[:-4], "damaged"),
        (b"\x10\0\0\0\0\0\0\0{" + b"x" * 40, "damaged"),
    ],
    ids=["bomb", "cut gzip", "two files", "empty tar", "cut tar", "cut safetensors", "no safetensors"],
)
def test_wrappings_that_are_no_good_are_refused_by_name(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=message):
        _load(data, tmp_path)


def test_a_link_in_a_tar_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.pth").write_bytes(_torch(PLAIN))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        about = tarfile.TarInfo("a.pth")
        about.type, about.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.pth")
        archive.addfile(about)
    with pytest.raises(WeightsError, match="holds 0 files"):
        _load(buffer.getvalue(), tmp_path)
