"""How busy the pipeline keeps engines that answer one request in 20 ms, beside the same engine alone.

    uv run python benchmarks/engine_use.py --frames 9 --questions 7
    uv run python benchmarks/engine_use.py --frames 90 --questions 40

Clips are 480p and of three seconds, made on the spot. What is measured is the part of its time in which a replica
answers, from its first request to the last answer of all, over the part in which the engine alone does when it is given
all requests at once. Decoding shares the cores: where these cannot decode clips as fast as engines ask about them, that
is what is measured; so the part of the cores that decoding takes is printed too.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from microg.data import schema
from microg.data.dataset import Dataset
from microg.jobs.common import JsonOption, make_app, print_json, run
from microg.models.vlm.base import Engine, Reply, Request, Sampling
from microg.pipelines.core import session
from microg.pipelines.vlm.generate import run_generation, with_device
from microg.pipelines.vlm.questions import read_questions
from microg.pipelines.vlm.settings import GenerateSettings, resolve
from microg.system.hardware import usable_cores

SECONDS, WIDTH, HEIGHT, FRAMES = 0.02, 854, 480, 90
CARD = """
name: slow-echo
title: Slow echo
hub_id: benchmark/slow-echo
engine: benchmarks.engine_use:SlowEcho
frames: {{kind: uniform, count: {frames}}}
chat_template: none
context: 4096
gpu_memory_gb: 0
runs: weights
settings: {{folder: "{folder}"}}
"""


@dataclass
class SlowEcho(Engine):
    """Answers one request after another, each in 20 ms, and writes down when; `folder` is where."""

    model: str
    folder: str = ""
    name: str = "slow-echo"
    calls_at_once: ClassVar[int] = 8
    _turn: Any = field(default_factory=threading.Lock, repr=False)

    def fingerprint(self) -> dict[str, Any]:
        """Return the engine's name."""
        return {"engine": self.name}

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Reply]:
        """Yield the questions again."""
        for request in requests:
            with self._turn:
                started = time.time()
                time.sleep(SECONDS)
                with (Path(self.folder) / f"{os.getpid()}.jsonl").open("a") as file:
                    file.write(json.dumps([started, time.time()]) + "\n")
            yield Reply(request.key, request.prompt)


def _write_dataset(root: str, clips: int, questions: int) -> None:
    """Write clips of smooth noise that drifts, as moving pictures do, and questions about each."""
    import av
    import cv2
    import numpy as np

    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH + 2 * FRAMES, 3), np.uint8)
    picture = cv2.GaussianBlur(noise, (0, 0), 4)
    dataset = Dataset.create(root, "clips")
    with av.open(f"{root}/videos/clip.mp4", "w") as container:
        stream: Any = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(FRAMES):
            pixels: Any = np.ascontiguousarray(picture[:, 2 * index : 2 * index + WIDTH])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    names = [f"tour_{number:03d}" for number in range(clips)]
    size = {"fps": 30.0, "num_frames": FRAMES, "width": WIDTH, "height": HEIGHT}
    rows: list[dict[str, Any]] = [
        {"clip_id": name, "source_id": "tour", "sequence": number, "uri": "videos/clip.mp4", "origin": "real", **size}
        for number, name in enumerate(names)
    ]
    dataset.write("clips", schema.from_rows("clips", [{**row, "status": "ok"} for row in rows]))
    asks = [
        {"clip_id": name, "qa_index": index, "question": f"What is thing {index}?", "answer": "a hand"}
        for name in names
        for index in range(questions)
    ]
    dataset.write("qa", schema.from_rows("qa", asks))


def _busy(times: list[list[tuple[float, float]]]) -> float:
    """Return the part of their time in which replicas answered, each from its first request to the last of all."""
    end = max(each[-1][1] for each in times)
    worked = sum(stop - start for each in times for start, stop in each)
    return worked / sum(end - each[0][0] for each in times)


def _times(folder: Path) -> list[list[tuple[float, float]]]:
    """Return the start and end of each request, by replica."""
    return [[tuple(json.loads(line)) for line in file.read_text().splitlines()] for file in folder.glob("*.jsonl")]


def use(
    frames: Annotated[int, typer.Option(min=1, help="Frames of a clip that the engine is shown.")] = 9,
    questions: Annotated[int, typer.Option(min=1, help="Questions about a clip.")] = 7,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds that the replicas have work for.")] = 20,
    replicas: Annotated[int, typer.Option(min=1)] = 2,
    as_json: JsonOption = False,
) -> None:
    """Busy time of replicas behind the pipeline, over that of the engine alone."""
    with tempfile.TemporaryDirectory() as folder:
        alone, shared = Path(folder) / "alone", Path(folder) / "shared"
        alone.mkdir()
        shared.mkdir()
        list(SlowEcho("m", str(alone)).generate([Request(str(n), "?") for n in range(100)], Sampling()))
        busy_alone = _busy(_times(alone))
        clips = max(2 * replicas, round(seconds * replicas / SECONDS / questions))
        _write_dataset(f"{folder}/set", clips, questions)
        (Path(folder) / "card.yaml").write_text(CARD.format(frames=frames, folder=shared))
        pools = {"resources": {"min_actors": replicas, "max_actors": replicas, "cpus": 0.5}}
        settings, card = resolve(
            GenerateSettings.model_validate(
                {
                    "model": f"{folder}/card.yaml",
                    "dataset": f"{folder}/set",
                    "tasks": ("vqa",),
                    "device": "cpu",
                    **pools,
                }
            )
        )
        session.connect(settings.resources)
        settings, place = with_device(settings, card)
        block, _ = run_generation(read_questions(settings).clips, f"{folder}/run", settings, card, place=place)
        times = _times(shared)
        rows = sum(map(len, times))
        wall = max(each[-1][1] for each in times) - min(each[0][0] for each in times)
    result = {
        "frames": frames,
        "questions": questions,
        "clips": clips,
        "replicas": len(times),
        "busy_alone": round(busy_alone, 3),
        "busy": round(_busy(times), 3),
        "ratio": round(_busy(times) / busy_alone, 3),
        "rows_per_s": round(rows / wall, 1),
        "decoding_of_the_cores": round(block["stages"]["decode"] * rows / wall / usable_cores(), 2),
    }
    if as_json:
        print_json([result])
        return
    for name, value in result.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    app = make_app("How busy the pipeline keeps engines.")
    app.command()(use)
    run(app)
