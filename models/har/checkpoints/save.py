"""Writing weights: our own format, and PySlowFast's for use elsewhere."""

from __future__ import annotations

import io
import json
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from microg import storage
from microg.models.har.checkpoints.files import FORMAT
from microg.models.har.checkpoints.load import unwrapped
from microg.models.har.checkpoints.names import pyslowfast_name

_VERSION = 1
_TOKENS = {"cls_token": 2, "pos_embed_class": 2, "pos_embed_spatial": 1, "pos_embed_temporal": 1}


def save_weights(model: nn.Module, path: str, **metadata: Any) -> None:
    """Write a model so that `open_model` needs nothing else: name, classes, RoI scale, weights and `metadata`.

    `metadata` must be plain (what JSON can hold). The file loads with `weights_only`; it is written atomically.
    """
    inner = unwrapped(model)
    described = {"model": inner.spec.name, "num_classes": inner.num_classes, "roi_scale": inner.roi_scale, **metadata}
    described = json.loads(json.dumps(described))
    content = {"format": FORMAT, "version": _VERSION, "metadata": described, "state_dict": _on_cpu(inner)}
    _write(path, content)


def export_pyslowfast(model: nn.Module, path: str) -> None:
    """Write a model as a PySlowFast checkpoint (`model_state`, its names and shapes), bit for bit."""
    inner = unwrapped(model)
    state: OrderedDict[str, Tensor] = OrderedDict()
    for name, value in _on_cpu(inner).items():
        renamed = pyslowfast_name(name, inner.spec)
        state[renamed] = value.reshape((1,) * _TOKENS.get(renamed, 0) + tuple(value.shape))
    _write(path, {"model_state": state})


def _on_cpu(model: nn.Module) -> OrderedDict[str, Tensor]:
    return OrderedDict((name, value.detach().cpu().contiguous()) for name, value in model.state_dict().items())


def _write(path: str, content: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    storage.write_bytes(path, buffer.getvalue())
