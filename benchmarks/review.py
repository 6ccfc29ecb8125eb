"""A team at work: simulated annotators over HTTP against one `microg review`, and the time that each save takes.

    python benchmarks/review.py --annotators 8 --clips 2000 --rate 5 --seconds 60

Each takes a person's task, loads the start of the video and a thumbnail, and saves when their turn comes; all together
save `--rate` times a second. A tenth of the items is judged twice. At the end the server is ended as by Ctrl-C, and
the dataset's table is compared with what was acknowledged. The annotators run on the server's cores.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import typer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from microg.annotations.rows import new_id
from microg.annotations.table import read_annotations
from microg.console import say
from microg.data import schema
from microg.data.dataset import Dataset
from microg.formats.base import new_clips
from microg.jobs.common import JsonOption, make_app, print_json, run
from microg.models.video.encode import Mp4Writer

FRAMES, SIZE, SECOND = 90, (854, 480), 0.1
_ACTIONS = (12, 17, 79, 80)


@dataclass
class Team:
    """What the annotators did: acknowledged judgements with their items, and seconds by request."""

    saved: dict[str, tuple[str, str]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def took(self, what: str, seconds: float) -> None:
        """Note how long a request took."""
        with self.lock:
            self.seconds.setdefault(what, []).append(seconds)


def make_dataset(root: Path, clips: int) -> Dataset:
    """Write clips of two tracked people each; they share one video of 3 s."""
    dataset = Dataset.create(str(root), "team")
    generator = np.random.default_rng(0)
    with Mp4Writer(str(root / "videos/all.mp4"), SIZE, Fraction(30), crf=23, preset="veryfast", key_interval=30) as out:
        for _ in range(FRAMES):
            rough = generator.integers(0, 256, (SIZE[1] // 8, SIZE[0] // 8 + 1, 3), dtype=np.uint8)
            frame = np.ascontiguousarray(rough.repeat(8, 0).repeat(8, 1)[: SIZE[1], : SIZE[0]])
            out.write(av.VideoFrame.from_ndarray(frame, format="bgr24").reformat(format="yuv420p"))
        out.finish()
    ids = [f"film{number // 20}_{number % 20:03d}" for number in range(clips)]
    sizes = {"fps": [30.0] * clips, "num_frames": [FRAMES] * clips, "width": [SIZE[0]] * clips}
    table = new_clips(ids, uri=["videos/all.mp4"] * clips, height=[SIZE[1]] * clips, **sizes)
    dataset.write("clips", table)
    corners = {"x1": 10.0, "y1": 20.0, "x2": 200.0, "y2": 400.0}
    boxes = [
        {"clip_id": clip, "frame": frame, "person_id": person, **corners}
        for clip in ids
        for person in (1, 2)
        for frame in range(1, FRAMES + 1)
    ]
    dataset.write("boxes", schema.from_rows("boxes", boxes))
    return dataset


def work(name: int, token: str, port: int, turns: list[float], team: Team) -> None:
    """Judge one task a turn, as the page of one annotator does."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    cookie = ""

    def ask(what: str, method: str, path: str, body: dict[str, Any] | None = None, **headers: str) -> Any:
        nonlocal cookie
        started = time.perf_counter()
        given = {"X-Microg": "review", "Content-Type": "application/json", "Cookie": cookie, **headers}
        connection.request(method, path, json.dumps(body) if body is not None else None, given)
        answer = connection.getresponse()
        data = answer.read()
        team.took(what, time.perf_counter() - started)
        cookie = (answer.headers.get("set-cookie") or cookie).split(";")[0]
        if answer.status >= 400:
            with team.lock:
                team.refused.append(f"{path}: {answer.status} {data[:200]!r}")
            return None
        return json.loads(data) if answer.headers["content-type"] == "application/json" else data

    ask("login", "POST", "/api/login", {"token": token})
    for number, turn in enumerate(turns):
        found = ask("next", "POST", "/api/next", {"mode": "actions", "have": []})
        if not found or not found["tasks"]:
            return
        task = found["tasks"][0]
        ask("video", "GET", task["clip"]["video"], Range="bytes=0-262143")
        ask("thumbnail", "GET", task["clip"]["thumb"])
        time.sleep(max(0.0, turn - time.perf_counter()))
        value = {"actions": [_ACTIONS[(name + number) % len(_ACTIONS)]]}
        judgement = {"task_id": task["task_id"], "annotation_id": new_id(), "value": value, "seconds": 1.6}
        if ask("save", "POST", "/api/save", judgement) is not None:
            with team.lock:
                team.saved[judgement["annotation_id"]] = (f"anno{name}", task["task_id"])


