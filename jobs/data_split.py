"""`microg data split`: key boxes with their labels, and the train / val / test split."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from microg.jobs.common import DryRunOption, JsonOption, command, finish, main


@command("data split")
def split(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Dataset folder with boxes and actions.")],
    scheme: Annotated[
        Literal["published", "source", "both"],
        typer.Option(help="published: by clip, as in the paper; source: no source video in two splits; both."),
    ] = "both",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the shuffles; 42 is the published one.")] = 42,
    keep_unlabelled: Annotated[
        bool, typer.Option("--keep-unlabelled", help="Also keep key boxes of persons without actions, with a null.")
    ] = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make the tables `samples` (one key frame a person) and `splits` (70/10/20, every action in train).

    Examples:

    - `microg data split data/microg4m`
    - `microg data split data/mine --scheme source --seed 7`
    """
    from microg.jobs.commands.data_split import show, split_dataset

    report = split_dataset(dataset, scheme, seed=seed, keep_unlabelled=keep_unlabelled, dry_run=dry_run)
    finish(report, show, as_json=as_json)


if __name__ == "__main__":
    main("Split a dataset.")
