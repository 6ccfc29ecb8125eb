"""What the generation run tells an engine must be settings that the engine has."""

from __future__ import annotations

import dataclasses

import pytest

from microg.errors import ConfigError
from microg.models.vlm.cards import card
from microg.models.vlm.engines.vllm import VllmEngine
from microg.pipelines.core import cluster
from microg.pipelines.vlm.generate import engine_settings, with_device
from microg.pipelines.vlm.settings import GenerateSettings


def test_gpus_of_an_actor_reach_vllm_by_the_names_it_has() -> None:
    fields = {each.name for each in dataclasses.fields(VllmEngine)}
    spread = GenerateSettings(tensor_parallel=4)
    shared = GenerateSettings.model_validate({"resources": {"gpus": 0.5}})
    told = [engine_settings(settings, card("qwen2.5-vl-7b"), "cuda") for settings in (spread, shared)]
    assert told == [{"device": "cuda", "tensor_parallel": 4}, {"device": "cuda", "gpu_memory_utilization": 0.45}]
    assert set().union(*told) <= fields


def test_a_copy_over_several_gpus_needs_one_node_that_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "capacity", lambda: cluster.Capacity(({"CPU": 8.0, "GPU": 1.0},) * 4))
    with pytest.raises(ConfigError, match=r"needs 1 CPU, 4 GPUs and 1 CPU, which does not fit.*on 4 nodes") as caught:
        with_device(GenerateSettings(tensor_parallel=4), card("qwen2.5-vl-7b"))
    assert "one node must have 4 GPUs" in str(caught.value.fix)


@pytest.mark.parametrize(("given", "cpus"), [({}, 0.5), ({"cpus": 2.0}, 2.0)])
def test_actors_of_an_api_take_half_a_cpu_unless_it_is_set(given: dict[str, float], cpus: float) -> None:
    filled = GenerateSettings.model_validate({"resources": given}).replaced(model="gpt-4o").replaced(dataset="set")
    assert with_device(filled, card("gpt-4o"))[0].resources.cpus == cpus
