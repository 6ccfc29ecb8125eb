"""What decoders of clips cost: whole clips, and chosen frames of them; all of one run, interleaved.

    uv run python benchmarks/decoders.py CLIPS_FOLDER --decoders pyav,torchcodec,decord

CPU seconds of this process, the least of the repeats, as the commands would spend them: with the check that a clip is
one that the decoder reads right.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from microg.console import say
from microg.jobs.common import JsonOption, make_app, print_json, run
from microg.models.curation.clip_process import limit_threads
from microg.models.video.decoders.base import ClipDecoder
from microg.models.video.decoders.registry import BEST, open_decoder
from microg.video import count_frames

app = make_app("Measure what decoders of clips cost.")


def _jobs(frames: int) -> dict[str, Callable[[ClipDecoder, str], Any]]:
    spread = np.linspace(0, frames - 1, 8).astype(int).tolist()
    window = list(range(max(0, frames // 2 - 32), min(frames, frames // 2 + 32), 2))
    scattered = sorted(np.random.default_rng(0).choice(frames, min(10, frames), replace=False).tolist())
    return {
        "whole clip": lambda decoder, uri: sum(1 for _ in decoder.frames(uri)),
        "8 frames over the clip": lambda decoder, uri: decoder.frames_at(uri, spread),
        "32 of 64 frames in the middle": lambda decoder, uri: decoder.frames_at(uri, window),
        "10 frames anywhere": lambda decoder, uri: decoder.frames_at(uri, scattered),
    }


@app.command()
def compare(
    clips: Annotated[Path, typer.Argument(help="Folder of clips.")],
    decoders: Annotated[str, typer.Option(help="Names, separated by commas.")] = BEST,
    limit: Annotated[int, typer.Option(min=1, help="Clips.")] = 5,
    repeats: Annotated[int, typer.Option(min=1, help="Tries of each, of which the least counts.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Tell CPU milliseconds a clip, and the ratio to the default decoder."""
    limit_threads(1)
    names = list(dict.fromkeys([BEST, *decoders.split(",")]))
    spent: dict[str, dict[str, float]] = {}
    for path in sorted(clips.glob("*.mp4"))[:limit]:
        for job, work in _jobs(count_frames(str(path))).items():
            least: dict[str, float] = {}
            for _ in range(repeats):
                for name in names:
                    decoder = open_decoder(name)
                    started = time.process_time()
                    work(decoder, str(path))
                    least[name] = min(least.get(name, np.inf), time.process_time() - started)
            row = spent.setdefault(job, dict.fromkeys(names, 0.0))
            for name, seconds in least.items():
                row[name] += 1000 * seconds / limit
    report = {
        job: {name: {"ms": round(ms, 1), "of_default": round(ms / row[BEST], 2)} for name, ms in row.items()}
        for job, row in spent.items()
    }
    if as_json:
        print_json(report)
        return
    for job, row in report.items():
        say(f"{job}: " + ", ".join(f"{name} {one['ms']} ms ({one['of_default']})" for name, one in row.items()))


if __name__ == "__main__":
    run(app)
