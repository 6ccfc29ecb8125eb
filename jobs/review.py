"""`microg review`: people screen, label and caption a dataset's clips in their browsers, several at once."""

from __future__ import annotations

from typing import Annotated

import typer

from microg.jobs.common import AllowExternalOption, DryRunOption, command, main, names_in

EPILOG = """
**Examples**

`microg review data/mine`

`microg review data/mine --modes screen,actions --order uncertain --proposals runs/i3d`

`microg review data/mine --host 0.0.0.0 --annotators anna,ben --adjudicators cara --second 0.1`

`microg review s3://bucket/mine --dry-run`

Each judgement is on the disk (`DATASET/review/review.sqlite`) before the page moves on, and in the dataset's table
`annotations` within a minute. Ctrl-C ends the server; the same command goes on where it ended. What people said becomes
the dataset's labels with `microg data adjudicate`.
"""


@command("review", epilog=EPILOG)
def review(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="Dataset folder, or a URI such as s3://bucket/name.")
    ],
    modes: Annotated[
        str,
        typer.Option(
            help="What is judged, separated by commas: screen, actions, boxes, captions, questions, adjudicate."
        ),
    ] = "screen,actions,boxes,captions,questions,adjudicate",
    annotator: Annotated[
        str | None, typer.Option(help="Who judges where nobody needs a token. [default: your user name]")
    ] = None,
    annotators: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Who gets a link with a token, separated by commas.")
    ] = None,
    adjudicators: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Who gets a link, and settles what others said, too.")
    ] = None,
    new_tokens: Annotated[bool, typer.Option("--new-tokens", help="Replace everybody's token and link.")] = False,
    second: Annotated[
        float, typer.Option(min=0, max=1, help="Share of items that one annotator more judges, blind.")
    ] = 0.0,
    each: Annotated[
        int, typer.Option("--annotators-each", min=1, max=100, help="How many annotators judge each item.")
    ] = 1,
    order: Annotated[
        str, typer.Option(metavar="<dataset|random|uncertain|disagreed|rarest>", help="What comes first.")
    ] = "dataset",
    proposals: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUN",
            help="Run of har predict, vlm generate or data make-qa that proposes; may be given repeatedly.",
        ),
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Least probability of an action that a run proposes.")
    ] = 0.5,
    round_number: Annotated[
        int, typer.Option("--round", min=1, help="Number of the round; a new one asks everything again.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Chooses the items of --second, and the order random.")] = 0,
    lease: Annotated[
        float, typer.Option(min=5, help="Seconds that somebody holds an item without a sign of life.")
    ] = 300.0,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets the network in, by tokens.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any.")] = 8765,
    public_host: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name by which a proxy with HTTPS makes the server known.")
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Folder of the SQLite file, on this machine. [default: DATASET/review]"),
    ] = None,
    cache_gb: Annotated[
        float, typer.Option("--cache-gb", min=0.1, help="What videos that were fetched or converted may take.")
    ] = 10.0,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in this machine's browser.")] = False,
    allow_external: AllowExternalOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Let people screen clips, label actions, correct boxes, captions and questions, and settle what they differ in.

    One page, keyboard first, for one annotator or a team on a network: nobody does what others did or are doing, a
    share of the items may be judged twice, blind, and a third person adjudicates.
    """
    from microg.jobs.commands.review import checked_modes, checked_order, run, show_plan, user_name
    from microg.review.rules import Rules
    from microg.review.serving import Plan

    plan = Plan(
        dataset=dataset,
        rules=Rules(
            modes=checked_modes(names_in(modes)),
            lease_s=lease,
            each=each,
            second=second,
            round=round_number,
            order=checked_order(order),
            seed=seed,
        ),
        annotator=annotator or user_name(),
        annotators=names_in(annotators or ""),
        adjudicators=names_in(adjudicators or ""),
        new_tokens=new_tokens,
        proposals=proposals or [],
        threshold=threshold,
        state=state,
        cache_bytes=int(cache_gb * 1e9),
        host=host,
        port=port,
        public_host=public_host,
    )
    if dry_run:
        show_plan(plan)
    else:
        run(plan, open_page=open_page)


if __name__ == "__main__":
    main("Review a dataset's clips.")
