"""What `microg vlm train-tiny` plans and prints."""

from __future__ import annotations

from collections import Counter
from typing import Any

from microg.console import ProgressDisplay, say, say_aside
from microg.demo.tiny_vlm.lessons import read_lessons
from microg.demo.tiny_vlm.settings import VlmTrainSettings


def plan(settings: VlmTrainSettings, dataset: str, folder: str) -> dict[str, Any]:
    """Return what a training would learn from, and how long."""
    lessons = read_lessons(dataset, settings)
    kinds = Counter(lesson.kind for clip in lessons.train for lesson in clip.lessons)
    return {
        "run": folder,
        "dataset": dataset,
        "clips": {"train": len(lessons.train), "val": len(lessons.val)},
        "lessons": dict(kinds),
        "questions_answered_by_labels": sum(sum(map(len, c.more)) for c in lessons.train),
        "frames": settings.frames.label(),
        "views": settings.views,
        "size": vars(settings.size),
        "vision_epochs": settings.vision_epochs,
        "epochs": settings.epochs,
        "steps": (settings.vision_epochs + settings.epochs) * -(-len(lessons.train) // settings.batch),
        "device": settings.device,
    }


class TrainingDisplay:
    """Bars: clips read, then steps of each phase of the training with loss and rate."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._phase = ""

    def __enter__(self) -> TrainingDisplay:
        return self

    def update(self, event: dict[str, Any]) -> None:
        """Show how far the training is."""
        if event["phase"] == "read":
            self._begin("read", event["total"], "clips")
            self._bar.advance(1, int(event["error"] is not None))
            return
        left = (event["end"] - event["epoch"]) * event["steps"] - event["step"] + 1
        self._begin(event["phase"], left, "steps")
        self._bar.advance(1, note=f"epoch {event['epoch'] + 1}/{event['end']}, loss {event['loss']:.3f}")

    def _begin(self, phase: str, total: int, unit: str) -> None:
        if self._bar is None or self._phase != phase or (phase == "read" and self._bar.done == self._bar.total):
            self.__exit__()
            self._bar = ProgressDisplay(phase, total, unit=unit).__enter__()
            self._phase = phase

    def __exit__(self, *ended: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None


def show(result: dict[str, Any]) -> None:
    """Print what was trained, what failed, and what to do next."""
    if result["already_finished"]:
        say(f"{result['run']} is finished: {result['epochs']} epochs. Give another --run to train again.")
    say(f"{result['clips']['train']} clips to learn from, {result['clips']['val']} to look at")
    for row in result["history"]:
        if "val" in row:
            right = ", ".join(f"{kind} {share:.0%}" for kind, share in row["val"].items())
            say(f"epoch {row['epoch']:3d}: loss {row['loss']:.3f}, {row['train_s']:.0f} s; right on val: {right}")
    for failure in result["failures"][:5]:
        say_aside(f"failed: {failure}")
    if len(result["failures"]) > 5:
        say_aside(f"failed: {len(result['failures']) - 5} more, see {result['run']}/metrics.json")
    say(f"next: microg vlm generate --model {result['model']} --dataset DATASET --split test --run ...")
