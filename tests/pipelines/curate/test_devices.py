"""What an observer takes, and where its detector computes."""

from __future__ import annotations

import pytest

from microg.config import Resources
from microg.errors import ConfigError
from microg.models.detection.base import DetectorSettings
from microg.pipelines.core import cluster
from microg.pipelines.core.cluster import Capacity
from microg.pipelines.curate import pipeline
from microg.pipelines.curate.pipeline import CurateSettings, sized_pipeline, with_device


def observer(settings: CurateSettings, monkeypatch: pytest.MonkeyPatch) -> tuple[float, float, int, str]:
    """Return CPUs, GPUs, clips at once and device of an observer on a Ray of one CPU node and one with two GPUs."""
    there = Capacity(({"CPU": 64.0}, {"CPU": 32.0, "GPU": 2.0}))
    for module in (cluster, pipeline):
        monkeypatch.setattr(module, "capacity", lambda: there)
    settings, device = with_device(settings)
    stage = sized_pipeline(settings).stages[-1]
    return stage.cpus, stage.gpus, stage.calls_at_once, device


def test_an_observer_takes_its_share_of_a_gpu_node_and_a_clip_a_cpu(monkeypatch: pytest.MonkeyPatch):
    assert observer(CurateSettings(), monkeypatch) == (8, 1, 8, "cuda")
    half = CurateSettings(resources=Resources(gpus=0.5))
    assert observer(half, monkeypatch) == (4, 0.5, 4, "cuda")
    told = CurateSettings(resources=Resources(gpus=1, cpus=3), clips_at_once=6)
    assert observer(told, monkeypatch) == (3, 1, 6, "cuda")


def test_on_cpus_an_observer_takes_one_and_one_clip(monkeypatch: pytest.MonkeyPatch):
    assert observer(CurateSettings(detector=DetectorSettings(device="cpu")), monkeypatch) == (1, 0, 1, "cpu")
    replayed = CurateSettings(detections="/dets", clips_at_once=4)
    assert observer(replayed, monkeypatch)[2:] == (1, "cpu")


def test_nvdec_beside_a_detector_on_the_cpu_is_refused(monkeypatch: pytest.MonkeyPatch):
    assert observer(CurateSettings(decoder="nvdec"), monkeypatch)[3] == "cuda"
    with pytest.raises(ConfigError, match="nvdec is part of a GPU"):
        observer(CurateSettings(decoder="nvdec", detector=DetectorSettings(device="cpu")), monkeypatch)
