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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.support.environment import without_ray
from tests.support.ray_head import RAY, ROOT, end_processes, free_ports

_HEAD_ID = "f" * 51 + "00000"
_HEAD_TYPE = "ray.head.default"  # the provider's own name for it
_STORE_BYTES = 150_000_000
_COMMANDS = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")


@dataclass(frozen=True)
class AutoscalingCluster:
    """A running cluster: address for drivers, and the variables with which a command joins it.

    `dashboard` is the address for submitted jobs, empty without one; `head` the process that all others are below.
    """

    address: str
    variables: dict[str, str]
    dashboard: str
    head: psutil.Process

    def raylets(self) -> list[psutil.Process]:
        """Return the nodes that the autoscaler started and that live; what runs on a node are its children."""
        found = []
        for one in self.head.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if one.name() == "raylet" and one.ppid() != self.head.pid:
                    found.append(one)
        return found


def shape(node_types: Mapping[str, tuple[Mapping[str, float], int]]) -> dict[str, Any]:
    """Return a cluster of a head that does no work, and nodes on demand, as `autoscaling_cluster` takes it.

    Args:
        node_types: Resources of a node and the most nodes, by name of the type.
    """
    types: dict[str, Any] = {
        name: {"resources": dict(resources), "min_workers": 0, "max_workers": most}
        for name, (resources, most) in node_types.items()
    }
    return {
        "head_node_type": "head",
        "available_node_types": {"head": {"resources": {"CPU": 0}}, **types},
        "max_workers": sum(most for _, most in node_types.values()),
        "upscaling_speed": 10,
        "idle_timeout_minutes": 5,
    }


@contextmanager
def autoscaling_cluster(shape: Mapping[str, Any], *, dashboard: bool = False) -> Iterator[AutoscalingCluster]:
    """Start a head, and let its autoscaler (Ray's second one) start the nodes of `shape` as needed.

    Args:
        shape: Node types, head, limits and idle times, in the words of Ray's cluster launcher. What else the launcher
            reads (machines, images, commands) is left out.
        dashboard: Whether the head takes submitted jobs.
    """
    (port, board, agent), host = free_ports(3), _own_address()
    address = f"{host}:{port}"
    types = {name: {**one, "node_config": {}} for name, one in shape["available_node_types"].items()}
    of_head: dict[str, Any] = types.pop(shape["head_node_type"])
    for one in types.values():
        one["resources"] = {**one["resources"], "object_store_memory": _STORE_BYTES}
    config: dict[str, Any] = {
        **{name: shape[name] for name in ("max_workers", "upscaling_speed", "idle_timeout_minutes")},
        "cluster_name": "test",
        "provider": {
            "type": "external",
            "module": "tests.support.autoscaled_nodes.Provider",
            "gcs_address": address,
            "head_node_id": _HEAD_ID,
            "launch_multiple": True,
        },
        "auth": {},
        "available_node_types": {**types, _HEAD_TYPE: {**of_head, "min_workers": 0, "max_workers": 0}},
        "head_node_type": _HEAD_TYPE,
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        **{f"{name}_commands": [] for name in _COMMANDS},
    }
    quiet = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    environment = without_ray(
        **quiet,
        AUTOSCALER_UPDATE_INTERVAL_S="1",
        RAY_FAKE_CLUSTER="1",
        RAY_enable_autoscaler_v2="1",
        RAY_CLOUD_INSTANCE_ID=_HEAD_ID,
        RAY_OVERRIDE_NODE_ID_FOR_TESTING=_HEAD_ID,
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        PYTHONPATH=str(ROOT),  # where the provider is
    )
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:  # short: Ray's sockets lie in it
        (Path(folder) / "cluster.json").write_text(json.dumps(config))
        log, resources = Path(folder) / "log", of_head["resources"]
        words = [RAY, "start", "--head", "--block", f"--port={port}", f"--object-store-memory={_STORE_BYTES}"]
        words += [f"--num-cpus={resources['CPU']}", f"--num-gpus={resources.get('GPU', 0)}"]
        words += [f"--memory={resources['memory']}"] if "memory" in resources else []
        words += [f"--autoscaling-config={folder}/cluster.json", f"--temp-dir={folder}/ray"]
        words += [f"--node-ip-address={host}", f"--include-dashboard={str(dashboard).lower()}"]
        words += [f"--dashboard-host=127.0.0.1 --dashboard-port={board} --dashboard-agent-listen-port={agent}"]
        with log.open("wb") as output:
            head = psutil.Popen(
                " ".join(map(str, words)).split(),
                cwd=folder,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            end = time.monotonic() + 120
            while not _is_up(Path(folder), board if dashboard else None):
                assert head.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.1)
            at = f"http://127.0.0.1:{board}" if dashboard else ""
            yield AutoscalingCluster(address, {"RAY_ADDRESS": address, **quiet}, at, head)
        finally:
            end_processes([head, *_processes_of(folder)])


def _is_up(folder: Path, dashboard: int | None) -> bool:
    """Tell whether drivers can connect, and jobs be submitted where there is a dashboard's port."""
    if not (folder / "ray" / "ray_current_cluster").exists():
        return False
    with socket.socket() as one:
        return dashboard is None or one.connect_ex(("127.0.0.1", dashboard)) == 0


def _own_address() -> str:
    """Return the address by which Ray's nodes of this machine find each other."""
    from ray.util import get_node_ip_address

    return get_node_ip_address() or socket.gethostbyname(socket.gethostname())


def _processes_of(folder: str) -> list[psutil.Process]:
    """Return processes of nodes that the autoscaler started too: they outlive it, and are then below nobody."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(folder in word for word in process.info["cmdline"] or ()):
            found.append(process)
    return found
