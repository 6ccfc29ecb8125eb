"""Names of tensors: the grammar against the reference's full lists, and its own consistency for every model."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch

from microg.models.har.backbones import build, names
from microg.models.har.checkpoints import caffe2
from microg.models.har.checkpoints.load import is_allowed, patterns_for
from microg.models.har.checkpoints.names import pyslowfast_name
from tests.support.har_models import oracle_names


@pytest.mark.parametrize("name", names())
def test_no_two_tensors_of_a_model_share_a_name_in_pyslowfast(name: str) -> None:
    with torch.device("meta"):
        model = build(name)
    ours = list(model.state_dict())
    theirs = {pyslowfast_name(tensor, model.spec) for tensor in ours}
    assert len(theirs) == len(ours)
    if name != "TINY":  # PySlowFast has no such model
        assert not any(tensor.startswith(("model.", "trunk.", "detection_head.")) for tensor in theirs)


@pytest.mark.parametrize("name", oracle_names())
def test_names_equal_the_references(name: str, oracles: Path) -> None:
    expected = json.loads((oracles / "har_models" / "keymaps" / f"{name}.json").read_text())["map"]
    with torch.device("meta"):
        model = build(name)
    assert {pyslowfast_name(tensor, model.spec): tensor for tensor in model.state_dict()} == expected


def test_every_logged_caffe2_blob_gets_the_name_that_the_reference_gave_it(oracles: Path) -> None:
    with gzip.open(oracles / "har_models" / "caffe2_blob_names.json.gz") as file:
        logged = json.load(file)
    pairs = [(blob, found[0]) for log in logged.values() for blob, found in log["loaded"].items()]
    pairs += [(blob, found["key"]) for log in logged.values() for blob, found in log["shape_mismatch"].items()]
    assert len(pairs) > 2500
    assert [(blob, caffe2.pyslowfast_name(blob)) for blob, _ in pairs] == pairs


@pytest.mark.parametrize(
    ("blob", "name"),
    [
        ("conv1_w", "s1.pathway0_stem.conv.weight"),
        ("t_res_conv1_bn_rm", "s1.pathway1_stem.bn.running_mean"),
        ("res2_0_branch1_bn_s", "s2.pathway0_res0.branch1_bn.weight"),
        ("t_res4_22_branch2c_bn_subsample_w", "s4_fuse.conv_f2s.weight"),
        ("t_pool1_subsample_bn_b", "s1_fuse.bn.bias"),
        ("nonlocal_conv4_20_theta_b", "s4.pathway0_nonlocal20.conv_theta.bias"),
        ("pred_b", "head.projection.bias"),
        ("weight_order", None),
        ("res2_0_branch3_w", None),
    ],
)
def test_caffe2_names_follow_the_grammar(blob: str, name: str | None) -> None:
    assert caffe2.pyslowfast_name(blob) == name


def test_patterns_are_few_and_fit_exactly_the_names_they_are_for() -> None:
    kernels = [f"model.blocks.{block}.res_blocks.{i}.branch2.conv_a.weight" for block in (4, 5) for i in (0, 9)]
    assert patterns_for(kernels) == ["model.blocks.*.res_blocks.*.branch2.conv_a.weight"]
    kinds = [f"{part}.{kind}" for part in "abcdef" for kind in ("weight", "bias")]
    many = [f"trunk.blocks.{block}.attn.{kind}" for block in range(3) for kind in kinds]
    patterns = patterns_for(many)
    assert len(patterns) <= 4
    assert all(is_allowed([name], patterns) for name in many)
    assert not is_allowed(["trunk.conv_proj.weight"], patterns)
