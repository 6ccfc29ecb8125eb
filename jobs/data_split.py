"""`microg data split`: key boxes with their labels, and the train / val / test split."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from microg.jobs.common import DryRunOption, JsonOption, command, main, print_json

if TYPE_CHECKING:
    import pyarrow as pa

    from microg.data.dataset import Dataset


class Scheme(str, Enum):
    """Which splits to make."""

    published = "published"
    source = "source"
    both = "both"


@command("data split")
def split(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Dataset folder with boxes and actions.")],
    scheme: Annotated[
        Scheme, typer.Option(help="published: by clip, as in the paper; source: no source video in two splits; both.")
    ] = Scheme.both,
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
    import pyarrow as pa

    from microg.arrow import pc
    from microg.data import splits
    from microg.data.dataset import Dataset

    opened = Dataset.open(dataset)
    samples, notes = _samples(opened, keep_unlabelled)
    clips = opened.kept_clips()
    schemes = list(splits.SCHEMES) if scheme is Scheme.both else [scheme.value]
    made = {name: splits.make_split(name, samples, clips, seed=seed) for name in schemes}
    described = {name: splits.describe_split(table, samples, clips) for name, table in made.items()}
    if not samples["action_id"].drop_null():
        notes.append("no sample has an action: the splits are drawn without covering any")
    old = opened.table("splits")
    kept = old.filter(pc.invert(pc.is_in(old["scheme"], pa.array(schemes))))
    if not dry_run:
        opened.write("samples", samples)
        opened.write("splits", pa.concat_tables([kept, *made.values()]))
    report = {
        "dataset": dataset,
        "seed": seed,
        "written": not dry_run,
        "samples": samples.num_rows,
        "splits": described,
        "notes": notes,
    }
    _show(report, as_json)


def _samples(dataset: Dataset, keep_unlabelled: bool) -> tuple[pa.Table, list[str]]:
    """Return the samples made from the usable clips' boxes, or those stored when there are no boxes (an AVA import)."""
    from microg.arrow import pc
    from microg.data.samples import make_samples

    clips = dataset.kept_clips()
    boxes = dataset.table("boxes")
    usable = boxes.filter(pc.is_in(boxes["clip_id"], clips["clip_id"]))
    notes = []
    if usable.num_rows < boxes.num_rows:
        notes.append(f"{boxes.num_rows - usable.num_rows} boxes of rejected, failed or unknown clips were not used")
    if not boxes.num_rows and dataset.has("samples"):
        return dataset.table("samples"), ["the dataset has no boxes: its samples were kept as they are"]
    samples = make_samples(usable, clips, dataset.table("actions"), keep_unlabelled=keep_unlabelled)
    people = len(usable.group_by(["clip_id", "person_id"]).aggregate([]))
    labelled = len(samples.filter(pc.is_valid(samples["action_id"])).group_by(["clip_id", "person_id"]).aggregate([]))
    if labelled < people:
        what = "kept with a null action" if keep_unlabelled else "left out"
        notes.append(f"{people - labelled} of {people} persons have no action and were {what}")
    return samples, notes


def _show(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(report)
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for scheme, facts in report["splits"].items():
        leak = facts["leaking_sources"]
        table = Table(
            title=f"{scheme}: {leak} of {facts['sources']} source videos in more than one split", title_justify="left"
        )
        for column in ("split", "clips", "share", "samples", "actions absent"):
            table.add_column(column, justify="left" if column == "split" else "right")
        for name in facts["clips"]:
            absent = facts["absent_actions"][name]
            row = (facts["clips"][name], f"{facts['share'][name]:.1%}", facts["samples"][name], len(absent))
            table.add_row(name, *map(str, row))
        console.print(table)
    for note in report["notes"]:
        print(f"note: {note}")
    print(
        f"wrote samples and splits of {report['dataset']}" if report["written"] else "nothing was written (--dry-run)"
    )


if __name__ == "__main__":
    main("Split a dataset.")
