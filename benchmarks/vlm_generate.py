"""Generation through Ray Data beside a plain loop over the same engine.

    uv run python benchmarks/vlm_generate.py data/synthetic --model FOLDER --clips 60
    uv run python benchmarks/vlm_generate.py data/synthetic --clips 200

Without a model it asks a server on 127.0.0.1 that answers after 50 ms, so that only our own work is measured. The
loop has its frames decoded beforehand; the pipeline decodes. Both run once to warm up, with the same engine settings,
one after the other; the ratio is the pipeline's rows a second over the loop's.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.tiny_server import server_process
from microg.jobs.common import JsonOption, make_app, print_json, run
from microg.models.vlm.base import Request
from microg.models.vlm.cards import open_card
from microg.models.vlm.frames import sample_frames
from microg.pipelines.core import session
from microg.pipelines.vlm.generate import run_generation, with_device
from microg.pipelines.vlm.questions import read_questions
from microg.pipelines.vlm.settings import GenerateSettings, engine_settings, resolve

LATENCY_S = 0.05


class Peaks(threading.Thread):
    """Watches the highest memory of the actors below this process, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.actor = 0
        self.start()

    def run(self) -> None:
        """Look twice a second."""
        while True:
            for child in psutil.Process().children(recursive=True):
                try:
                    if "Generator" in " ".join(child.cmdline()):
                        self.actor = max(self.actor, child.memory_info().rss)
                except psutil.Error:
                    continue
            time.sleep(0.5)


def _pipeline(settings: GenerateSettings, root: str) -> tuple[float, int]:
    """Run the pipeline on what `settings` ask; return rows a second from the first answered block on, and all rows."""
    settings, card = resolve(settings)
    clips = read_questions(settings).clips
    session.connect(settings.resources)
    settings, place = with_device(settings, card)
    done: list[tuple[float, int]] = []
    failed = 0

    def on_clip(report: dict[str, Any]) -> None:
        nonlocal failed
        failed += report["failed"]
        done.append((time.monotonic(), report["rows"]))

    run_generation(clips, root, settings, card, place=place, on_clip=on_clip)
    if failed:
        raise typer.BadParameter(f"{failed} rows failed")
    first = done[0][0]
    later = [(at, rows) for at, rows in done if at > first + 0.05]  # engines and imports were started by then
    seconds = (later[-1][0] - first) if later else float("nan")
    return sum(rows for _, rows in later) / seconds, sum(rows for _, rows in done)


def _loop(settings: GenerateSettings) -> float:
    """Ask the engine in this process, all requests in one call with decoded frames; return rows a second."""
    settings, card = resolve(settings)
    policy = settings.policy()
    prompts = {task: settings.prompt_of(task) for task in settings.tasks}
    requests: list[Request] = []
    for row in read_questions(settings).clips.to_pylist():
        frames = sample_frames(row["uri"], [policy])[0]
        for task, index, question in zip(row["task"], row["qa_index"], row["question"], strict=True):
            fields = {} if question is None else {"question": question}
            requests.append(prompts[task].request(f"{row['clip_id']}:{task}:{index}", frames, **fields))
    engine = open_card(card, **engine_settings(settings, card))
    sampling = settings.sampling.of(prompts[settings.tasks[0]])
    list(engine.generate(requests[:7], sampling))
    started = time.monotonic()
    replies = list(engine.generate(requests, sampling))
    seconds = time.monotonic() - started
    engine.close()
    if any(reply.status != "ok" for reply in replies):
        raise typer.BadParameter("a request of the loop failed")
    return len(replies) / seconds


def speed(
    dataset: str,
    model: Annotated[str | None, typer.Option(help="Checkpoint folder. [default: a server that answers]")] = None,
    engine: Annotated[str | None, typer.Option(help="vllm or transformers. [default: as the card says]")] = None,
    clips: Annotated[int, typer.Option(min=4, help="Clips to ask about.")] = 60,
    block: Annotated[int, typer.Option(min=1, help="Clips a block.")] = 8,
    max_tokens: Annotated[int, typer.Option(min=1)] = 16,
    as_json: JsonOption = False,
) -> None:
    """Rows a second through the pipeline over those of a plain loop, and the memory of an actor."""
    given: dict[str, Any] = {
        "dataset": dataset,
        "limit": clips,
        "sampling": {"max_tokens": max_tokens},
        "clips_per_block": block,
    }
    process = None
    if model is None:
        process, url = server_process(LATENCY_S)
        given |= {"model": "m", "url": url}
    else:
        given |= {"model": model, "engine": engine}
    settings = GenerateSettings.model_validate(given)
    peaks = Peaks()
    try:
        with tempfile.TemporaryDirectory() as folder:
            pipeline, rows = _pipeline(settings, folder)
        loop = _loop(settings)
    finally:
        if process is not None:
            process.kill()
    result = {
        "engine": settings.engine or resolve(settings)[1].engine,
        "rows": rows,
        "loop_rows_per_s": round(loop, 2),
        "pipeline_rows_per_s": round(pipeline, 2),
        "ratio": round(pipeline / loop, 3),
        "actor_gib": round(peaks.actor / 2**30, 2),
    }
    _print([result], as_json)


def _print(results: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(results)
        return
    for result in results:
        print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in result.items()))


if __name__ == "__main__":
    app = make_app("Generation through Ray Data beside a plain loop.")
    app.command()(speed)
    run(app)