def measure(annotators: int, clips: int, rate: float, seconds: float, folder: Path) -> dict[str, Any]:
    """Let a team work and return what happened."""
    dataset = make_dataset(folder / "ds", clips)
    names = ",".join(f"anno{number}" for number in range(annotators))
    command = [sys.executable, "-m", "microg.jobs.cli", "review", dataset.root, "--port", "0", "--annotators", names]
    begun = time.perf_counter()
    log = folder / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, "--second", str(SECOND)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        )
    try:
        while "Ctrl-C ends it" not in log.read_text():
            if server.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.02)
        start_s = time.perf_counter() - begun
        tokens = re.findall(r"#token=(\S+)", log.read_text())
        port = int(re.findall(r"127\.0\.0\.1:(\d+)", log.read_text())[0])
        team, first = Team(), time.perf_counter() + 1
        turns = [first + number / rate for number in range(int(rate * seconds))]
        threads = [
            threading.Thread(target=work, args=(number, token, port, turns[number::annotators], team))
            for number, token in enumerate(tokens)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        server.send_signal(signal.SIGINT)
        server.wait(timeout=120)
    finally:
        if server.poll() is None:
            server.kill()
    return {"start_s": round(start_s, 2), **compared(Dataset.open(dataset.root), team)}


def compared(dataset: Dataset, team: Team) -> dict[str, Any]:
    """Return how the dataset's table differs from what was acknowledged, and percentiles in milliseconds."""
    rows = read_annotations(dataset)
    known = Counter(each.annotation_id for each in rows)
    by_item = Counter((each.annotator, each.about) for each in rows)
    most = Counter(each.about for each in rows)
    times = {
        what: {f"p{p}_ms": round(float(np.percentile(each, p)) * 1000, 1) for p in (50, 95, 99)} | {"count": len(each)}
        for what, each in sorted(team.seconds.items())
    }
    return {
        "saved": len(team.saved),
        "rows": len(rows),
        "lost": len(set(team.saved) - set(known)),
        "doubled_rows": sum(count - 1 for count in known.values()),
        "judged_twice_by_one": sum(count - 1 for count in by_item.values()),
        "judged_by_two": sum(count == 2 for count in most.values()),
        "judged_by_more": sum(count > 2 for count in most.values()),
        "refused": team.refused[:5],
        "requests": times,
    }


def main(
    annotators: Annotated[int, typer.Option(help="Simulated annotators.")] = 8,
    clips: Annotated[int, typer.Option(help="Clips, of two people each.")] = 2000,
    rate: Annotated[float, typer.Option(help="Saves a second, all together.")] = 5.0,
    seconds: Annotated[float, typer.Option(help="How long they work.")] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Let simulated annotators judge people's actions at once."""
    with tempfile.TemporaryDirectory() as folder:
        result = measure(annotators, clips, rate, seconds, Path(folder))
    if as_json:
        print_json(result)
    else:
        for name, value in result.items():
            if name == "requests":
                for what, times in value.items():
                    say(f"{what}: {', '.join(f'{key} {each}' for key, each in times.items())}")
            else:
                say(f"{name}: {value}")
    wrong = sum(result[name] for name in ("lost", "doubled_rows", "judged_twice_by_one", "judged_by_more"))
    if wrong or result["refused"] or result["saved"] != result["rows"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    app = make_app(__doc__ or "")
    app.command()(main)
    run(app)
