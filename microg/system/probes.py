"""Finding out whether engines really load, in subprocesses side by side: a broken library may crash its process."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "missing", "broken", "unknown"]

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
        "torchcodec": "import torchcodec, torchcodec.decoders\ndetail = torchcodec.__version__",
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
    """Tell which Java runs (METEOR and SPICE are Java programs)."""
    command = shutil.which("java")
    if command is None:
        return Probe("missing", "no java on PATH")
    try:
        done = subprocess.run([command, "-version"], capture_output=True, text=True, timeout=timeout_s, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return Probe("broken", f"{command}: {type(error).__name__}")
    lines = (done.stderr or done.stdout).splitlines()
    return Probe("ok", lines[0] if lines else command)
