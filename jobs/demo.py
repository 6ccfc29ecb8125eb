"""`microg demo`: the whole benchmark once, on a laptop, from footage to a leaderboard.

Each step is an ordinary command; it is printed before it runs, so that the demo can be repeated by hand. Every step
resumes, so that the demo does when it is run again.
"""

from __future__ import annotations

import importlib.util
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from microg.jobs.common import EXIT_FAILED_ROWS, make_app, run

# Small models are shown small frames: people fill more of 4:3 than of wider ones, and are drawn larger.
_ZOOM = ("--zoom", 1.3)
_FRAME = ("--width", 640, "--height", 480, *_ZOOM)
# What the language model learns from: people as upright as in the footage, few frames, many questions a clip.
LESSONS = ("--width", 320, "--height", 240, "--fps", 4, "--upright", 0.85, "--questions", 20, *_ZOOM)
_WEIGHTS = ("yolo11n.pt", "yolo11n_dq.pt")


def demo(
    footage: Annotated[
        str | None, typer.Argument(metavar="[FOOTAGE]", help="Folder with your own raw videos; default: synthetic.")
    ] = None,
    out: Annotated[str, typer.Option(help="Run folder to make or to resume.")] = "runs/demo",
    weights: Annotated[
        str | None, typer.Option(help="Detector weights: a name or a path; default: yolo11n.pt where it is found.")
    ] = None,
    videos: Annotated[int, typer.Option(min=1, help="Synthetic footage: how many files of 18 s.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Synthetic footage: seed.")] = 1,
    learn: Annotated[
        bool, typer.Option("--learn/--no-learn", help="Also train models on synthetic clips and score them.")
    ] = True,
    training_clips: Annotated[
        int, typer.Option("--training-clips", min=20, help="Clips to learn actions from; 7 times as many to answer.")
    ] = 240,
) -> None:
    """From raw footage to a leaderboard: curate, describe, train, predict, ask, score and report; minutes on 2 cores.

    Your own footage has no annotations to learn from and to score with: the demo then ends with the dataset's page.

    Examples:

    - `microg demo`
    - `microg demo my_videos/ --out runs/mine --weights weights/yolo11s.pt`
    """
    steps = _Steps()
    root = str(Path(out).absolute())
    dataset, page = f"{root}/dataset", f"{root}/demo.html"
    raw = footage or f"{root}/footage"
    detector, simulated = _detector(weights, synthetic=footage is None, root=root)
    if footage is None:
        steps("data synth", raw, "--footage", "--videos", videos, "--seconds", 18, *_FRAME, "--seed", seed)
    if simulated is not None:
        from microg.demo.synthetic.detections import write_detections

        print(
            "note: no detector weights were found, so the rendered truth is replayed in place of a detector "
            "('microg doctor' says how to get weights)",
            file=sys.stderr,
        )
        write_detections(raw, simulated)
    source = ("--weights", detector) if detector else ("--detections", simulated)
    steps("curate", raw, dataset, *source, "--previews", "--compare-rules")
    if footage is None:
        steps("data annotate-synthetic", dataset, raw)
    steps("data split", dataset, "--keep-unlabelled")
    steps("data validate", dataset, "--findings", f"{root}/findings.json")
    steps("data stats", dataset, "--out", f"{root}/statistics")
    steps("data page", dataset, page)
    if footage is None and learn:
        page = _learn(steps, root, dataset, training_clips, seed)
    _record(root, raw, detector, simulated, steps.seconds)
    print(f"\ndone in {sum(steps.seconds.values()):.0f} s; open {page}")
    if steps.failed:
        print(f"some rows failed in: {', '.join(steps.failed)}", file=sys.stderr)
        raise typer.Exit(EXIT_FAILED_ROWS)


def _learn(steps: _Steps, root: str, dataset: str, clips: int, seed: int) -> str:
    """Train models on rendered clips, score them on the curated ones, and return the report's page."""
    training = f"{root}/training"
    # other seeds than the footage's: nothing that is scored was learnt from
    steps("data synth", training, "--clips", clips, "--width", 320, "--height", 240, *_ZOOM, "--seed", seed + 1000)
    steps("data split", training)
    # fewer epochs than by default: enough to see that it learns
    steps(
        "har train",
        training,
        "--recipe",
        "tiny",
        "--set",
        "epochs=14",
        "--set",
        "validation.every=7",
        "--run",
        f"{root}/har_train",
    )
    steps("har predict", dataset, "--weights", f"{root}/har_train", "--split", "all", "--run", f"{root}/har_predict")
    steps(
        "har score",
        "--predictions",
        f"{root}/har_predict",
        "--groundtruth",
        dataset,
        "--split",
        "all",
        "--run",
        f"{root}/har_score",
    )
    lessons = f"{root}/lessons"
    steps("data synth", lessons, "--clips", 7 * clips, *LESSONS, "--seed", seed + 2000)
    steps("data split", lessons)
    steps("vlm train", lessons, "--run", f"{root}/vlm_train")
    engine = "vllm" if importlib.util.find_spec("vllm") else "transformers"
    steps(
        "vlm generate",
        "--model",
        f"{root}/vlm_train/model",
        "--engine",
        engine,
        "--dataset",
        dataset,
        "--run",
        f"{root}/vlm_generate",
    )
    steps("vlm score", "--run", f"{root}/vlm_generate", "--out", f"{root}/vlm_score")
    page = f"{root}/report.html"
    steps("report", root, "--out", page)
    steps("report", "--leaderboard", root, "--out", f"{root}/leaderboard.html")
    return page


class _Steps:
    """Runs commands one after another, and times them; failed rows do not stop the demo, bad input does."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []

    def __call__(self, command: str, *arguments: object) -> None:
        from microg.jobs.cli import app

        words = [*command.split(), *map(str, arguments)]
        print(f"\n$ microg {shlex.join(words)}", flush=True)
        started = time.monotonic()
        code = app(words, standalone_mode=False)
        if code == EXIT_FAILED_ROWS:
            self.failed.append(command)
        elif code:
            raise typer.Exit(code)
        seconds = time.monotonic() - started
        self.seconds[command] = self.seconds.get(command, 0.0) + seconds
        print(f"# {command}: {seconds:.1f} s", flush=True)


def _detector(weights: str | None, *, synthetic: bool, root: str) -> tuple[str | None, str | None]:
    """Return (weights, None), or (None, folder of simulated detections) for synthetic footage without weights."""
    from microg.system.weights import find_weights, require_weights

    if weights is not None:
        return str(require_weights(weights)), None
    found = next((path for name in _WEIGHTS if (path := find_weights(name))), None)
    if found is not None:
        return str(found), None
    if not synthetic:
        require_weights(_WEIGHTS[0])  # raises, saying how to get them
    return None, f"{root}/simulated_detections"


def _record(root: str, raw: str, detector: str | None, simulated: str | None, seconds: dict[str, float]) -> None:
    """Make the demo's folder a run folder: what was asked, and how it ended."""
    from microg.config import Config
    from microg.data.dataset import Dataset
    from microg.runs import Run

    class DemoSettings(Config):
        footage: str
        detector: str

    settings = DemoSettings(footage=Path(raw).name, detector=Path(detector or simulated or "").name)
    dataset = Dataset.open(f"{root}/dataset")
    run_folder = Run.start(root, "demo", settings)
    run_folder.finish({"dataset": dataset.fingerprint(), "seconds": seconds})


if __name__ == "__main__":
    app = make_app("Run the demo.")
    app.command()(demo)
    run(app)
