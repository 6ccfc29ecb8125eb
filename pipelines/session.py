"""Connecting to Ray: a local one with settings that avoid the known deadlocks, or a running cluster."""

from __future__ import annotations

import logging
import os
from typing import Any

from microg.config import Resources
from microg.errors import ConfigError

_QUIET = {
    # The hook of `uv run` uploads the working directory and rebuilds the environment for each session.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_DATA_LOG_LEVEL": "ERROR",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}
# One stuck stage must become an error, not a silent hang; far above the slowest batch of any stage.
_NO_PROGRESS_TIMEOUT_S = 900


def connect(resources: Resources | None = None) -> None:
    """Connect this process to Ray once; a second call does nothing.

    Locally at least four logical CPUs are declared: Ray Data's reads and writes take a CPU each, and on two a
    pipeline with an actor pool waits for itself forever. Raises `ConfigError` when a given address does not answer.
    """
    for key, value in _QUIET.items():
        os.environ.setdefault(key, value)
    import ray

    if ray.is_initialized():
        _configure_data()
        return
    address = (resources.address if resources else None) or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address is None:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        options |= {"num_cpus": max(4, os.cpu_count() or 1), "include_dashboard": False}
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"cannot connect to Ray at {address or 'a local address'}: {error}",
            "check the address, and RAY_AUTH_MODE=token with the cluster's token where it asks for one",
        ) from error
    _configure_data()


def _configure_data() -> None:
    from ray.data import DataContext

    context = DataContext.get_current()
    context.execution_no_progress_timeout_s = _NO_PROGRESS_TIMEOUT_S
    context.enable_progress_bars = False


def cluster_cpus() -> int:
    """Return how many CPUs the connected Ray has (locally: the machine's real cores, not the declared ones)."""
    import ray

    total = int(ray.cluster_resources().get("CPU", 1))
    single_node = sum(1 for node in ray.nodes() if node["Alive"]) == 1
    return min(total, os.cpu_count() or total) if single_node else total
