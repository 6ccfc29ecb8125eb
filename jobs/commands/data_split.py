"""What `microg data split` does: the tables `samples` and `splits` of a dataset."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pyarrow as pa
from rich.table import Table

from microg.arrow import pc
from microg.console import say
from microg.data.dataset import Dataset
from microg.data.splits import SCHEMES, describe_split, make_samples, make_split
from microg.locks import exclusive
from microg.screen import Screen


def split_dataset(dataset: str, scheme: str, *, seed: int, keep_unlabelled: bool, dry_run: bool) -> dict[str, Any]:
    """Make samples and splits (`scheme` may be "both"), write them unless `dry_run`, and return the report."""
    schemes = SCHEMES if scheme == "both" else (scheme,)
    opened = Dataset.open(dataset)
    with nullcontext() if dry_run else exclusive(dataset):
        samples, notes = _samples(opened, keep_unlabelled)
        clips = opened.kept_clips()
        made = {name: make_split(name, samples, clips, seed=seed) for name in schemes}
        if not samples["action_id"].drop_null():
            notes.append("no sample has an action: the splits are drawn without covering any")
        if not dry_run:
            before = opened.table("splits")
            others = before.filter(pc.invert(pc.is_in(before["scheme"], pa.array(schemes))))
            opened.write("samples", samples)
            opened.write("splits", pa.concat_tables([others, *made.values()]))
    return {
        "dataset": dataset,
        "seed": seed,
        "written": not dry_run,
        "samples": samples.num_rows,
        "splits": {name: describe_split(table, samples, clips) for name, table in made.items()},
        "notes": notes,
    }


def _samples(dataset: Dataset, keep_unlabelled: bool) -> tuple[pa.Table, list[str]]:
    """Return the samples made from the usable clips' boxes, or those stored when there are no boxes (an AVA import)."""
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


def show(report: dict[str, Any]) -> None:
    """Print what was made: a table for each split, then the notes."""
    screen = Screen()
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
        screen.print(table)
    for note in report["notes"]:
        say(f"note: {note}")
    say(f"wrote samples and splits of {report['dataset']}" if report["written"] else "nothing was written (--dry-run)")
