"""The list of models and what building one promises."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from microg.errors import ConfigError
from microg.metrics.published import har_row, har_rows
from microg.models.har.backbones import backbone, build, names


def test_every_published_row_has_its_model_with_title_labels_and_size() -> None:
    for row in map(har_row, har_rows()):
        spec = backbone(row.name)
        assert (spec.title, spec.label_space, spec.params) == (row.title, row.label_space, row.params)
    assert len(names()) == len(har_rows()) + 3  # two repaired ones, and TINY


def test_names_are_found_in_any_case() -> None:
    assert backbone("mvitV2_s_16X4").name == "MVITv2_S_16x4"
    assert backbone("zeroshot_slow_8x8_r50_k400").name == "SLOW_8x8_R50_K400"


@pytest.mark.parametrize("name", ["SLOWFAST_8x8", "zeroshot_x3d_s", ""])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=r"SLOWFAST_8x8_R50, .*TINY"):
        backbone(name)


def test_listing_models_imports_no_torch() -> None:
    code = "import sys; from microg.models.har.backbones import names; names(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", names())
def test_a_model_has_exactly_the_published_number_of_parameters(name: str) -> None:
    with torch.device("meta"):
        model = build(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == model.spec.params


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("X3D_S", {"drop_path": 0.2}, "MViT"),
        ("MVIT_B_16x4", {"drop_path": 1.0}, "drop_path"),
        ("TINY", {"num_classes": 0}, "num_classes"),
        ("TINY", {"dropout": 1.0}, "dropout"),
        ("TINY", {"roi_scale": "half"}, "roi_scale"),
    ],
)
def test_a_bad_option_is_refused_by_name(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(name, **options)
