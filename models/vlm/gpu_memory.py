"""What a model needs of each of its GPUs, worked out from its files and from what it will be asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_GB = 1e9
_VALUE_BYTES = 2
# Tokens of prompts that one pass of the language model reads at most, as vLLM has it on GPUs.
_PASS_TOKENS = 8192
# CUDA's own context, kernels, graphs, and buffers of the libraries that GPUs talk through.
_RUNTIME_GB, _EACH_PEER_GB = 2.0, 0.5
# Values of a token, or of a picture's patch, that are in memory at once inside a block of a transformer: its input, the
# residual, queries, keys, values and the attention's output; and two products of its feed-forward part.
_HIDDEN_COPIES, _INNER_COPIES = 6, 2
_PATCH = 14


@dataclass(frozen=True, kw_only=True)
class GpuMemory:
    """GB (10^9 bytes) of each GPU of one copy, about, with the longest request of a run under way alone.

    Attributes:
        weights: The model's part.
        cache: Keys and values of that request.
        pictures: What the vision encoder makes of its frames.
        language: What one pass of the language model makes.
        runtime: CUDA, and what connects GPUs.
    """

    weights: float
    cache: float
    pictures: float
    language: float
    runtime: float

    @property
    def total(self) -> float:
        """All together: the smallest GPU that will do; what is left of a larger one holds more requests."""
        return sum(vars(self).values())


@dataclass(frozen=True, kw_only=True)
class ModelSizes:
    """Sizes of a model.

    Attributes:
        weights_gb: Of all its weights.
        cache_bytes: Of one token's keys and values, 16 bits each.
        text: Settings of its language model, as in config.json.
        vision: Those of its vision encoder.
    """

    weights_gb: float
    cache_bytes: int
    text: Mapping[str, Any]
    vision: Mapping[str, Any]


def gpu_memory(
    model: ModelSizes,
    tokens: int,
    frames: tuple[int, int, int],
    *,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
) -> GpuMemory:
    """Estimate the memory of each GPU.

    Args:
        model: The model's sizes.
        tokens: Of the longest request, prompt and answer.
        frames: Number, width and height of what it is shown.
        tensor_parallel: GPUs that share each layer.
        pipeline_parallel: Groups of such GPUs that share the layers out.
    """
    gpus = tensor_parallel * pipeline_parallel
    count, width, height = frames
    patch = _size(model.vision, _PATCH, "patch_size", "spatial_patch_size")
    patches = count / _size(model.vision, 1, "temporal_patch_size") * (width / patch) * (height / patch)
    return GpuMemory(
        weights=model.weights_gb / gpus,
        cache=tokens * model.cache_bytes / gpus / _GB,
        pictures=patches * _block_bytes(model.vision) / tensor_parallel / _GB,
        language=min(tokens, _PASS_TOKENS) * _block_bytes(model.text) / tensor_parallel / _GB,
        runtime=_RUNTIME_GB + _EACH_PEER_GB * (gpus > 1),
    )


def _block_bytes(config: Mapping[str, Any]) -> int:
    """Return what one token or patch takes inside a block."""
    hidden = _size(config, 1024, "hidden_size", "embed_dim")
    inner = _size(config, 4 * hidden, "intermediate_size")
    return (_HIDDEN_COPIES * hidden + _INNER_COPIES * inner) * _VALUE_BYTES


def _size(config: Mapping[str, Any], otherwise: int, *names: str) -> int:
    """Return the first of some settings that is a number; InternVL's are pairs."""
    for name in names:
        value = config.get(name)
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, int) and value > 0:
            return value
    return otherwise
