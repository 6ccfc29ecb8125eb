"""The steps of `microg demo`: the whole benchmark once, on a laptop, from footage to a leaderboard.

Each step is an ordinary command; it is printed before it runs, so that the demo can be repeated by hand. Every step
resumes, so that the demo does when it is run again.
"""

from __future__ import annotations

import importlib.util
import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from microg import storage
from microg.config import Config
from microg.console import say, say_aside
from microg.data.dataset import Dataset
from microg.demo.trained import ACTION_WEIGHTS, LANGUAGE_MODEL
from microg.errors import WeightsError
from microg.locks import exclusive
from microg.runs import Run, code_version
from microg.system import zoo
from microg.system.weights import find_weights

# Small models are shown small frames: people fill more of 4:3 than of wider ones, and are drawn larger.
_ZOOM = ("--zoom", 1.3)
_FRAME = ("--width", 640, "--height", 480, *_ZOOM)
# What the language model learns from: people as upright as in the footage, few frames, many questions a clip.
LESSONS = ("--width", 320, "--height", 240, "--fps", 4, "--upright", 0.85, "--questions", 20, *_ZOOM)
_DETECTORS = ("yolo11n.pt", "yolo11n_dq.pt", "yolox_s.onnx", "yolox_tiny.onnx")
# The zero-shot model for real people: classes of AVA. It is used where it is, as it takes 10 s of a core a person.
ZERO_SHOT = ("SLOW_8x8_R50_AVA.pkl", "ZEROSHOT_SLOW_8x8_R50_K400")

# Runs one command from its words; returns whether all rows were fine, and raises where it could not be done.
RunCommand = Callable[[Sequence[str]], bool]


@dataclass(frozen=True, kw_only=True)
class StorySettings:
    """What the demo is made of.

    Attributes:
        out: Run folder to make or to resume.
        footage: Folder with raw videos of the user's own; None draws some.
        weights: Detector weights, a name or a path; None takes what is found or can be fetched.
        videos: Files of drawn footage, of 18 s each.
        seed: Of drawn footage.
        models: Whether models predict, describe and answer, and are scored where there is truth.
        train: Whether to train the tiny models on drawn clips instead of using those of the package.
        training_clips: Clips to learn actions from; 7 times as many to learn answers from.
        language_model: What describes clips, as `vlm generate --model` takes it; None: the package's tiny model.
    """

    out: str
    footage: str | None = None
    weights: str | None = None
    videos: int = 4
    seed: int = 1
    models: bool = True
    train: bool = False
    training_clips: int = 240
    language_model: str | None = None


class DemoSettings(Config):
    """What the demo's run folder records."""

    footage: str = Field(description="Name of the folder with the footage.")
    detector: str = Field(description="Name of the detector's weights, or of the folder of simulated detections.")
    videos: int = Field(default=0, description="Files of drawn footage.")
    seed: int = Field(default=0, description="Seed of drawn footage.")
    models: bool = Field(default=True, description="Whether models were run.")
    train: bool = Field(default=False, description="Whether the models were trained on drawn clips.")
    training_clips: int = Field(default=0, description="Clips that actions were learnt from.")
    actions: str | None = Field(default=None, description="Name of the weights that recognised actions.")
    language_model: str | None = Field(default=None, description="Name of the model that described clips.")


@dataclass(frozen=True)
class Step:
    """One command: its words, and how long it takes on two cores, in seconds (None: that depends on the footage)."""

    command: str
    arguments: tuple[object, ...]
    about_s: float | None = None

    @property
    def words(self) -> list[str]:
        """The words of the command line."""
        return [*self.command.split(), *map(str, self.arguments)]


def run_story(settings: StorySettings, run_command: RunCommand) -> list[str]:
    """Run the demo's commands in order; return those in which some rows failed."""
    root = str(Path(settings.out).absolute())
    with exclusive(root):
        return _run_story(settings, run_command, root)


