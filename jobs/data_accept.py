"""`microg data accept`: the way into a dataset for what models made."""

from __future__ import annotations

from typing import Annotated

import typer

from microg.jobs.common import DryRunOption, JsonOption, command, finish, main, names_in

EPILOG = """
**Examples**

`microg data accept runs/qwen data/mine`

`microg data accept runs/qa data/mine --annotator anna` takes anna's yes, no and edits from review.csv

`microg data accept runs/i3d data/mine --threshold 0.6 --unreviewed --dry-run`

People accept, edit and reject the proposals in `microg review`; the same run again adds nothing.
"""


@command("data accept", epilog=EPILOG)
def data_accept(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run of 'vlm generate', 'data make-qa' or 'har predict'.")],
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Dataset folder.")],
    kinds: Annotated[
        str | None, typer.Option("--kinds", help="Kinds of proposals, separated by commas. [default: all of the run]")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="What to call the model. [default: the run folder's name]")
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Probability from which on a run of 'har predict' says an action.")
    ] = 0.5,
    unreviewed: Annotated[
        bool, typer.Option("--unreviewed", help="Take also what no person accepted, where no person judged.")
    ] = False,
    annotator: Annotated[
        str | None, typer.Option("--annotator", help="Who reviewed the list of a 'data make-qa' run.")
    ] = None,
    reviewed: Annotated[
        str | None, typer.Option("--reviewed", help="The reviewed list. [default: review.csv of the run]")
    ] = None,
    rule: Annotated[
        str | None, typer.Option("--rule", help="single, majority or adjudicated. [default: the one recorded]")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Take only the first N clips.")] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make what a model said judgements of a dataset beside people's, and accept what people accepted.

    Captions, answers and screenings of a vision-language model, questions of 'data make-qa', actions of 'har predict'.
    """
    from microg.jobs.commands.data_accept import AcceptOptions, accept_run, show

    options = AcceptOptions(
        kinds=None if kinds is None else tuple(names_in(kinds)),
        name=name,
        threshold=threshold,
        unreviewed=unreviewed,
        annotator=annotator,
        reviewed=reviewed,
        rule=rule,
        limit=limit,
    )
    finish(accept_run(run, dataset, options, dry_run=dry_run), show, as_json=as_json)


if __name__ == "__main__":
    main("Take what models made into a dataset.")
