"""`microg data vocabulary`: the actions that a dataset's people are labelled with, and changes of them."""

from __future__ import annotations

from typing import Annotated

import typer

from microg.jobs.common import DryRunOption, JsonOption, command, finish, main

DatasetArgument = Annotated[str, typer.Argument(metavar="DATASET", help="Dataset folder.")]
ActionArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of an action, or its name in quotes.")]


@command("data vocabulary show")
def show_vocabulary(dataset: DatasetArgument, as_json: JsonOption = False) -> None:
    """List a dataset's actions: id, name, group, definition, counterparts, number of labels; and what was changed.

    Examples:

    - `microg data vocabulary show data/mine`
    - `microg data vocabulary show data/mine --json > actions.json`
    """
    from microg.jobs.commands.data_vocabulary import describe, show

    finish(describe(dataset), show, as_json=as_json)


@command("data vocabulary set")
def set_vocabulary(
    dataset: DatasetArgument,
    source: Annotated[
        str,
        typer.Argument(metavar="FILE.yaml|SET", help="File with a name and actions; or microg50, ava80, jhmdb21."),
    ],
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Give a dataset other actions. One that has labels takes them only when each label is the same action there.

    Examples:

    - `microg data vocabulary set data/mine crew.yaml`
    - `microg data vocabulary set data/mine microg50`
    """
    from microg.jobs.commands.data_vocabulary import show_change, take

    finish(take(dataset, source, dry_run=dry_run), show_change, as_json=as_json)


@command("data vocabulary rename")
def rename_action(
    dataset: DatasetArgument,
    action: ActionArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its new name.")],
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Give an action another name; labels and models keep their meaning.

    Examples:

    - `microg data vocabulary rename data/mine 12 "stand or hang"`
    """
    from microg.jobs.commands.data_vocabulary import action_of, change, show_change

    report = change(dataset, lambda own, time: own.renamed(action_of(own, action), name, time), dry_run=dry_run)
    finish(report, show_change, as_json=as_json)


@command("data vocabulary merge")
def merge_actions(
    dataset: DatasetArgument,
    actions: Annotated[list[str], typer.Argument(metavar="ID...", help="Actions that are given up, by id or name.")],
    into: Annotated[str, typer.Option("--into", metavar="ID", help="The action that stands for them.")],
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Let one action stand for others too; their labels become its labels.

    Examples:

    - `microg data vocabulary merge data/mine 45 46 --into 59`
    """
    from microg.jobs.commands.data_vocabulary import action_of, change, show_change

    report = change(
        dataset,
        lambda own, time: own.merged([action_of(own, each) for each in actions], action_of(own, into), time),
        dry_run=dry_run,
    )
    finish(report, show_change, as_json=as_json)


@command("data vocabulary split")
def split_action(
    dataset: DatasetArgument,
    action: ActionArgument,
    names: Annotated[list[str], typer.Argument(metavar="NAME NAME...", help="Names of what it is split into.")],
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Replace an action by several new ones. Its labels are taken out, kept as judgements, and wait for people.

    Examples:

    - `microg data vocabulary split data/mine 14 "walk on a treadmill" "pull along a rail"`
    """
    from microg.jobs.commands.data_vocabulary import action_of, change, show_change

    report = change(dataset, lambda own, time: own.split(action_of(own, action), names, time), dry_run=dry_run)
    finish(report, show_change, as_json=as_json)


@command("data vocabulary map")
def map_action(
    dataset: DatasetArgument,
    action: ActionArgument,
    space: Annotated[str, typer.Argument(metavar="SET", help="Set of actions: ava80, jhmdb21 or microg50.")],
    other: Annotated[str, typer.Argument(metavar="ID|none", help="Its counterpart there, by id or name, or none.")],
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say which action of a published set is the counterpart of one of the dataset's: models of that set are scored by
    it.

    Examples:

    - `microg data vocabulary map data/mine 2 ava80 46`
    - `microg data vocabulary map data/mine 3 microg50 none`
    """
    from microg.jobs.commands.data_vocabulary import action_of, change, counterpart_of, show_change

    number = counterpart_of(space, other)
    report = change(dataset, lambda own, time: own.mapped(action_of(own, action), space, number, time), dry_run=dry_run)
    finish(report, show_change, as_json=as_json)


if __name__ == "__main__":
    main("The actions of a dataset.")