def _run_story(settings: StorySettings, run_command: RunCommand, root: str) -> list[str]:
    synthetic = settings.footage is None
    detector, simulated = _detector(settings.weights, synthetic=synthetic, root=root)
    zero_shot = None if synthetic else find_weights(ZERO_SHOT[0])
    recorded = DemoSettings(
        footage=Path(settings.footage or "footage").name,
        detector=Path(detector or simulated or "").name,
        videos=settings.videos if synthetic else 0,
        seed=settings.seed if synthetic else 0,
        models=settings.models,
        train=settings.train,
        training_clips=settings.training_clips if settings.train else 0,
        actions=None if not settings.models or settings.train else (zero_shot or ACTION_WEIGHTS).name,
        language_model=None
        if not settings.models or settings.train
        else settings.language_model or LANGUAGE_MODEL.name,
    )
    run = Run.start(root, "demo", recorded)
    page = f"{root}/{'report' if settings.models else 'demo'}.html"
    if _is_done(run, page):
        say(f"everything is done already; open {page}", "(another --out makes another demo)")
        return []
    steps = [*_data_steps(settings, root, (detector, simulated))]
    if settings.models:
        steps += _model_steps(settings, root, zero_shot)
    seconds, failed = _run_steps(steps, run_command, simulated if synthetic else None, f"{root}/footage")
    fingerprint = Dataset.open(f"{root}/dataset").fingerprint()
    run.finish({"dataset": fingerprint, "seconds": seconds, "failed": failed, "code_version": code_version()})
    if not synthetic and settings.models and zero_shot is None:
        say_aside(
            "note: the tiny models of the package know drawn people only. For a real zero-shot model of actions: "
            f"microg data download weights {ZERO_SHOT[0]}; for captions: --language-model MODEL ('microg vlm models' "
            "lists some); then give another --out"
        )
    say("", f"done in {sum(seconds.values()):.0f} s; open {page}")
    return failed


def _is_done(run: Run, page: str) -> bool:
    """Tell whether this code finished the demo before, nothing failed, and its data and page are as it left them."""
    path = storage.join(run.root, "metrics.json")
    if not storage.exists(path) or not storage.exists(page):
        return False
    ended = storage.read_json(path)
    try:
        fingerprint = Dataset.open(storage.join(run.root, "dataset")).fingerprint()
    except Exception:  # whatever became of it, its own command says
        return False
    same = ended.get("dataset") == fingerprint and ended.get("code_version") == code_version()
    return same and not ended.get("failed")


def _data_steps(settings: StorySettings, root: str, detector: tuple[str | None, str | None]) -> Iterable[Step]:
    """Yield what makes the dataset and its page."""
    dataset, raw = f"{root}/dataset", settings.footage or f"{root}/footage"
    drawn = settings.footage is None
    if drawn:
        frames = ("--footage", "--videos", settings.videos, "--seconds", 18, *_FRAME, "--seed", settings.seed)
        yield Step("data synth", (raw, *frames), 4 * settings.videos)
    source = ("--weights", detector[0]) if detector[0] else ("--detections", detector[1])
    yield Step(
        "curate", (raw, dataset, *source, "--previews", "--compare-rules"), 9 * settings.videos if drawn else None
    )
    if drawn:
        yield Step("data annotate-synthetic", (dataset, raw), 1)
    yield Step("data split", (dataset, "--keep-unlabelled"), 1)
    yield Step("data validate", (dataset, "--findings", f"{root}/findings.json"), 1)
    yield Step("data stats", (dataset, "--out", f"{root}/statistics"), 5)
    yield Step("data page", (dataset, f"{root}/demo.html"), 5)


