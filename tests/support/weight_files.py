"""Weight files of big models that cost next to nothing: tensors of the right shape without values of their own."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from microg.models.har.backbones import backbone, build
from microg.models.har.backbones.roi_head import BoxClassifier
from microg.models.har.checkpoints.names import pyslowfast_name

_TOKENS = {"cls_token": 2, "pos_embed_class": 2, "pos_embed_spatial": 1, "pos_embed_temporal": 1}


def skeleton(name: str) -> BoxClassifier:
    """Return a model without storage: loading into it checks names and shapes only."""
    with torch.device("meta"):
        return build(name)


@cache
def hollow(name: str) -> dict[str, Tensor]:
    """Return a state of our names; each tensor is one zero spread over its shape, and saved as one zero."""
    return {
        key: torch.zeros((), dtype=value.dtype).expand(value.shape)
        for key, value in skeleton(name).state_dict().items()
    }


def slowfast_state(name: str, shapes: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, Tensor]:
    """Return the hollow state under PySlowFast names, with the leading ones that it keeps on tokens.

    `shapes` replaces shapes by name.
    """
    state = {}
    for key, value in hollow(name).items():
        renamed = pyslowfast_name(key, backbone(name))
        value = value[(None,) * _TOKENS.get(renamed, 0)]
        state[renamed] = value.new_zeros(()).expand((shapes or {}).get(renamed, tuple(value.shape)))
    return state


def blob_name(name: str) -> str:
    """Return what caffe2 calls a PySlowFast tensor (written apart from the grammar under test)."""
    head, _, kind = name.rpartition(".")
    suffix = {"weight": "w", "bias": "b", "running_mean": "rm", "running_var": "riv"}[kind]
    if head == "head.projection":
        return f"pred_{suffix}"
    norm = head.endswith("bn")
    suffix = "s" if norm and suffix == "w" else suffix
    stage = head[1]
    if "_fuse." in head:
        depth = {"2": 2, "3": 3, "4": 5}.get(stage)
        start = "t_pool1" if depth is None else f"t_res{stage}_{depth}_branch2c_bn"
        return f"{start}_subsample{'_bn' if norm else ''}_{suffix}"
    prefix = "t_" if "pathway1" in head else ""
    if "_stem." in head:
        return f"{prefix}{'res_conv1_bn' if norm else 'conv1'}_{suffix}"
    module, _, part = head.split("pathway")[1][2:].partition(".")
    if module.startswith("nonlocal"):
        return f"{prefix}nonlocal_conv{stage}_{module[8:]}_{part.removeprefix('conv_')}_{suffix}"
    branch = part.replace("branch2.", "branch2")
    return f"{prefix}res{stage}_{module[3:]}_{branch}_{suffix}"


def write_caffe2(
    path: Path,
    name: str,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    change: Callable[[str, np.ndarray], np.ndarray] = lambda name, value: value,
) -> str:
    """Write the state of a model as a caffe2 pickle with optimizer state.

    `shapes` and `change` alter tensors by their PySlowFast names.
    """
    blobs: dict[str, object] = {"lr": np.float32(0.1), "model_iter": np.array([7.0], np.float32)}
    for key, value in slowfast_state(name).items():
        if key.endswith("num_batches_tracked"):
            continue
        shape = (shapes or {}).get(key, tuple(value.shape))
        blobs[blob_name(key)] = change(key, np.zeros(shape, np.float32))
    blobs["conv1_w_momentum"] = np.zeros((2, 2), np.float32)
    path.write_bytes(pickle.dumps({"blobs": blobs, "cfg": "a: 1"}, protocol=2))
    return str(path)
