"""Every model against the reference's logits, loaded through the public loader from a PySlowFast checkpoint."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
import torch

from microg.models.har.backbones import build
from microg.models.har.checkpoints import export_pyslowfast, load_weights
from tests.support.har_models import clips_of, oracle, oracle_names, pyslowfast_state

# The cheapest cases that tell models apart; `-m slow` runs all.
QUICK = {
    "MVIT_B_16x4": ("rect", "rect_scale32"),
    "MVITv2_S_16x4": ("square_scale32", "rect_relpos"),
    "X3D_S": ("batch", "batch_scale32"),
}


def _check(folder: Path, tmp_path: Path, name: str, chosen: Collection[str] | None) -> None:
    described = oracle(folder, name)
    path = str(tmp_path / "reference.pyth")
    wrapped = {f"module.{key}": value for key, value in pyslowfast_state(described).items()}
    torch.save({"epoch": 3, "model_state": wrapped, "cfg": "NUM_GPUS: 3"}, path)
    model = build(name).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == described["params"]
    assert load_weights(model, path).complete
    cases = [case for case in described["cases"] if chosen is None or case["id"] in chosen]
    assert cases
    for case in cases:
        # Building a second model for the other scale would cost more than running it.
        scale = model.spec.roi_scale("published" if case["spatial_scale_factor"] == 16 else "true")
        model.detection_head.roi_layer.spatial_scale = scale
        with torch.inference_mode():
            logits = model(torch.from_numpy(clips_of(case)), torch.tensor(case["boxes_bxyxy_pixels"]))
        np.testing.assert_allclose(logits, np.array(case["logits"]), atol=1e-4, rtol=1e-5, err_msg=case["id"])
    exported = tmp_path / "exported.pyth"
    export_pyslowfast(model, str(exported))
    again = torch.load(exported, weights_only=True)["model_state"]
    assert {f"module.{key}" for key in again} == set(wrapped)
    assert all(torch.equal(again[key], wrapped[f"module.{key}"]) for key in again)


@pytest.mark.parametrize("name", oracle_names())
def test_logits_equal_the_reference_and_its_checkpoint_round_trips(name: str, oracles: Path, tmp_path: Path) -> None:
    _check(oracles, tmp_path, name, QUICK.get(name, ("batch",)))


@pytest.mark.slow
@pytest.mark.parametrize("name", oracle_names())
def test_logits_equal_the_reference_in_every_case(name: str, oracles: Path, tmp_path: Path) -> None:
    _check(oracles, tmp_path, name, None)
