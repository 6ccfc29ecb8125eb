"""How tensors are called: our names (pytorchvideo's and torchvision's) and those of the formats users bring."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from microg.models.har.backbones.spec import BackboneSpec
from microg.models.har.checkpoints import caffe2

Rename = Callable[[str], str | None]
Rules = tuple[tuple[re.Pattern[str], str], ...]


def _rules(*pairs: tuple[str, str]) -> Rules:
    return tuple((re.compile(pattern), replacement) for pattern, replacement in pairs)


_MVIT = _rules(
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^pos_encoding\.class_token$", "cls_token"),
    (r"^pos_encoding\.(\w+)_pos$", r"pos_embed_\1"),
    (r"\.attn\.project\.0\.", ".attn.proj."),
    (r"\.attn\.pool_(\w)\.pool\.", r".attn.pool_\1."),
    (r"\.attn\.pool_(\w)\.norm_act\.0\.", r".attn.norm_\1."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.3\.", ".mlp.fc2."),
    (r"^(blocks\.\d+)\.project\.", r"\1.proj."),
)
_FUSION = _rules((r"^multipathway_fusion\.conv_fast_to_slow\.", "conv_f2s."), (r"^multipathway_fusion\.norm\.", "bn."))
_STEM = _rules((r"^conv\.conv_xy\.", "conv."), (r"^conv\.conv_t\.", "conv_xy."), (r"^norm\.", "bn."))
_RESIDUAL = _rules(
    (r"^branch1_conv\.", "branch1."),
    (r"^branch1_norm\.", "branch1_bn."),
    (r"^branch2\.norm_b\.0\.", "branch2.b_bn."),
    (r"^branch2\.norm_b\.1\.block\.0\.", "branch2.se.fc1."),
    (r"^branch2\.norm_b\.1\.block\.2\.", "branch2.se.fc2."),
    (r"^branch2\.conv_(\w)\.", r"branch2.\1."),
    (r"^branch2\.norm_(\w)\.", r"branch2.\1_bn."),
)
_NONLOCAL = _rules((r"^norm\.", "bn."))
_CONV = re.compile(r"model\.blocks\.(?P<block>\d+)\.(multipathway_blocks\.(?P<pathway>\d+)\.)?(?P<rest>.*)")
_BLOCK = re.compile(r"res_blocks\.(?P<index>\d+)\.(?P<kind>res\.|nln\.)?(?P<rest>.*)")
# pytorchvideo's own MViT, as its hub ships it, to PySlowFast names.
_HUB_MVIT = _rules(
    (r"^patch_embed\.patch_model\.", "patch_embed.proj."),
    (r"^cls_positional_encoding\.", ""),
    (r"^norm_embed\.", "norm."),
)
_HEAD = re.compile(r"(head|detection_head)\.|pred_|blocks\.\d+\.(proj|pool)\.")
# What Lightning, mmaction and other trainers call the module that holds a model.
_TRAINER = re.compile(r"(?:(?:module|model|net|network|backbone|encoder|video_model)\.)+")
_SEPARATE = re.compile(r"(?P<attention>.*\.attn)\.q\.(?P<kind>weight|bias)")


def _apply(rules: Rules, name: str) -> str:
    for pattern, replacement in rules:
        name, count = pattern.subn(replacement, name)
        if count:
            break
    return name


def pyslowfast_name(name: str, spec: BackboneSpec) -> str:
    """Return what PySlowFast calls the tensor `name` of a model of ours."""
    if name.startswith("detection_head.proj."):
        return name.replace("detection_head.proj.", "head.projection.")
    if name.startswith("trunk."):
        return _apply(_MVIT, name.removeprefix("trunk."))
    conv = _CONV.fullmatch(name)
    if conv is None:
        return name
    block, pathway, rest = int(conv["block"]), conv["pathway"] or "0", conv["rest"]
    # Where time is pooled after res2, the pooling is a block of its own: later blocks count one more.
    stage = block if block >= 3 and spec.options.get("pool") else block + 1
    if rest.startswith("multipathway_fusion."):
        return f"s{stage}_fuse.{_apply(_FUSION, rest)}"
    inner = _BLOCK.fullmatch(rest)
    if inner is None:
        return f"s{stage}.pathway{pathway}_stem.{_apply(_STEM, rest)}"
    if inner["kind"] == "nln.":
        return f"s{stage}.pathway{pathway}_nonlocal{inner['index']}.{_apply(_NONLOCAL, inner['rest'])}"
    return f"s{stage}.pathway{pathway}_res{inner['index']}.{_apply(_RESIDUAL, inner['rest'])}"


def is_head(name: str) -> bool:
    """Tell whether a file's tensor belongs to a classification head, of whatever format."""
    return _HEAD.match(name) is not None


def layouts(names: Iterable[str], spec: BackboneSpec) -> dict[str, Rename]:
    """Return for each naming of torch files how it calls our tensors: file name -> our name (or one we do not have)."""
    ours = {pyslowfast_name(name, spec): name for name in names}

    def hub(name: str) -> str:
        head = re.fullmatch(r"blocks\.\d+\.proj\.(weight|bias)", name)
        return f"detection_head.proj.{head[1]}" if head else f"model.{name}"

    def torchvision(name: str) -> str:
        return re.sub(r"^head\.1\.", "detection_head.proj.", name) if name.startswith("head.") else f"trunk.{name}"

    def hub_mvit(name: str) -> str | None:
        return ours.get(re.sub(r"^head\.proj\.", "head.projection.", _apply(_HUB_MVIT, name)))

    found: dict[str, Rename] = {"microg": lambda name: name, "pyslowfast": ours.get}
    if spec.family == "mvit":
        return {**found, "torchvision": torchvision, "pytorchvideo": hub_mvit}
    return {**found, "pytorchvideo": hub}


def outer_prefixes(names: Iterable[str]) -> list[str]:
    """Return what trainers may have put before the names of a model, nothing first: a module's place in another one.

    >>> outer_prefixes(["net.backbone.conv.weight", "net.head.weight"])
    ['', 'net.', 'net.backbone.']
    """
    found = {""}
    for whole in filter(None, map(_TRAINER.match, names)):
        name = whole.string
        found.update(name[: place.end()] for place in re.finditer(r"\.", whole[0]))
    return sorted(found, key=lambda prefix: (prefix.count("."), prefix))


def without_prefix(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return tensors under their names without `prefix`; what does not begin with it keeps its name."""
    return {name.removeprefix(prefix): value for name, value in tensors.items()}


def caffe2_layout(names: Iterable[str], spec: BackboneSpec) -> Rename:
    """Return how caffe2 blobs call our tensors."""
    ours = {pyslowfast_name(name, spec): name for name in names}
    return lambda blob: ours.get(caffe2.pyslowfast_name(blob) or "")


def join_separate_qkv(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return `tensors` with the q, k and v projections that pytorchvideo's MViT keeps apart joined as one `qkv`."""
    import torch

    joined = dict(tensors)
    for name in tensors:
        found = _SEPARATE.fullmatch(name)
        parts = [f"{found['attention']}.{part}.{found['kind']}" for part in "qkv"] if found else []
        if found and all(part in tensors for part in parts):
            values = [joined.pop(part) for part in parts]
            joined[f"{found['attention']}.qkv.{found['kind']}"] = torch.cat(values)
    return joined
