"""`microg data adjudicate`: what a dataset holds by its annotators' judgements, and a list of what is open."""

from __future__ import annotations

from typing import Annotated

import typer

from microg.jobs.common import DryRunOption, JsonOption, command, finish, main, names_in

EPILOG = """
**Examples**

`microg data adjudicate data/mine --dry-run`

`microg data adjudicate data/mine --rule majority --least 2 --out open.csv`

`microg data adjudicate data/mine --decisions open.csv --annotator cara`

In the list a third person fills in the column `decision`: `12 stand; 80 watch (a person)`, `none`, `cannot tell`;
`keep`, `drop: a title`; a caption, `question | answer`, `reject`; or `as anna` for what anna said.
"""


@command("data adjudicate", epilog=EPILOG)
def data_adjudicate(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Dataset folder with the table annotations.")],
    rule: Annotated[
        str | None, typer.Option("--rule", help="single, majority or adjudicated. [default: the one recorded]")
    ] = None,
    least: Annotated[int | None, typer.Option("--least", min=1, help="Annotators that an item needs at least.")] = None,
    unreviewed: Annotated[
        bool | None,
        typer.Option("--unreviewed/--reviewed", help="Let a model's proposal count where no person judged."),
    ] = None,
    kinds: Annotated[
        str | None, typer.Option("--kinds", help="Kinds of judgements, separated by commas. [default: all]")
    ] = None,
    out: Annotated[str | None, typer.Option("--out", help="CSV file to write with the items that are open.")] = None,
    decisions: Annotated[
        str | None, typer.Option("--decisions", help="Such a file, with the column decision filled in.")
    ] = None,
    annotator: Annotated[str | None, typer.Option("--annotator", help="Who decided what --decisions holds.")] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Accept annotators' judgements by a rule, and list for a third person what it does not settle.

    Rules: single, the newest judgement counts; majority, what more than half said; adjudicated, what all said. Somebody
    who decides between others counts before them under every rule. The rule is recorded in the dataset.
    """
    from microg.jobs.commands.data_adjudicate import adjudicate, chosen_rule, show

    how = chosen_rule(rule=rule, least=least, unreviewed=unreviewed)
    report = adjudicate(
        dataset,
        how,
        None if kinds is None else names_in(kinds),
        out=out,
        decisions=decisions,
        annotator=annotator,
        dry_run=dry_run,
    )
    finish(report, show, as_json=as_json)


if __name__ == "__main__":
    main("Accept judgements, and list what is open.")
