"""Memory of a model's GPUs, worked out from its files: every part grows with what it depends on."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from microg.models.vlm.gpu_memory import GpuMemory, ModelSizes, gpu_memory

# Qwen2.5-VL-7B: 28 layers with 4 heads of 128 for keys and values.
QWEN = ModelSizes(
    weights_gb=16.6,
    cache_bytes=2 * 28 * 4 * 128 * 2,
    text={"hidden_size": 3584, "intermediate_size": 18944},
    vision={"hidden_size": 1280, "intermediate_size": 3420, "patch_size": 14, "temporal_patch_size": 2},
)


def needs(tokens: int = 4000, frames: int = 9, **place: int) -> GpuMemory:
    return gpu_memory(QWEN, tokens, (frames, 854, 480), **place)


def test_weights_and_cache_are_the_checkpoints_own_sizes() -> None:
    memory = needs()
    assert memory.weights == QWEN.weights_gb
    assert memory.cache == pytest.approx(4000 * QWEN.cache_bytes / 1e9)
    assert memory.total == pytest.approx(sum(asdict(memory).values()))
    assert 18 < memory.total < 24  # the model answers about such clips on a GPU of 24 GB


def test_a_longer_request_and_more_frames_take_more() -> None:
    assert needs(tokens=8000).cache == pytest.approx(2 * needs().cache)
    assert needs(frames=90).pictures == pytest.approx(10 * needs().pictures)


def test_gpus_of_one_copy_share_what_can_be_shared() -> None:
    alone, layers, groups = needs(), needs(tensor_parallel=2), needs(pipeline_parallel=2)
    for shared in (layers, groups):
        assert shared.weights == alone.weights / 2
        assert shared.cache == alone.cache / 2
        assert shared.runtime > alone.runtime
    assert layers.pictures == alone.pictures / 2
    assert groups.pictures == alone.pictures


def test_a_config_that_says_little_still_gives_an_estimate() -> None:
    sizes: dict[str, Any] = {"weights_gb": 1.0, "cache_bytes": 1, "text": {}}
    assert gpu_memory(ModelSizes(**sizes, vision={}), 100, (0, 0, 0)).pictures == 0
    models = [ModelSizes(**sizes, vision={"patch_size": patch}) for patch in ([28, 28], 28)]
    pair, whole = (gpu_memory(model, 1, (9, 854, 480)) for model in models)
    assert pair == whole
