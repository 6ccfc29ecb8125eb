"""Seconds from typing a command to its first result, and what they go to.

    python benchmarks/startup.py --weights yolo11n.pt
    python benchmarks/startup.py --weights yolo11n.pt --beside ../before    # another checkout, in turn with this one

Inputs are made once by this checkout: drawn footage, a dataset, predictions and answers of the package's tiny models. A
first result is the first file of rows of curate, predict and generate, and what scorers print first. Commands of both
checkouts take turns; each figure is the least of its repeats. Below it the same machine's time for imports, for Ray and
for a model alone.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from microg.demo.trained import ACTION_WEIGHTS, LANGUAGE_MODEL
from microg.jobs.common import JsonOption, make_app, print_json, run

_HERE = Path(__file__).resolve().parent.parent
_SETTLE_S = 4.0
_METRICS = "cider,bleu,rouge_l,sbert"  # all that need neither Java nor a download
_PARTS = {
    "import ray": "import ray",
    "import ray.data": "import ray.data",
    "import torch": "import torch",
    "import ultralytics' tracker": "from ultralytics.trackers.bot_sort import BOTSORT",
    "import transformers' models": "from transformers import AutoModelForImageTextToText, AutoProcessor",
    "import vllm": "import vllm",
    "a local Ray, up and down": "from microg.pipelines.core import session; session.connect()",
}


def commands(inputs: Path, weights: str) -> dict[str, list[str]]:
    """Return the words of each command; OUT stands for the folder that it writes."""
    demo = inputs / "demo"
    dataset = str(demo / "dataset")
    model = str(LANGUAGE_MODEL)
    split = ["--split", "all"]
    return {
        "curate": ["curate", str(demo / "footage"), "OUT", "--weights", weights],
        "har predict": ["har", "predict", dataset, "--weights", str(ACTION_WEIGHTS), *split, "--run", "OUT"],
        "vlm generate": ["vlm", "generate", "--model", model, "--engine", "vllm", "--dataset", dataset, "--run", "OUT"],
        "vlm score": ["vlm", "score", "--run", str(demo / "vlm_generate"), "--metrics", _METRICS, "--out", "OUT"],
        "har score": [
            *("har", "score", "--predictions", str(demo / "har_predict"), "--groundtruth", dataset, *split),
            *("--run", "OUT"),
        ],
    }


def first_result(checkout: Path, words: Sequence[str], environment: dict[str, str]) -> float:
    """Run a command of a checkout until its first result, stop it, and return the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        command = [str(checkout / ".venv" / "bin" / "microg"), *(str(out) if word == "OUT" else word for word in words)]
        started = time.monotonic()
        log, said = (Path(folder) / "log").open("w+"), Path(folder) / "said"
        process = subprocess.Popen(  # elsewhere: workers of Ray find packages in the folder of the command
            command, cwd=folder, env=environment, stdout=said.open("w"), stderr=log, start_new_session=True
        )
        scores = words[1] == "score"
        while process.poll() is None:
            if said.stat().st_size if scores else next(out.rglob("part-*.parquet"), None):
                break
            time.sleep(0.02)
        seconds = time.monotonic() - started
        if process.poll() not in (None, 0):
            log.seek(0)
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {log.read()[-500:]}")
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        time.sleep(_SETTLE_S)  # Ray's processes end after the command
    return seconds


def seconds_of(code: str, environment: dict[str, str]) -> float:
    """Return how long a Python process takes for `code`."""
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        cwd=_HERE,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.monotonic() - started


def main(
    weights: Annotated[str, typer.Option(help="Detector weights: a name or a path.")] = "yolo11n.pt",
    beside: Annotated[Path | None, typer.Option(help="Another checkout with its environment, to compare with.")] = None,
    only: Annotated[str, typer.Option(help="Commands to measure; commas separate them. Default: all.")] = "",
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each command.")] = 2,
    parts: Annotated[bool, typer.Option("--parts/--no-parts", help="Also time imports, Ray and models alone.")] = True,
    keep: Annotated[Path | None, typer.Option(help="Folder for the inputs, to use them again.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the seconds to the first result of each command."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    inputs = keep or Path(tempfile.mkdtemp())
    if not (inputs / "demo" / "report.html").is_file():
        demo = [str(_HERE / ".venv" / "bin" / "microg"), "demo", "--videos", "1", "--out", str(inputs / "demo")]
        subprocess.run([*demo, "--weights", weights], check=True, env=environment, stdout=sys.stderr)
    checkouts = {"here": _HERE} | ({"beside": beside.resolve()} if beside is not None else {})
    rows = []
    for name, words in commands(inputs, weights).items():
        if only and name not in only.split(","):
            continue
        times = {which: [] for which in checkouts}
        for _ in range(repeats):
            for which, checkout in checkouts.items():
                times[which].append(first_result(checkout, words, environment))
        best = {which: round(min(found), 2) for which, found in times.items()}
        rows.append({"command": name, **best} | ({"ratio": round(best["here"] / best["beside"], 2)} if beside else {}))
        print(rows[-1], file=sys.stderr)
    alone = {}
    if parts:
        alone = {
            name: round(min(seconds_of(code, environment) for _ in range(repeats)), 2) for name, code in _PARTS.items()
        }
    if keep is None:
        shutil.rmtree(inputs)
    if as_json:
        print_json({"commands": rows, "alone": alone})
        return
    for row in rows:
        print(row)
    for name, seconds in alone.items():
        print(f"{name}: {seconds} s")


if __name__ == "__main__":
    app = make_app("Measure the seconds to the first result of each command.")
    app.command()(main)
    run(app)
