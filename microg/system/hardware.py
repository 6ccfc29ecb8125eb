"""What this machine has: processor, memory, disk and GPUs, as far as this process may use them.

In a container the limits of its control group count, not what the host has.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_PROC = Path("/proc")


@dataclass(frozen=True)
class Gpu:
    """One GPU as its driver reports it; memory in GB."""

    name: str
    memory_gb: float
    driver: str


@dataclass(frozen=True)
class Hardware:
    """The machine; sizes in GB (10^9 bytes), None where the system does not tell."""

    system: str
    cpu: str
    cores: float
    memory_gb: float | None
    available_gb: float | None
    disk_free_gb: float | None
    shared_memory_gb: float | None
    gpus: tuple[Gpu, ...]


def inspect(folder: str | os.PathLike[str] = ".") -> Hardware:
    """Return the machine's hardware; `folder` is where data will be written. Never raises."""
    memory = _meminfo()
    limit = _cgroup_number("memory.max", "memory/memory.limit_in_bytes")
    total = _smallest(memory.get("MemTotal"), limit)
    return Hardware(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=_cpu_model(),
        cores=usable_cores(),
        memory_gb=_gb(total),
        available_gb=_gb(_smallest(memory.get("MemAvailable"), total)),
        disk_free_gb=_disk_free_gb(folder),
        shared_memory_gb=_disk_free_gb("/dev/shm"),
        gpus=_gpus(),
    )


def usable_cores() -> float:
    """Return how many cores this process may use: its affinity, cut by the control group's quota."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    parts = _read(_CGROUP / "cpu.max").split()  # version 2: "quota period", quota may be "max"
    if len(parts) != 2:
        parts = [_read(_CGROUP / "cpu/cpu.cfs_quota_us").strip(), _read(_CGROUP / "cpu/cpu.cfs_period_us").strip()]
    try:
        quota, period = float(parts[0]), float(parts[1])
    except ValueError:
        return cores
    return min(cores, quota / period) if quota > 0 and period > 0 else cores


def _cpu_model() -> str:
    for line in _read(_PROC / "cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "cpu model"):
            return value.strip()
    return platform.processor() or platform.machine() or "unknown"


def _meminfo() -> dict[str, int]:
    """Return /proc/meminfo in bytes."""
    result = {}
    for line in _read(_PROC / "meminfo").splitlines():
        key, _, rest = line.partition(":")
        number = rest.split()
        if number and number[0].isdigit():
            result[key] = int(number[0]) * (1024 if number[-1] == "kB" else 1)
    return result


def _cgroup_number(*names: str) -> int | None:
    for name in names:
        text = _read(_CGROUP / name).strip()
        if text.isdigit():
            return int(text)
    return None


def _gpus() -> tuple[Gpu, ...]:
    """Ask the NVIDIA driver; importing torch for it would take seconds."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return ()
    query = [command, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(query, capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    gpus = []
    for line in output.splitlines():
        fields = [part.strip() for part in line.split(",")]
        if len(fields) == 3:
            mebibytes = fields[1]
            gpus.append(
                Gpu(fields[0], round(int(mebibytes) * 1.048576e-3, 1) if mebibytes.isdigit() else 0.0, fields[2])
            )
    return tuple(gpus)


def _disk_free_gb(folder: str | os.PathLike[str]) -> float | None:
    try:
        return _gb(shutil.disk_usage(folder).free)
    except OSError:
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _smallest(*numbers: int | None) -> int | None:
    return min((number for number in numbers if number is not None), default=None)


def _gb(number: int | None) -> float | None:
    return None if number is None else round(number / 1e9, 1)
