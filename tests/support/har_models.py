"""Deterministic weights and clips of the model oracles (rule fill-v1), and oracle cases."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch


def noise(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return float64 values of mean 0 and variance 1 that depend on the name only."""
    uniform = np.random.RandomState(zlib.crc32(name.encode())).random_sample(shape)
    return (uniform - 0.5) * np.sqrt(12)


def filled(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the weights that rule fill-v1 gives a tensor of this PySlowFast name."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    value, last = noise(name, shape), name.rsplit(".", 1)[-1]
    if last == "running_mean":
        value = 0.1 * value
    elif last == "running_var":
        value = 0.9 + 0.1 * value * value
    elif last == "weight":
        value = value / np.sqrt(np.prod(shape[1:])) if len(shape) >= 2 else 1 + 0.1 * value
    else:
        value = value * (0.1 if last == "bias" else 0.5)
    return torch.from_numpy(np.asarray(value, np.float32))


def oracle_names() -> list[str]:
    """Return the models that oracle files are known for; the files themselves may be absent."""
    return [
        "C2D_8x8_R50",
        "I3D_8x8_R50",
        "I3D_NLN_8x8_R50",
        "SLOWONLY_8x8_R50",
        "SLOW_8x8_R50_K400",
        "SLOWFAST_8x8_R50",
        "MVIT_B_16x4",
        "MVITv2_S_16x4",
        "X3D_S",
    ]


def oracle(oracles: Path, name: str) -> dict[str, Any]:
    """Return an oracle file of models."""
    return json.loads((oracles / "har_models" / "models" / f"{name}.json").read_text())


def pyslowfast_state(described: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the state of rule fill-v1 under PySlowFast names."""
    return {name: filled(name, tuple(shape)) for name, shape in described["state_dict"].items()}


def clips_of(case: dict[str, Any]) -> np.ndarray:
    """Return the input clips of a case."""
    shape = (1, *case["input"]["shape"][1:])
    return np.concatenate([noise(name, shape) for name in case["input"]["names"]]).astype(np.float32)
