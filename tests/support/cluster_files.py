"""The files that describe our clusters, and what Ray reads of them when it starts nodes."""

from __future__ import annotations

from typing import Any

import yaml

from tests.support.ray_head import ROOT


def launcher() -> dict[str, Any]:
    """Return cluster.yaml."""
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def variant(name: str) -> dict[str, Any]:
    """Return one of the commented variants at the end of cluster.yaml."""
    lines = (ROOT / "cluster.yaml").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"# ---- {name}"))
    end = next(number for number, line in enumerate(lines) if line.lower().startswith(f"# ---- end of {name.lower()}"))
    return yaml.safe_load("\n".join(line[2:] for line in lines[start + 1 : end]))


def manifest(name: str) -> dict[str, Any]:
    """Return a manifest of deploy/kuberay."""
    return yaml.safe_load((ROOT / "deploy" / "kuberay" / f"{name}.yaml").read_text())


def cluster_of(document: dict[str, Any]) -> dict[str, Any]:
    """Return the cluster that a manifest is, or whose job it is."""
    return document["spec"].get("rayClusterSpec", document["spec"])


def kuberay_shape(name: str) -> dict[str, Any]:
    """Return what Ray's autoscaler on Kubernetes makes of a manifest, by Ray's own code."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    named = {"metadata": {"name": name, "namespace": "default"}, "spec": cluster_of(manifest(name))}
    return _derive_autoscaling_config_from_ray_cr(named)
