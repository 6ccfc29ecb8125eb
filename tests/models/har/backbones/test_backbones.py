"""What every model does beyond its numbers: no boxes, training, other frame counts, pickling."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.video.mvit import PositionalEncoding
from torchvision.ops import StochasticDepth

from microg.models.har.backbones import backbone, build
from microg.models.har.backbones.mvit import position_bias, with_positions
from microg.models.har.backbones.resnet3d import slow_frame_indices

# One model of each family, the smallest clip each can take.
FAMILIES = [
    ("TINY", 4),
    ("X3D_S", 2),
    ("MVITv2_S_16x4", 2),
    pytest.param("SLOWFAST_4x16_R50", 4, marks=pytest.mark.slow),
    pytest.param("C2D_NLN_8x8_R50", 2, marks=pytest.mark.slow),
    pytest.param("MVIT_B_16x4", 2, marks=pytest.mark.slow),
]
BOXES = torch.tensor([[0, 2.0, 4.0, 40.0, 50.0], [1, 0.0, 0.0, 64.0, 64.0], [0, 10.0, 10.0, 30.0, 20.0]])


def _clips(frames: int, size: int = 64) -> torch.Tensor:
    return torch.randn(2, 3, frames, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "frames"), FAMILIES)
def test_a_step_without_boxes_gives_every_parameter_a_gradient(name: str, frames: int) -> None:
    model = build(name).train()
    logits = model(_clips(frames, 32), torch.zeros(0, 5))
    assert logits.shape == (0, 50)
    logits.sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert not parameter.grad.any(), parameter_name


def test_a_step_with_boxes_moves_every_parameter_of_the_head_and_stem() -> None:
    model: Any = build("TINY").train()
    model(_clips(4), BOXES).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.detection_head.proj.weight.grad.any()
    assert next(model.model.parameters()).grad.any()


def test_each_box_is_scored_on_its_own_clip_whatever_the_order() -> None:
    model = build("TINY").eval()
    clips = _clips(8)
    with torch.inference_mode():
        together = model(clips, BOXES)
        turned = model(clips.flip(0), torch.cat((1 - BOXES[:, :1], BOXES[:, 1:]), dim=1))
        alone = model(clips[1:], BOXES[1:2] - torch.tensor([1.0, 0, 0, 0, 0]))
    torch.testing.assert_close(together, turned)
    torch.testing.assert_close(together[1:2], alone)
    assert not torch.allclose(together[0], together[2], atol=1e-6)


def test_the_two_roi_scales_differ_exactly_where_the_stride_is_not_16() -> None:
    for name, differs in (("X3D_S", True), ("TINY", backbone("TINY").stride != 16), ("I3D_8x8_R50", False)):
        with torch.device("meta"):
            scales = {
                kind: build(name, roi_scale=kind).detection_head.roi_layer.spatial_scale
                for kind in ("published", "true")
            }
        assert scales["published"] == 1 / 16
        assert (scales["true"] != 1 / 16) is differs
        assert scales["true"] == 1 / backbone(name).stride


def test_the_declared_stride_is_that_of_the_features() -> None:
    for name in ("TINY", "X3D_S"):
        spec = backbone(name)
        with torch.inference_mode():
            features = build(name).eval().features(_clips(4, 128))
        assert features.shape[-2:] == (128 // spec.stride, 128 // spec.stride)


@pytest.mark.parametrize(("frames", "expected"), [(4, [0]), (8, [0, 7]), (32, [0, 4, 8, 13, 17, 22, 26, 31])])
def test_the_slow_pathway_takes_the_references_frames(frames: int, expected: list[int]) -> None:
    assert slow_frame_indices(frames).tolist() == expected


def test_slowfast_takes_published_and_intended_frame_counts_and_refuses_others() -> None:
    model = build("SLOWFAST_8x8_R50").eval()
    with torch.inference_mode():
        for frames in (4, 8, 32):
            clips = _clips(frames, 32)
            assert model(clips, BOXES).shape == (3, 50)
            assert torch.equal(clips, _clips(frames, 32))  # the caller's clip is left alone
        with pytest.raises(ValueError, match="multiple of 4"):
            model(_clips(6, 32), BOXES)


@pytest.mark.parametrize("name", ["MVIT_B_16x4", "MVITv2_S_16x4"])
def test_mvit_layer_norms_have_epsilon_1e_6(name: str) -> None:
    with torch.device("meta"):
        norms = [module for module in build(name).modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) > 60
    assert {norm.eps for norm in norms} == {1e-6}


def test_mvit_drop_path_grows_to_the_given_rate_and_is_the_published_one_by_default() -> None:
    with torch.device("meta"):
        given, usual = build("MVITv2_S_16x4", drop_path=0.3), build("MVITv2_S_16x4")
    rates = [module.p for module in given.modules() if isinstance(module, StochasticDepth)]
    published = [module.p for module in usual.modules() if isinstance(module, StochasticDepth)]
    assert rates == pytest.approx([0.3 * block / 15 for block in range(16)])
    assert max(published) == 0.2


def test_position_embeddings_of_the_trained_grid_are_the_sum_of_space_and_time() -> None:
    encoding: Any = PositionalEncoding(96, (56, 56), 8, rel_pos_embed=False)
    for parameter in encoding.parameters():
        nn.init.normal_(parameter)
    grid = (8, 56, 56)
    tokens = with_positions(encoding, torch.zeros(1, 8 * 56 * 56, 96), grid)
    torch.testing.assert_close(tokens[0, 0], encoding.class_token + encoding.class_pos)
    torch.testing.assert_close(tokens[0, 1 + 3 * 56 * 56 + 77], encoding.temporal_pos[3] + encoding.spatial_pos[77])


def test_position_bias_adds_up_the_distances_of_each_pair() -> None:
    generator = torch.Generator().manual_seed(3)
    tables = tuple(torch.randn(2 * size - 1, 5, generator=generator) for size in (2, 3, 4))
    query = torch.randn(1, 1, 24, 5, generator=generator)
    bias = position_bias(query, (2, 3, 4), (2, 3, 4), tables)  # type: ignore[arg-type]
    for first, second in ((0, 0), (5, 17), (23, 2)):
        (t, h, w), (u, i, j) = (((n // 12), (n // 4) % 3, n % 4) for n in (first, second))
        embedding = tables[0][t - u + 1] + tables[1][h - i + 2] + tables[2][w - j + 3]
        torch.testing.assert_close(bias[0, 0, first, second], query[0, 0, first] @ embedding)


def test_a_model_survives_pickling_as_ray_does_it() -> None:
    model = build("TINY").eval()
    again = pickle.loads(pickle.dumps(model))  # noqa: S301
    with torch.inference_mode():
        assert torch.equal(again(_clips(4), BOXES), model(_clips(4), BOXES))
    assert again.spec == model.spec


@pytest.mark.parametrize(
    ("clips", "boxes"), [((2, 4, 4, 64, 64), (1, 5)), ((3, 4, 64, 64), (1, 5)), ((1, 3, 4, 64, 64), (1, 4))]
)
def test_wrong_shapes_are_refused_by_name(clips: tuple[int, ...], boxes: tuple[int, ...]) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=r"must be \("):
        build("TINY")(torch.zeros(clips), torch.zeros(boxes))
