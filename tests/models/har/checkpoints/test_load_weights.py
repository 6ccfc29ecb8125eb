"""Loading weights: every format, the report, and the refusals that would have caught the published runs' defects."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from microg.errors import ConfigError, WeightsError
from microg.models.har.backbones import build
from microg.models.har.backbones.roi_head import BoxClassifier
from microg.models.har.checkpoints import export_pyslowfast, load_weights, open_model, save_weights
from microg.models.har.checkpoints.names import pyslowfast_name
from tests.support.weight_files import hollow, skeleton, slowfast_state, write_caffe2

CLIPS = torch.randn(1, 3, 2, 64, 64, generator=torch.Generator().manual_seed(5))
BOXES = torch.tensor([[0, 5.0, 5.0, 40.0, 60.0]])


def _save(path: Path, content: object) -> str:
    torch.save(content, path)
    return str(path)


def _same(first: BoxClassifier, second: BoxClassifier) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _shaken(name: str = "X3D_S", **options: int) -> BoxClassifier:
    """Return a model of which no tensor is as initialised."""
    model = build(name, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.5)
    return model.eval()


def _refusal(model: BoxClassifier, path: str, **options: object) -> WeightsError:
    with pytest.raises(WeightsError) as caught:
        load_weights(model, path, **options)  # type: ignore[arg-type]
    return caught.value


def _accepted_patterns(error: WeightsError) -> list[str]:
    return re.findall(r"--allow-missing '([^']+)'", str(error.fix))


# Formats


def test_our_own_format_needs_nothing_else_and_keeps_every_bit(tmp_path: Path) -> None:
    model = _shaken(num_classes=7)
    path = str(tmp_path / "best.pt")
    save_weights(model, path, epoch=3, classes=["a", "b"])
    again, metadata = open_model(path)
    assert _same(model, again)
    assert metadata == {"model": "X3D_S", "num_classes": 7, "roi_scale": "published", "epoch": 3, "classes": ["a", "b"]}
    assert not again.training


def test_export_to_pyslowfast_and_back_keeps_every_bit(tmp_path: Path) -> None:
    model, again = _shaken(), build("X3D_S")
    path = str(tmp_path / "exported.pyth")
    export_pyslowfast(model, path)
    report = load_weights(again, path)
    assert (report.layout, report.complete) == ("pyslowfast", True)
    assert _same(model, again)
    export_pyslowfast(again, str(tmp_path / "twice.pyth"))
    once, twice = (torch.load(file, weights_only=True)["model_state"] for file in (path, tmp_path / "twice.pyth"))
    assert list(once) == list(twice)
    assert all(torch.equal(once[name], twice[name]) for name in once)


@pytest.mark.parametrize("name", ["MVIT_B_16x4", "C2D_NLN_8x8_R50"])
def test_a_pyslowfast_checkpoint_fills_any_model(name: str, tmp_path: Path) -> None:
    state = {f"module.{key}": value for key, value in slowfast_state(name).items()}
    content = {"model_state": state, "epoch": 1, "cfg": "A: b", "optimizer_state": {"state": {}}}
    report = load_weights(skeleton(name), _save(tmp_path / "a.pyth", content), require_head=True)
    assert (report.layout, report.complete, report.unexpected) == ("pyslowfast", True, ())


def test_the_legacy_torch_container_is_read(tmp_path: Path) -> None:
    model, again = _shaken(), build("X3D_S")
    torch.save({"model_state": model.state_dict()}, tmp_path / "old.pkl", _use_new_zipfile_serialization=False)
    assert load_weights(again, str(tmp_path / "old.pkl")).complete
    assert _same(model, again)


def test_pytorchvideo_hub_trunks_match_one_to_one(tmp_path: Path) -> None:
    state = {key.removeprefix("model."): value for key, value in hollow("I3D_8x8_R50").items() if "head" not in key}
    state |= {"blocks.6.proj.weight": torch.zeros(400, 2048), "blocks.6.proj.bias": torch.zeros(400)}
    report = load_weights(skeleton("I3D_8x8_R50"), _save(tmp_path / "hub.pyth", {"model_state": state}))
    assert (report.layout, report.not_loaded, report.unexpected, report.head_loaded) == ("pytorchvideo", (), (), False)
    assert "400 classes" in report.head


def test_x3d_of_the_hub_gets_an_identity_for_the_norm_it_lacks(tmp_path: Path) -> None:
    source, model = _shaken(), build("X3D_S").eval()
    shortcut: Any = source.get_submodule("model.blocks.1.res_blocks.0")
    state = {
        key.removeprefix("model."): value
        for key, value in source.state_dict().items()
        if not key.startswith(("detection_head", "model.blocks.1.res_blocks.0.branch1_norm"))
    }
    state["blocks.5.pool.pre_conv.weight"] = torch.zeros(3, 3)
    report = load_weights(model, _save(tmp_path / "x3d.pyth", {"model_state": state}))
    assert {name.rpartition(".")[2] for name in report.filled} == {"weight", "bias", "running_mean", "running_var"}
    assert (report.missing, report.head_unused) == ((), ("blocks.5.pool.pre_conv.weight",))
    shortcut.branch1_norm = None
    with torch.inference_mode():
        torch.testing.assert_close(model.features(CLIPS), source.features(CLIPS))


def test_torchvision_weights_load_by_their_own_names(tmp_path: Path) -> None:
    state = {key.removeprefix("trunk."): value for key, value in hollow("MVITv2_S_16x4").items() if "head" not in key}
    state |= {"head.1.weight": torch.zeros(400, 768), "head.1.bias": torch.zeros(400)}
    report = load_weights(skeleton("MVITv2_S_16x4"), _save(tmp_path / "tv.pth", state))
    assert (report.layout, report.not_loaded, report.unexpected) == ("torchvision", (), ())


def test_a_caffe2_pickle_loads_without_its_optimizer_state_and_with_axes_it_leaves_out(tmp_path: Path) -> None:
    def change(name: str, value: np.ndarray) -> np.ndarray:
        if name.endswith("conv_theta.weight"):
            return np.full(value.shape[:2], 3.0, np.float32)
        return np.full(value.shape, 2.0, np.float32) if "s5.pathway0_res2.branch2.c_bn.running_var" in name else value

    model = build("C2D_NLN_8x8_R50")
    head = {"head.projection.weight": (400, 2048), "head.projection.bias": (400,)}
    report = load_weights(model, write_caffe2(tmp_path / "a.pkl", "C2D_NLN_8x8_R50", head, change))
    assert (report.container, report.not_loaded, report.unexpected) == ("caffe2 pickle", (), ())
    assert "400 classes" in report.head
    state = model.state_dict()
    assert (state["model.blocks.3.res_blocks.1.nln.conv_theta.weight"] == 3).all()
    assert (state["model.blocks.5.res_blocks.2.branch2.norm_c.running_var"] == 2).all()


def test_prefixes_of_wrappers_are_dropped_on_both_sides(tmp_path: Path) -> None:
    model, again = _shaken(), build("X3D_S")
    state = {f"_orig_mod.module.{name}": value for name, value in model.state_dict().items()}
    wrapper = nn.DataParallel(again)
    assert load_weights(wrapper, _save(tmp_path / "wrapped.pt", state)).complete
    assert _same(model, again)


# The report


def test_a_head_of_another_size_stays_as_initialised_and_is_reported(tmp_path: Path) -> None:
    model = build("X3D_S")
    before = model.detection_head.proj.weight.clone()
    path = str(tmp_path / "ava.pt")
    save_weights(_shaken(num_classes=80), path)
    report = load_weights(model, path)
    assert torch.equal(model.detection_head.proj.weight, before)
    assert (report.head_loaded, report.complete, report.not_loaded) == (False, False, ())
    assert "80 classes" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["head_loaded"] is False
    assert "80 classes" in str(_refusal(model, path, require_head=True))
    assert load_weights(model, path, require_head=True, allow_missing=["detection_head.*"]).loaded


def test_tensors_the_model_has_no_place_for_are_listed(tmp_path: Path) -> None:
    state = {**_shaken().state_dict(), "extra.weight": torch.zeros(2)}
    report = load_weights(build("X3D_S"), _save(tmp_path / "a.pt", state))
    assert report.unexpected == ("extra.weight",)
    assert "extra.weight" in str(report)


def test_a_refused_file_leaves_the_model_untouched(tmp_path: Path) -> None:
    model = build("X3D_S")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = _shaken().state_dict()
    state.pop("model.blocks.2.res_blocks.0.branch2.conv_a.weight")
    _refusal(model, _save(tmp_path / "a.pt", state))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_values_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    state = _shaken().state_dict()
    state["model.blocks.0.norm.bias"][3] = float("nan")
    assert "model.blocks.0.norm.bias" in str(_refusal(build("X3D_S"), _save(tmp_path / "a.pt", state)))


def test_weights_of_another_family_are_refused_even_with_everything_allowed(tmp_path: Path) -> None:
    path = _save(tmp_path / "x3d.pt", {"model_state": slowfast_state("MVIT_B_16x4")})
    assert "none of its" in str(_refusal(build("X3D_S"), path, allow_missing=["*"]))


def test_an_unknown_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="layout"):
        load_weights(build("X3D_S"), _save(tmp_path / "a.pt", _shaken().state_dict()), layout="torchvision")


# The published runs' defects: each file is refused, by the tensors the logs name, and the offered pattern accepts it


def _defect(model: BoxClassifier, path: str, expected: Mapping[str, int], **options: object) -> None:
    """Assert that exactly `expected` (PySlowFast ending -> count) would stay as initialised, and how to accept it."""
    error = _refusal(model, path, **options)
    count = sum(expected.values())
    assert f"would leave {count} of " in str(error)
    report = load_weights(model, path, allow_missing=_accepted_patterns(error), **options)  # type: ignore[arg-type]
    left = [pyslowfast_name(name, model.spec) for name in report.not_loaded]
    assert len(left) == count
    for ending, number in expected.items():
        assert sum(ending in name for name in left) == number, ending


def test_c2d_from_a_file_with_temporal_kernels_is_refused(tmp_path: Path) -> None:
    shapes = {
        key: (*value.shape[:2], 3, 1, 1)
        for key, value in slowfast_state("C2D_8x8_R50").items()
        if re.match(r"s[45]\..*branch2\.a\.weight", key)
    }
    path = _save(tmp_path / "c2d.pyth", {"model_state": slowfast_state("C2D_8x8_R50", shapes)})
    _defect(skeleton("C2D_8x8_R50"), path, {"branch2.a.weight": 9})


def test_c2d_nln_from_a_file_without_non_local_weights_is_refused(tmp_path: Path) -> None:
    path = _save(tmp_path / "c2d.pyth", {"model_state": slowfast_state("C2D_8x8_R50")})
    _defect(skeleton("C2D_NLN_8x8_R50"), path, {"_nonlocal": 60})


def test_slowfast_4x16_from_a_file_with_shorter_fusion_kernels_is_refused(tmp_path: Path) -> None:
    shapes = {
        key: (*value.shape[:2], 5, 1, 1)
        for key, value in slowfast_state("SLOWFAST_4x16_R50").items()
        if key.endswith("conv_f2s.weight")
    }
    path = _save(tmp_path / "slowfast.pyth", {"model_state": slowfast_state("SLOWFAST_4x16_R50", shapes)})
    _defect(skeleton("SLOWFAST_4x16_R50"), path, {"_fuse.conv_f2s.weight": 4})


def _hub_mvit() -> dict[str, Tensor]:
    """Return hollow tensors called and laid out as pytorchvideo's own MViT has them: q, k and v apart."""
    state = {}
    for name, value in slowfast_state("MVIT_B_16x4").items():
        if name.startswith("head."):
            continue
        if ".qkv." in name:
            third = value.new_zeros(()).expand(value.shape[0] // 3, *value.shape[1:])
            state |= {name.replace(".qkv.", f".{part}."): third for part in "qkv"}
        elif name.startswith("patch_embed."):
            state[name.replace(".proj.", ".patch_model.")] = value
        else:
            state[f"cls_positional_encoding.{name}" if name.startswith(("cls_", "pos_")) else name] = value
    return state


def test_mvit_of_the_hub_read_by_pyslowfast_names_is_refused_as_the_paper_should_have(tmp_path: Path) -> None:
    path = _save(tmp_path / "MVIT_B_16x4.pyth", {"model_state": _hub_mvit()})
    expected = {"patch_embed.proj": 2, ".qkv.": 32, "cls_token": 1, "pos_embed": 3}
    _defect(skeleton("MVIT_B_16x4"), path, expected, layout="pyslowfast")


def test_mvit_of_the_hub_loads_whole_by_its_own_names(tmp_path: Path) -> None:
    path = _save(tmp_path / "MVIT_B_16x4.pyth", {"model_state": _hub_mvit()})
    report = load_weights(skeleton("MVIT_B_16x4"), path)
    assert (report.layout, report.not_loaded, report.unexpected) == ("pytorchvideo", (), ())
