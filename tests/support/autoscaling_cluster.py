"""A cluster whose autoscaler starts real Ray nodes on this machine when work waits for them, from none."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.support.ray_head import RAY, end_processes, free_ports

_HEAD_ID = "f" * 51 + "00000"
# Ray's own provider for such tests; by its module, as Ray's wheel lacks the file of defaults that its name stands for.
_PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
_COMMANDS = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")


@dataclass(frozen=True)
class AutoscalingCluster:
    """A running cluster: address for drivers, and the variables with which a command joins it."""

    address: str
    variables: dict[str, str]


@contextmanager
def autoscaling_cluster(
    node_types: Mapping[str, tuple[Mapping[str, float], int]], *, head_cpus: int = 0
) -> Iterator[AutoscalingCluster]:
    """Start a head that works on `head_cpus` CPUs, and let its autoscaler (Ray's second one) start nodes as needed.

    Args:
        node_types: Resources of a node and the most nodes, by name of the type.
        head_cpus: CPUs of the head.
    """
    port, host = free_ports(1)[0], _own_address()
    address = f"{host}:{port}"
    types: dict[str, Any] = {
        name: {
            "resources": {**resources, "object_store_memory": 150_000_000},
            "node_config": {},
            "min_workers": 0,
            "max_workers": most,
        }
        for name, (resources, most) in node_types.items()
    }
    types["ray.head.default"] = {"resources": {"CPU": head_cpus}, "node_config": {}, "max_workers": 0}
    config: dict[str, Any] = {
        "cluster_name": "test",
        "max_workers": sum(most for _, most in node_types.values()),
        "upscaling_speed": 10,
        "idle_timeout_minutes": 5,
        "provider": {
            "type": "external",
            "module": _PROVIDER,
            "gcs_address": address,
            "head_node_id": _HEAD_ID,
            "launch_multiple": True,
        },
        "auth": {},
        "available_node_types": types,
        "head_node_type": "ray.head.default",
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        **{f"{name}_commands": [] for name in _COMMANDS},
    }
    quiet = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | quiet
    of_head = {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": _HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": _HEAD_ID,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:  # short: Ray's sockets lie in it
        (Path(folder) / "cluster.json").write_text(json.dumps(config))
        log = Path(folder) / "log"
        words = [RAY, "start", "--head", "--block", f"--port={port}", f"--num-cpus={head_cpus}", "--num-gpus=0"]
        words += [f"--autoscaling-config={folder}/cluster.json", f"--temp-dir={folder}/ray"]
        words += ["--include-dashboard=false", "--object-store-memory=150000000", f"--node-ip-address={host}"]
        with log.open("wb") as output:
            head = psutil.Popen(
                [str(word) for word in words],
                cwd=folder,
                env=environment | of_head,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            end = time.monotonic() + 120
            while not (Path(folder) / "ray" / "ray_current_cluster").exists():
                assert head.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.1)
            yield AutoscalingCluster(address, {"RAY_ADDRESS": address, **quiet})
        finally:
            end_processes([head, *_nodes_in(folder)])


def _own_address() -> str:
    """Return the address by which Ray's nodes of this machine find each other."""
    from ray.util import get_node_ip_address

    return get_node_ip_address() or socket.gethostbyname(socket.gethostname())


def _nodes_in(folder: str) -> list[psutil.Process]:
    """Return processes of nodes that the autoscaler started: the head is not their parent."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(folder in word for word in process.info["cmdline"] or ()):
            found.append(process)
    return found
