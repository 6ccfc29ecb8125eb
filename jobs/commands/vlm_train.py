"""What `microg vlm train` plans and prints."""

from __future__ import annotations

from typing import Any

from microg.console import say, say_aside
from microg.pipelines.vlm.train.run import check_and_plan
from microg.pipelines.vlm.train.settings import TuneSettings

_SHOWN_FAILURES = 5


def plan(settings: TuneSettings, dataset: str, folder: str) -> dict[str, Any]:
    """Return what a training would learn from, and how long."""
    setup = check_and_plan(settings, dataset, folder)
    filled, order = setup.settings, setup.context.plan
    return {
        "run": setup.context.root,
        "dataset": dataset,
        "model": setup.card.name,
        "method": filled.method,
        "tasks": ", ".join(filled.tasks),
        "frames": filled.policy().label(),
        "prompts": {task: filled.prompt_of(task).id for task in filled.tasks},
        "scheme": filled.scheme,
        "train": setup.lessons.count("train"),
        "val": setup.lessons.count("val"),
        "answered_in_validation": len(setup.context.generated),
        "epochs": filled.epochs,
        "steps_per_epoch": order.iterations,
        "batch": f"{filled.batch} clips = {order.micro_batches} x {order.workers} workers",
        "sharding": filled.sharding,
        "notes": list(setup.lessons.notes),
    }


def show(result: dict[str, Any]) -> None:
    """Print what was learnt, what failed, and what to do next."""
    if result["already_finished"]:
        say(f"{result['run']} is finished: {result['epochs']} epochs. Give another --run to train again.")
    for note in result["notes"]:
        say(f"note: {note}")
    train = result["lessons"]["train"]
    lessons = f"{train['clips']} clips, {train['captions']} captions, {train['answers']} answers"
    say(f"{result['model']} by {result['method']}: {lessons}")
    for row in result["history"]:
        val = "" if row["val_loss"] is None else f", on val {row['val_loss']:.4f}"
        best = " (best)" if row["best"] else ""
        say(f"epoch {row['epoch']:3d}: loss {row['loss']:.4f}{val}, {row['train_s']:.0f} s{best}")
    for failure in result["failures"][:_SHOWN_FAILURES]:
        say_aside(f"failed: {failure}")
    if len(result["failures"]) > _SHOWN_FAILURES:
        more = len(result["failures"]) - _SHOWN_FAILURES
        say_aside(f"failed: {more} more, see {result['run']}/metrics.json")
    if result["complete"]:
        say(f"wrote {result['learnt']}")
        asked = f"--adapter {result['run']}" if result["method"] != "full" else f"--model {result['learnt']}"
        say(f"next: microg vlm generate {asked} --dataset DATASET --split test --scheme SCHEME --run ...")
