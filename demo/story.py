"""The steps of `microg demo`: the whole benchmark once, on a laptop, from footage to a leaderboard.

Each step is an ordinary command; it is printed before it runs, so that the demo can be repeated by hand. Every step
resumes, so that the demo does when it is run again.
"""

from __future__ import annotations

import importlib.util
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from microg.config import Config
from microg.console import say, say_aside
from microg.data.dataset import Dataset
from microg.locks import exclusive
from microg.runs import Run
from microg.system.weights import find_weights
from microg.system.zoo import require_weights

# Small models are shown small frames: people fill more of 4:3 than of wider ones, and are drawn larger.
_ZOOM = ("--zoom", 1.3)
_FRAME = ("--width", 640, "--height", 480, *_ZOOM)
# What the language model learns from: people as upright as in the footage, few frames, many questions a clip.
LESSONS = ("--width", 320, "--height", 240, "--fps", 4, "--upright", 0.85, "--questions", 20, *_ZOOM)
_WEIGHTS = ("yolo11n.pt", "yolo11n_dq.pt")

# Runs one command from its words; returns whether all rows were fine, and raises where it could not be done.
RunCommand = Callable[[Sequence[str]], bool]


@dataclass(frozen=True, kw_only=True)
class StorySettings:
    """What the demo is made of.

    Attributes:
        out: Run folder to make or to resume.
        footage: Folder with raw videos of the user's own; None draws some.
        weights: Detector weights, a name or a path; None takes what is found.
        videos: Files of drawn footage, of 18 s each.
        seed: Of drawn footage.
        learn: Whether to train models on drawn clips and score them, too.
        training_clips: Clips to learn actions from; 7 times as many to learn answers from.
    """

    out: str
    footage: str | None = None
    weights: str | None = None
    videos: int = 4
    seed: int = 1
    learn: bool = True
    training_clips: int = 240


class DemoSettings(Config):
    """What the demo's run folder records."""

    footage: str = Field(description="Name of the folder with the footage.")
    detector: str = Field(description="Name of the detector's weights, or of the folder of simulated detections.")


def run_story(settings: StorySettings, run_command: RunCommand) -> list[str]:
    """Run the demo's commands in order; return those in which some rows failed."""
    root = str(Path(settings.out).absolute())
    with exclusive(root):
        return _run_story(settings, run_command, root)


def _run_story(settings: StorySettings, run_command: RunCommand, root: str) -> list[str]:
    steps, seed = _Steps(run_command), settings.seed
    dataset, page = f"{root}/dataset", f"{root}/demo.html"
    synthetic = settings.footage is None
    raw = settings.footage or f"{root}/footage"
    detector, simulated = _detector(settings.weights, synthetic=synthetic, root=root)
    if synthetic:
        steps("data synth", raw, "--footage", "--videos", settings.videos, "--seconds", 18, *_FRAME, "--seed", seed)
    if simulated is not None:
        from microg.demo.synthetic.detections import write_detections

        say_aside(
            "note: no detector weights were found, so the rendered truth is replayed in place of a detector "
            "('microg doctor' says how to get weights)"
        )
        write_detections(raw, simulated)
    source = ("--weights", detector) if detector else ("--detections", simulated)
    steps("curate", raw, dataset, *source, "--previews", "--compare-rules")
    if synthetic:
        steps("data annotate-synthetic", dataset, raw)
    steps("data split", dataset, "--keep-unlabelled")
    steps("data validate", dataset, "--findings", f"{root}/findings.json")
    steps("data stats", dataset, "--out", f"{root}/statistics")
    steps("data page", dataset, page)
    if synthetic and settings.learn:
        page = _learn(steps, root, dataset, settings.training_clips, seed)
    recorded = DemoSettings(footage=Path(raw).name, detector=Path(detector or simulated or "").name)
    fingerprint = Dataset.open(dataset).fingerprint()
    Run.start(root, "demo", recorded).finish({"dataset": fingerprint, "seconds": steps.seconds})
    say("", f"done in {sum(steps.seconds.values()):.0f} s; open {page}")
    return steps.failed


def _learn(steps: _Steps, root: str, dataset: str, clips: int, seed: int) -> str:
    """Train models on rendered clips, score them on the curated ones, and return the report's page."""
    training, lessons = f"{root}/training", f"{root}/lessons"
    train, predict, score = (f"{root}/har_{name}" for name in ("train", "predict", "score"))
    # other seeds than the footage's: nothing that is scored was learnt from
    steps("data synth", training, "--clips", clips, "--width", 320, "--height", 240, *_ZOOM, "--seed", seed + 1000)
    steps("data split", training)
    # fewer epochs than by default: enough to see that it learns
    epochs = ("--set", "epochs=14", "--set", "validation.every=7")
    steps("har train", training, "--recipe", "tiny", *epochs, "--run", train)
    steps("har predict", dataset, "--weights", train, "--split", "all", "--run", predict)
    steps("har score", "--predictions", predict, "--groundtruth", dataset, "--split", "all", "--run", score)
    steps("data synth", lessons, "--clips", 7 * clips, *LESSONS, "--seed", seed + 2000)
    steps("data split", lessons)
    steps("vlm train", lessons, "--run", f"{root}/vlm_train")
    engine = "vllm" if importlib.util.find_spec("vllm") else "transformers"
    model = ("--model", f"{root}/vlm_train/model", "--engine", engine)
    steps("vlm generate", *model, "--dataset", dataset, "--run", f"{root}/vlm_generate")
    steps("vlm score", "--run", f"{root}/vlm_generate", "--out", f"{root}/vlm_score")
    page = f"{root}/report.html"
    steps("report", root, "--out", page)
    steps("report", "--leaderboard", root, "--out", f"{root}/leaderboard.html")
    return page


class _Steps:
    """Runs commands one after another, and times them; failed rows do not stop the demo, bad input does."""

    def __init__(self, run_command: RunCommand) -> None:
        self._run_command = run_command
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []

    def __call__(self, command: str, *arguments: object) -> None:
        words = [*command.split(), *map(str, arguments)]
        say("", f"$ microg {shlex.join(words)}")
        started = time.monotonic()
        if not self._run_command(words):
            self.failed.append(command)
        seconds = time.monotonic() - started
        self.seconds[command] = self.seconds.get(command, 0.0) + seconds
        say(f"# {command}: {seconds:.1f} s")


def _detector(weights: str | None, *, synthetic: bool, root: str) -> tuple[str | None, str | None]:
    """Return (weights, None), or (None, folder of simulated detections) for synthetic footage without weights."""
    if weights is not None:
        return str(require_weights(weights)), None
    found = next((path for name in _WEIGHTS if (path := find_weights(name))), None)
    if found is not None:
        return str(found), None
    if not synthetic:
        require_weights(_WEIGHTS[0])  # raises, saying how to get them
    return None, f"{root}/simulated_detections"
