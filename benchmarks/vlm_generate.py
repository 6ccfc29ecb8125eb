"""Generation through Ray Data beside a plain loop over the same engine, and how the driver's memory grows with rows.

    uv run python benchmarks/vlm_generate.py speed data/synthetic --model FOLDER --clips 60
    uv run python benchmarks/vlm_generate.py speed data/synthetic --clips 200
    uv run python benchmarks/vlm_generate.py scale --clips 2000 --clips 20000

`speed` without a model asks a server on 127.0.0.1 that answers after 50 ms, so that only our own work is measured. The
loop has its frames decoded beforehand; the pipeline decodes. Both run once to warm up, with the same engine settings,
one after the other; the ratio is the pipeline's rows a second over the loop's. `scale` asks a question about each clip
of datasets that share one tiny video: milliseconds a row, and the driver's highest memory, must not grow with them.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.common import JsonOption, make_app, print_json, run
from microg import schema
from microg.dataset import Dataset
from models.vlm.base import Request
from models.vlm.engines import open_engine
from models.vlm.frames import read_clip
from pipelines import session
from pipelines.asked import read_asked
from pipelines.generate import engine_settings, run_generation, with_device
from pipelines.generate_config import GenerateSettings, resolve

LATENCY_S = 0.05
_ANSWER = json.dumps(
    {
        "id": "c", "object": "chat.completion", "created": 0, "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "A cup."}}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23},
    }
).encode()  # fmt: skip


def serve(latency_s: float) -> str:
    """Answer chat completions in a thread of this process; returns the URL."""
    ready: list[int] = []

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(int(line[15:]) for line in head.split(b"\r\n") if line[:15].lower() == b"content-length:")
                await reader.readexactly(length)
                await asyncio.sleep(latency_s)
                start = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(_ANSWER)}\r\n\r\n"
                writer.write(start.encode() + _ANSWER)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def forever() -> None:
        server = await asyncio.start_server(connection, "127.0.0.1", 0, limit=2**26)
        ready.append(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    threading.Thread(target=lambda: asyncio.run(forever()), daemon=True).start()
    while not ready:
        time.sleep(0.01)
    return f"http://127.0.0.1:{ready[0]}/v1"


def _server_process() -> tuple[subprocess.Popen[bytes], str]:
    """Start the server in a process of its own, so that its memory is not the driver's; returns it and its URL."""
    command = [sys.executable, __file__, "server"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    return process, process.stdout.readline().decode().strip()


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
    clips = read_asked(settings).clips
    session.connect(settings.resources)
    settings, device = with_device(settings, card)
    done: list[tuple[float, int]] = []
    failed = 0

    def on_clip(report: dict[str, Any]) -> None:
        nonlocal failed
        failed += report["failed"]
        done.append((time.monotonic(), report["rows"]))

    run_generation(clips, root, settings, card, device=device, on_clip=on_clip)
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
    for row in read_asked(settings).clips.to_pylist():
        frames = read_clip(row["uri"], [policy])[0]
        for task, index, question in zip(row["task"], row["qa_index"], row["question"], strict=True):
            fields = {} if question is None else {"question": question}
            requests.append(prompts[task].request(f"{row['clip_id']}:{task}:{index}", frames, **fields))
    engine = open_engine(card, **engine_settings(settings, card))
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
        "dataset": dataset, "limit": clips, "sampling": {"max_tokens": max_tokens}, "clips_per_block": block,
    }  # fmt: skip
    process = None
    if model is None:
        process, url = _server_process()
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
        "engine": settings.engine or resolve(settings)[1].engine, "rows": rows, "loop_rows_per_s": round(loop, 2),
        "pipeline_rows_per_s": round(pipeline, 2), "ratio": round(pipeline / loop, 3),
        "actor_gib": round(peaks.actor / 2**30, 2),
    }  # fmt: skip
    _print([result], as_json)


def scale(
    clips: Annotated[list[int] | None, typer.Option(help="Sizes of datasets; may be repeated.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Milliseconds a row and the driver's highest memory for datasets of growing size, each in a process of its own."""
    results = []
    for size in clips or [500, 2000]:
        command = [sys.executable, __file__, "one-size", str(size)]
        results.append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
    _print(results, as_json)


def one_size(clips: int) -> None:
    """Ask one question about each of so many clips that share one tiny video."""
    process, url = _server_process()
    try:
        with tempfile.TemporaryDirectory() as folder:
            _tiny_dataset(Path(folder) / "data", clips)
            settings = GenerateSettings.model_validate({
                "model": "m", "url": url, "dataset": f"{folder}/data", "frames": {"kind": "uniform", "count": 1},
                "tasks": ["vqa"], "api": {"concurrency": 64}, "clips_per_block": 64,
            })  # fmt: skip
            started = time.monotonic()
            rate, rows = _pipeline(settings, f"{folder}/run")
            seconds = time.monotonic() - started
            from pipelines import generation_rows
            from pipelines.asked import items_of, key_of

            clips_table = read_asked(resolve(settings)[0]).clips
            table, _ = generation_rows.finish(f"{folder}/run", [key_of(item) for item in items_of(clips_table)])
            assert table.num_rows == rows == clips
    finally:
        process.kill()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print_json({
        "clips": clips, "ms_per_row": round(1000 / rate, 2), "whole_s": round(seconds, 1),
        "driver_peak_gib": round(peak / 2**20, 3),
    })  # fmt: skip


def server() -> None:
    """Answer at once until killed; the first line tells the URL."""
    print(serve(LATENCY_S), flush=True)
    threading.Event().wait()


def _tiny_dataset(root: Path, clips: int) -> None:
    import av

    dataset = Dataset.create(str(root), "tiny")
    path = root / "videos" / "one.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(6):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * number, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    rows = [
        {
            "clip_id": f"src_{number:06d}", "source_id": "src", "sequence": number, "uri": "videos/one.mp4",
            "origin": "real", "fps": 30.0, "num_frames": 6, "width": 64, "height": 48, "status": "ok",
        }
        for number in range(clips)
    ]  # fmt: skip
    dataset.write("clips", schema.from_rows("clips", rows))
    asked = [
        {"clip_id": row["clip_id"], "qa_index": 0, "question": f"Is it {row['sequence']}?", "answer": ""}
        for row in rows  # all different: equal requests would be sent once
    ]
    dataset.write("qa", schema.from_rows("qa", asked))


def _print(results: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(results)
        return
    for result in results:
        print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in result.items()))


if __name__ == "__main__":
    app = make_app("Generation through Ray Data beside a plain loop.")
    app.command()(speed)
    app.command()(scale)
    app.command("one-size", hidden=True)(one_size)
    app.command(hidden=True)(server)
    run(app)
