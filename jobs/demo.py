"""`microg demo`: the whole benchmark once, on a laptop, from footage to a leaderboard (`microg.demo.story`)."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from microg.console import say_aside
from microg.jobs.common import EXIT_FAILED_ROWS, OfflineOption, command


@command("demo")
def demo(
    context: typer.Context,
    footage: Annotated[
        str | None, typer.Argument(metavar="[FOOTAGE]", help="Folder with your own raw videos; default: synthetic.")
    ] = None,
    out: Annotated[str, typer.Option(help="Run folder to make or to resume.")] = "runs/demo",
    weights: Annotated[
        str | None, typer.Option(help="Detector weights: a name or a path; default: what is here, else yolo11n.pt.")
    ] = None,
    videos: Annotated[int, typer.Option(min=1, help="Synthetic footage: how many files of 18 s.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Synthetic footage: seed.")] = 1,
    models: Annotated[
        bool, typer.Option("--models/--no-models", help="Also recognise actions, describe and answer, and score.")
    ] = True,
    train: Annotated[
        bool,
        typer.Option("--train", help="Train the tiny models anew on drawn clips, instead of using the package's."),
    ] = False,
    training_clips: Annotated[
        int,
        typer.Option(
            "--training-clips", min=20, help="With --train: clips to learn actions from; 7 times as many to answer."
        ),
    ] = 240,
    language_model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="What describes clips ('microg vlm models'); default: the package's tiny one."
        ),
    ] = None,
    offline: OfflineOption = False,
) -> None:
    """From raw footage to a leaderboard: curate, describe, predict, ask, score and report; 3 minutes on 2 cores.

    The footage is drawn, and the tiny models that come with the package were trained on drawn people. Your own footage
    has no truth to score with: the demo then ends with a page of what a zero-shot model of actions (where it has been
    fetched: SLOW_8x8_R50_AVA.pkl) and the language model say of each clip. Run again, it does what is missing.

    Examples:

    - `microg demo`
    - `microg demo my_videos/ --out runs/mine --weights yolo11s.pt`
    - `microg demo --train --out runs/trained` (13 minutes)
    """
    from microg.demo.story import StorySettings, run_story

    root = context.find_root().command

    def run_command(words: Sequence[str]) -> bool:
        code = root.main(list(words), standalone_mode=False)
        if code and code != EXIT_FAILED_ROWS:
            raise typer.Exit(code)
        return not code

    settings = StorySettings(
        out=out,
        footage=footage,
        weights=weights,
        videos=videos,
        seed=seed,
        models=models,
        train=train,
        training_clips=training_clips,
        language_model=language_model,
    )
    failed = run_story(settings, run_command)
    if failed:
        say_aside(f"some rows failed in: {', '.join(failed)}")
        raise typer.Exit(EXIT_FAILED_ROWS)


if __name__ == "__main__":
    # It runs the other commands, so it must be one of them.
    sys.argv.insert(1, "demo")
    runpy.run_module("microg.jobs.cli", run_name="__main__")
