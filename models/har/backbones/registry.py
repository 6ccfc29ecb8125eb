"""The action recognition models by name: the fourteen published configurations, two repaired ones, `TINY`.

Imports no torch: commands list models and read their geometry without paying for it. Builders are import strings,
resolved by `build`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from microg.errors import ConfigError
from microg.models.har.backbones.spec import BackboneSpec, RoiScale
from microg.registry import Registry, load_object

if TYPE_CHECKING:
    from microg.models.har.backbones.roi_head import BoxClassifier

_RESNET = "microg.models.har.backbones.resnet3d:build_resnet"
_SLOWFAST = "microg.models.har.backbones.resnet3d:build_slowfast"
_X3D = "microg.models.har.backbones.x3d:build_x3d"
_MVIT = "microg.models.har.backbones.mvit:build_mvit"
_TINY = "microg.models.har.backbones.tiny:build_tiny"
# Temporal kernels of conv_a by stage; a stage repeats its pattern over its blocks.
_C2D: dict[str, Any] = {"stem": 1, "temporal": ((1,), (1,), (1,), (1,)), "pool": True}
_I3D: dict[str, Any] = {"stem": 5, "temporal": ((3,), (3, 1), (3, 1), (1, 3)), "pool": True}
_SLOW: dict[str, Any] = {"stem": 1, "temporal": ((1,), (1,), (3,), (3,)), "pool": False}
_NONLOCAL = {"nonlocal_after": ((), (1, 3), (1, 3, 5), ())}
_AVA: dict[str, Any] = {"num_classes": 80, "label_space": "ava80"}
_VIT: dict[str, Any] = {"frames": 16, "sampling_rate": 4, "test_short_side": 224, "stride": 32, "builder": _MVIT}
_DEEP = {"depth": 101, "fusion_kernel": 5, "temporal_blocks": 6, "nonlocal_after": (6, 13, 20)}
_R101: dict[str, Any] = {"frames": 32, "sampling_rate": 2, "builder": _SLOWFAST, "options": _DEEP, **_AVA}
_WIDER = {"alpha": 8, "fusion_kernel": 5}


def _sizes(crop: int, smallest: int, largest: int, stride: int = 32) -> dict[str, Any]:
    return {"train_crop": crop, "train_jitter": (smallest, largest), "test_short_side": smallest, "stride": stride}


_SPECS = (
    BackboneSpec("C2D_8x8_R50", "C2D R50 8x8", "c2d", 8, 8, 23_610_482, _RESNET, _C2D),
    BackboneSpec("C2D_NLN_8x8_R50", "C2D NLN R50 8x8", "c2d", 8, 8, 30_968_946, _RESNET, {**_C2D, **_NONLOCAL}),
    BackboneSpec("I3D_8x8_R50", "I3D R50 8x8", "i3d", 8, 8, 27_326_322, _RESNET, _I3D),
    BackboneSpec("I3D_NLN_8x8_R50", "I3D NLN R50 8x8", "i3d", 8, 8, 34_684_786, _RESNET, {**_I3D, **_NONLOCAL}),
    BackboneSpec("SLOWONLY_8x8_R50", "Slow R50 8x8", "slow", 8, 8, 31_736_946, _RESNET, _SLOW),
    BackboneSpec("SLOWONLY_4x16_R50", "Slow R50 4x16", "slow", 4, 16, 31_736_946, _RESNET, _SLOW),
    BackboneSpec("SLOWFAST_8x8_R50", "SlowFast R50 8x8", "slowfast", 8, 8, 33_759_738, _SLOWFAST),
    BackboneSpec("SLOWFAST_4x16_R50", "SlowFast R50 4x16", "slowfast", 4, 16, 33_759_738, _SLOWFAST),
    BackboneSpec("MVIT_B_16x4", "MViTv1-B 16x4", "mvit", params=36_341_522, options={"version": 1}, **_VIT),
    BackboneSpec("MVITv2_S_16x4", "MViTv2-S 16x4", "mvit", params=34_268_594, options={"version": 2}, **_VIT),
    BackboneSpec("X3D_S", "X3D-S 13x6", "x3d", 13, 6, 2_015_828, _X3D, {"depth_factor": 2.2}, **_sizes(160, 182, 228)),
    BackboneSpec("X3D_L", "X3D-L 16x5", "x3d", 16, 5, 4_374_938, _X3D, {"depth_factor": 5.0}, **_sizes(312, 356, 446)),
    BackboneSpec("SLOW_8x8_R50_K400", "Slow R50 8x8, AVA zero-shot", "slow", 8, 8, 31_798_416, _RESNET, _SLOW, **_AVA),
    BackboneSpec(
        "SLOWFAST_32x2_R101_K600", "SlowFast R101 32x2, AVA zero-shot", "slowfast", params=59_342_488, **_R101
    ),
    # What the published SlowFast runs were meant to be: 32 fast frames, and the fusion that their weights have.
    BackboneSpec("SLOWFAST_8x8_R50_32x2", "SlowFast R50 8x8, 32 frames", "slowfast", 32, 2, 33_759_738, _SLOWFAST),
    BackboneSpec(
        "SLOWFAST_4x16_R50_32x2", "SlowFast R50 4x16, 32 frames", "slowfast", 32, 2, 33_673_466, _SLOWFAST, _WIDER
    ),
    BackboneSpec("TINY", "Tiny early-fusion CNN 4x8", "tiny", 4, 8, 335_906, _TINY, **_sizes(160, 160, 176, stride=8)),
)
BACKBONES = Registry("model", {spec.name: spec for spec in _SPECS})
_ZERO_SHOT = "zeroshot_"  # how rows of the published tables call the AVA models


def names() -> tuple[str, ...]:
    """Return the names of all models: the published ones, their repaired variants, then `TINY`."""
    return tuple(BACKBONES)


def backbone(name: str) -> BackboneSpec:
    """Return a model's specification.

    Args:
        name: A name in any case, `ZEROSHOT_...` for the AVA models too, or `module:object` of a `BackboneSpec`.

    Raises:
        ConfigError: There is no such model.
    """
    wanted = name.strip()
    key = wanted.lower()
    for spec in BACKBONES.values():
        if spec.name.lower() == key or (spec.label_space == "ava80" and _ZERO_SHOT + spec.name.lower() == key):
            return spec
    return BACKBONES.find(wanted)


def build(
    name: str,
    *,
    num_classes: int | None = None,
    roi_scale: RoiScale = "published",
    dropout: float = 0.5,
    drop_path: float | None = None,
) -> BoxClassifier:
    """Return an untrained model; `model(clips, boxes)` gives logits (see `microg.models.har.backbones.roi_head`).

    `num_classes` None: as published. `roi_scale`: `published` divides boxes by 16, `true` by the model's stride.
    `dropout` acts before the classifier, `drop_path` (None: as published, 0.2) in MViT's blocks; both in training only.
    Raises `ConfigError`.
    """
    spec = backbone(name)
    classes = spec.num_classes if num_classes is None else num_classes
    if classes < 1:
        raise ConfigError(f"num_classes must be at least 1, not {classes}")
    if not 0 <= dropout < 1:
        raise ConfigError(f"dropout must lie in [0, 1), not {dropout}")
    options = dict(spec.options)
    if drop_path is not None:
        if spec.family != "mvit":
            raise ConfigError(f"drop_path is for MViT models; {spec.name} has none", "leave drop_path out")
        if not 0 <= drop_path < 1:
            raise ConfigError(f"drop_path must lie in [0, 1), not {drop_path}")
        options["drop_path"] = drop_path
    model: BoxClassifier = load_object(spec.builder)(classes, spec.roi_scale(roi_scale), dropout, **options)
    model.spec, model.roi_scale = spec, roi_scale
    return model