def _model_steps(settings: StorySettings, root: str, zero_shot: Path | None) -> Iterable[Step]:
    """Yield what trains models or takes those there are, what they do, their scores and the report."""
    dataset, drawn = f"{root}/dataset", settings.footage is None
    actions: tuple[object, ...] = ("--weights", ACTION_WEIGHTS)
    language: object = settings.language_model or LANGUAGE_MODEL
    clips = settings.training_clips
    if settings.train:
        training, lessons = f"{root}/training", f"{root}/lessons"
        small = ("--width", 320, "--height", 240, *_ZOOM)
        # other seeds than the footage's: nothing that is scored was learnt from
        yield Step("data synth", (training, "--clips", clips, *small, "--seed", settings.seed + 1000), 0.35 * clips)
        yield Step("data split", (training,), 1)
        # fewer epochs than by default: enough to see that it learns
        epochs = ("--set", "epochs=14", "--set", "validation.every=7")
        yield Step("har train", (training, "--recipe", "tiny", *epochs, "--run", f"{root}/har_train"), 0.35 * clips)
        yield Step("data synth", (lessons, "--clips", 7 * clips, *LESSONS, "--seed", settings.seed + 2000), 0.6 * clips)
        yield Step("data split", (lessons,), 1)
        yield Step("vlm train-tiny", (lessons, "--run", f"{root}/vlm_train"), 2.1 * clips)
        actions, language = ("--weights", f"{root}/har_train"), f"{root}/vlm_train/model"
    elif zero_shot is not None:
        actions = ("--weights", zero_shot, "--model", ZERO_SHOT[1])
    predictions, answers = f"{root}/har_predict", f"{root}/vlm_generate"
    yield Step("har predict", (dataset, *actions, "--split", "all", "--run", predictions), 10 if drawn else None)
    truth = ("--groundtruth", dataset, "--split", "all", "--run", f"{root}/har_score")
    if drawn:
        yield Step("har score", ("--predictions", predictions, *truth), 3)
    engine = (
        () if settings.language_model else ("--engine", "vllm" if importlib.util.find_spec("vllm") else "transformers")
    )
    task = () if drawn else ("--task", "caption")
    yield Step(
        "vlm generate",
        ("--model", language, *engine, "--dataset", dataset, *task, "--run", answers),
        45 if drawn else None,
    )
    if drawn:
        yield Step("vlm score", ("--run", answers, "--out", f"{root}/vlm_score"), 14)
    yield Step("report", (root, "--out", f"{root}/report.html"), 4)
    if drawn:
        yield Step("report", ("--leaderboard", root, "--out", f"{root}/leaderboard.html"), 1)


def _run_steps(
    steps: Sequence[Step], run_command: RunCommand, simulated: str | None, raw: str
) -> tuple[dict[str, float], list[str]]:
    """Run commands one after another; return their seconds and those in which rows failed. Bad input ends it."""
    seconds: dict[str, float] = {}
    failed: list[str] = []
    say_aside(f"{len(steps)} steps, {_duration(steps)} on two cores")
    for place, step in enumerate(steps):
        if step.command == "curate" and simulated is not None:
            from microg.demo.synthetic.detections import write_detections

            write_detections(raw, simulated)
        left = f"{_duration(steps[place:])} to go"
        say("", f"[{place + 1}/{len(steps)}, {left}] microg {shlex.join(step.words)}")
        started = time.monotonic()
        if not run_command(step.words):
            failed.append(step.command)
        took = time.monotonic() - started
        seconds[step.command] = seconds.get(step.command, 0.0) + took
        say(f"# {step.command}: {took:.1f} s")
    return seconds, failed


def _duration(steps: Sequence[Step]) -> str:
    total = sum(step.about_s or 0 for step in steps)
    more = " and what your footage takes" if any(step.about_s is None for step in steps) else ""
    minutes, seconds = divmod(round(total, -1), 60)
    return (f"about {total:.0f} s" if total < 100 else f"about {minutes:.0f} min {seconds:.0f} s") + more


def _detector(weights: str | None, *, synthetic: bool, root: str) -> tuple[str | None, str | None]:
    """Return (weights, None), or for drawn footage without any (None, folder of simulated detections)."""
    if weights is not None:
        return str(zoo.require_weights(weights)), None
    found = next((path for name in _DETECTORS if (path := find_weights(name))), None)
    if found is not None:
        return str(found), None
    try:
        return str(zoo.require_weights(_DETECTORS[0])), None
    except WeightsError as error:
        if not synthetic:
            raise
        say_aside(f"note: the rendered truth is replayed in place of a detector: {error.what}")
    return None, f"{root}/simulated_detections"
