"""Which tensors of a checkpoint are the weights: trainers keep them under names, raw and averaged ones side by side."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from microg.errors import WeightsError

# In the order in which they are preferred: what was trained comes before its moving average.
_RAW = ("state_dict", "model_state", "model_state_dict", "model", "module", "net", "network", "weights", "params")
_AVERAGED = ("state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "ema", "shadow", "averaged_model")
_DEEPEST = 4
# Wrappers of modules, whose names are in no model: FullyShardedDataParallel, torch.compile, activation checkpointing.
_INNER = re.compile(r"(?<![^.])(?:_fsdp_wrapped_module|_orig_mod|_checkpoint_wrapped_module)\.")
# DistributedDataParallel.
_OUTER = re.compile(r"^(?:module\.)+")
# A module that keeps the average as another one of the same model.
_AVERAGED_PART = re.compile(r"^((?:model_ema|ema_model|ema)(?:\.module)?)\.(?=.)")


@dataclass(frozen=True)
class Chosen:
    """Named tensors, under which key they stood ("" where they are all of the file), and the keys of others there."""

    key: str
    tensors: dict[str, Tensor]
    others: tuple[str, ...]


def choose(content: Mapping[Any, Any], path: str, key: str | None) -> Chosen:
    """Return the tensors under `key`, a name or several with dots; without it the raw ones before averaged ones.

    Names lose what DistributedDataParallel, FullyShardedDataParallel and torch.compile add. Raises `WeightsError` for
    no tensors, and for a key that is not there.
    """
    found = dict(_groups(content, "", 0))
    if key is not None and key not in found:
        found |= dict(_parts(key, _lookup(content, key)))
    if not found:
        keys = ", ".join(str(key) for key in list(content)[:8]) or "none"
        raise WeightsError(f"{path} holds no named tensors; its keys: {keys}", "name one with --weights-key KEY")
    if key is None:
        key = min(found, key=_is_averaged)  # the first of the raw ones
    elif key not in found:
        keys = ", ".join(filter(None, found)) or "none"
        raise WeightsError(f"{path} has no weights under {key!r}", f"keys with weights: {keys}")
    # fewer tensors are no model: states of generators and the like
    others = tuple(name for name in found if name != key and 2 * len(found[name]) >= len(found[key]))
    return Chosen(key, found[key], others)


def _is_averaged(key: str) -> bool:
    return any(part in _AVERAGED for part in key.split("."))


def _groups(node: Mapping[Any, Any], key: str, depth: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield named tensors by key, those under known names first."""
    for name in (*_RAW, *_AVERAGED):
        inner = node.get(name)
        if isinstance(inner, Mapping) and depth < _DEEPEST:
            yield from _groups(inner, f"{key}.{name}".strip("."), depth + 1)
    yield from _parts(key, node)


def _parts(key: str, node: Mapping[Any, Any]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the tensors of a mapping, its averaged ones apart where their names say so."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in node.items():
        if isinstance(value, Tensor):
            plain = _OUTER.sub("", _INNER.sub("", str(name)))
            averaged = _AVERAGED_PART.match(plain)
            part = f"{key}.{averaged[1]}".strip(".") if averaged else key
            parts.setdefault(part, {})[plain[averaged.end() :] if averaged else plain] = value
    yield from parts.items()


def _lookup(node: Any, key: str) -> Mapping[Any, Any]:
    for name in key.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) else {}
