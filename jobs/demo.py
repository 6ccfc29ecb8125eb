"""`microg demo`: the whole benchmark once, on a laptop, from footage to a leaderboard (`microg.demo.story`)."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from microg.console import say_aside
from microg.jobs.common import EXIT_FAILED_ROWS, command


@command("demo")
def demo(
    context: typer.Context,
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
        learn=learn,
        training_clips=training_clips,
    )
    failed = run_story(settings, run_command)
    if failed:
        say_aside(f"some rows failed in: {', '.join(failed)}")
        raise typer.Exit(EXIT_FAILED_ROWS)


if __name__ == "__main__":
    # It runs the other commands, so it must be one of them.
    sys.argv.insert(1, "demo")
    runpy.run_module("microg.jobs.cli", run_name="__main__")
