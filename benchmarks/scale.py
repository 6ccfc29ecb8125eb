"""What generation and scoring cost a row, and what their drivers hold, as a dataset grows tenfold.

    uv run python benchmarks/scale.py                          # 2,000 and 20,000 rows
    uv run python benchmarks/scale.py --rows 200 --rows 2000

The commands themselves run, each in a process of its own: `microg vlm generate` asks for a caption and six answers a
clip, one tiny frame each, of a server on 127.0.0.1 that answers at once; `microg vlm score` scores what came out with
all n-gram metrics. `driver` is the highest resident memory of the command's own process. Cost is wall time a row after
start-up (the closing block's steady rate) for generation, and wall time a row of the whole scoring.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.tiny_server import server_process
from microg.data import schema
from microg.data.dataset import Dataset
from microg.jobs.common import JsonOption, make_app, print_json, run

ROOT = Path(__file__).resolve().parent.parent
QUESTIONS = 6
MOST_GIB, MOST_GROWTH = 1.5, 1.2
_VERBS = ("floats", "drifts", "works", "waits", "turns", "reaches", "holds a cable", "reads", "speaks", "eats")
_PLACES = ("by the hatch", "near a rack", "in the cupola", "at the window", "beside another astronaut")


def make_dataset(root: Path, clips: int) -> None:
    """Write a dataset whose clips share one tiny video, each with a caption and questions that all differ."""
    import av
    import numpy as np

    dataset = Dataset.create(str(root), "tiny")
    with av.open(str(root / "videos" / "one.mp4"), "w") as container:
        stream: Any = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(6):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * number, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    names = [f"src_{number:06d}" for number in range(clips)]
    rows = [
        {
            "clip_id": name,
            "source_id": "src",
            "sequence": number,
            "uri": "videos/one.mp4",
            "origin": "real",
            "fps": 30.0,
            "num_frames": 6,
            "width": 64,
            "height": 48,
            "status": "ok",
        }
        for number, name in enumerate(names)
    ]
    captions = [
        {"clip_id": name, "caption": f"An astronaut {_VERBS[number % 10]} {_PLACES[number % 5]}."}
        for number, name in enumerate(names)
    ]
    asked = [
        {
            "clip_id": name,
            "qa_index": index,
            "question": f"What is person {index} of clip {number} doing?",
            "answer": f"The person {_VERBS[(number + index) % 10]} {_PLACES[index % 5]}.",
        }
        for number, name in enumerate(names)
        for index in range(QUESTIONS)
    ]
    for table, values in (("clips", rows), ("captions", captions), ("qa", asked)):
        dataset.write(table, schema.from_rows(table, values))


def measured(*words: object) -> dict[str, Any]:
    """Run a `microg` command to its end; return its document, wall seconds, and the driver's highest memory in GiB."""
    environment = os.environ | {"OPENAI_API_KEY": "unused"}
    started, highest = time.monotonic(), 0
    with tempfile.TemporaryFile() as out:
        command = [sys.executable, "-m", "microg.jobs.cli", *map(str, words), "--json"]
        process = psutil.Popen(command, cwd=ROOT, env=environment, stdout=out)
        while process.poll() is None:
            try:
                highest = max(highest, process.memory_info().rss)
            except psutil.Error:
                break
            time.sleep(0.05)
        if process.wait():
            raise typer.BadParameter(f"{' '.join(map(str, words))} failed")
        seconds = time.monotonic() - started
        out.seek(0)
        return {"document": json.load(out), "wall_s": seconds, "driver_gib": highest / 2**30}


def one_size(rows: int, folder: Path) -> dict[str, Any]:
    """Generate and score about so many rows."""
    data, generated = folder / "data", folder / "generated"
    clips = -(-rows // (QUESTIONS + 1))
    make_dataset(data, clips)
    process, url = server_process(0.0)
    try:
        words = ("--frames", "uniform:1", "--set", "api.concurrency=32", "--set", "api.requests_per_minute=null")
        said = measured("vlm", "generate", "--model", "m", "--url", url, "--dataset", data, "--run", generated, *words)
    finally:
        process.kill()
    metrics = ("--metrics", "cider,bleu,rouge_l,meteor", "--no-plots")
    scored = measured("vlm", "score", "--run", generated, "--out", folder / "scored", *metrics)
    document = said["document"]
    total = document["rows"]
    assert document["failed"] == 0
    assert sum(part["items"] for part in scored["document"]["coverage"].values()) == total
    return {
        "rows": total,
        "generate_ms_per_row": 1000 / document["throughput"]["steady_rows_per_s"],
        "generate_s": said["wall_s"],
        "generate_driver_gib": said["driver_gib"],
        "score_ms_per_row": 1000 * scored["wall_s"] / total,
        "score_s": scored["wall_s"],
        "score_driver_gib": scored["driver_gib"],
    }


def scale(
    rows: Annotated[list[int] | None, typer.Option(min=100, help="Rows; repeated, from few to many.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Milliseconds a row and driver memory of generation and scoring by size; exit code 1 where they grow."""
    results = []
    for size in rows or [2_000, 20_000]:
        with tempfile.TemporaryDirectory() as folder:
            results.append(one_size(size, Path(folder)))
        if not as_json:
            print(", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in results[-1].items()), flush=True)
    growth = {
        name: results[-1][f"{name}_ms_per_row"] / results[0][f"{name}_ms_per_row"] for name in ("generate", "score")
    }
    highest = max(result[f"{name}_driver_gib"] for result in results for name in growth)
    if as_json:
        print_json({"sizes": results, "growth": growth, "driver_gib": highest})
    else:
        print(", ".join(f"{name}: x {value:.2f} a row" for name, value in growth.items()) + f"; {highest:.2f} GiB")
    if highest > MOST_GIB or max(growth.values()) > MOST_GROWTH:
        raise typer.Exit(1)


if __name__ == "__main__":
    app = make_app("Generation and scoring at scale.")
    app.command()(scale)
    run(app)
