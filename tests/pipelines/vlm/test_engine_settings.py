"""What the generation run tells an engine must be settings that the engine has."""

from __future__ import annotations

import dataclasses

import pytest

from microg.errors import ConfigError
from microg.models.vlm.cards import card
from microg.models.vlm.engines.vllm import VllmEngine
from microg.pipelines.core import cluster
from microg.pipelines.vlm.generate import sized_pipeline, with_device
from microg.pipelines.vlm.settings import GenerateSettings, engine_settings, placement

QWEN = card("qwen2.5-vl-7b")


def test_gpus_of_an_actor_reach_vllm_by_the_names_it_has() -> None:
    fields = {each.name for each in dataclasses.fields(VllmEngine)}
    spread = GenerateSettings(tensor_parallel=4, pipeline_parallel=2)
    shared = GenerateSettings.model_validate({"resources": {"gpus": 0.5}})
    nodes = engine_settings(spread, QWEN, placement(spread, "cuda", over_nodes=True))
    assert nodes == {"device": "cuda", "tensor_parallel": 4, "pipeline_parallel": 2, "over_nodes": True}
    half = engine_settings(shared, QWEN, placement(shared, "cuda"))
    assert half == {"device": "cuda", "gpu_memory_utilization": 0.45}
    assert {*nodes, *half} <= fields


@pytest.mark.parametrize(
    ("node", "count", "over_nodes"), [({"CPU": 8.0, "GPU": 1.0}, 4, True), ({"CPU": 8.0, "GPU": 4.0}, 2, False)]
)
def test_a_copy_over_several_gpus_is_spread_over_nodes_only_where_no_node_has_them(
    monkeypatch: pytest.MonkeyPatch, node: dict[str, float], count: int, over_nodes: bool
) -> None:
    monkeypatch.setattr(cluster, "capacity", lambda: cluster.Capacity((node,) * count))
    settings, place = with_device(GenerateSettings(tensor_parallel=2, pipeline_parallel=2), QWEN)
    assert (settings.resources.gpus, place.device, place.over_nodes) == (4, "cuda", over_nodes)
    assert sized_pipeline(settings, QWEN, place).stages[-1].parts == (4 if over_nodes else 1)


def test_a_copy_over_more_gpus_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "capacity", lambda: cluster.Capacity(({"CPU": 8.0, "GPU": 1.0},) * 3))
    message = r"needs 4 x \(1 CPU, 1 GPU\) and 1 CPU, which does not fit.*on 3 nodes"
    with pytest.raises(ConfigError, match=message) as caught:
        with_device(GenerateSettings(tensor_parallel=4), QWEN)
    assert "one copy takes 4 GPUs" in str(caught.value.fix)
    with pytest.raises(ConfigError, match=r"resources\.gpus=2 with tensor_parallel=4"):
        with_device(GenerateSettings.model_validate({"tensor_parallel": 4, "resources": {"gpus": 2}}), QWEN)


@pytest.mark.parametrize(("given", "cpus"), [({}, 0.5), ({"cpus": 2.0}, 2.0)])
def test_actors_of_an_api_take_half_a_cpu_unless_it_is_set(given: dict[str, float], cpus: float) -> None:
    filled = GenerateSettings.model_validate({"resources": given}).replaced(model="gpt-4o").replaced(dataset="set")
    assert with_device(filled, card("gpt-4o"))[0].resources.cpus == cpus
