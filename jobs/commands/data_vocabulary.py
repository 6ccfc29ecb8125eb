"""What `microg data vocabulary` does: the actions of a dataset, their changes, and the labels after these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from microg.annotations.recode import TABLES, recode, waiting
from microg.annotations.rows import Annotation
from microg.annotations.table import add_annotations, read_annotations
from microg.console import say
from microg.data.dataset import Dataset
from microg.data.label_space import MICROG_50
from microg.data.vocabulary import COUNTERPARTS, Vocabulary
from microg.data.vocabulary_files import load_vocabulary
from microg.errors import ConfigError, DatasetError
from microg.locks import exclusive
from microg.screen import wide_screen

_NAMED = 5  # at most, in errors


def describe(dataset: str) -> dict[str, Any]:
    """Return a dataset's actions with their labels, the changes, and who waits for a decision."""
    opened = Dataset.open(dataset)
    vocabulary = opened.vocabulary
    counts = _labels(opened)
    return {
        "dataset": dataset,
        "label_space": vocabulary.space.name,
        **vocabulary.to_dict(),
        "labels": {str(action.id): counts[action.id] for action in vocabulary.actions},
        "unknown": {str(each): count for each, count in sorted(counts.items()) if each not in vocabulary.by_id},
        "waiting": len(waiting(read_annotations(opened), vocabulary)),
    }


def change(dataset: str, make: Callable[[Vocabulary, str], Vocabulary], *, dry_run: bool) -> dict[str, Any]:
    """Change the actions of a dataset and its labels with them, and return what changed.

    Killed in between, the same command does what is left.

    Args:
        dataset: Its folder.
        make: Returns the new actions of the old ones and the time.
        dry_run: Whether nothing is written.

    Raises:
        MicrogError: The change is not possible; nothing is written then.
    """
    with nullcontext() if dry_run else exclusive(dataset):
        opened = Dataset.open(dataset)
        before = opened.vocabulary
        after = make(before, datetime.now(UTC).isoformat(timespec="seconds"))
        said = read_annotations(opened)
        made = recode({name: opened.table(name) for name in TABLES}, said, after)
        report = {
            "dataset": dataset,
            "label_space": {"before": before.space.name, "after": after.space.name},
            "changes": [trace.note for trace in after.history[len(before.history) :]],
            "relabelled": made.relabelled,
            "taken_out": sum(made.taken_out.values()),
            "waiting": len(waiting([*said, *made.before], after)),
            "written": not dry_run,
        }
        if not dry_run:
            _write(opened, after, made.tables, made.before)
    return report


def take(dataset: str, source: str, *, dry_run: bool) -> dict[str, Any]:
    """Let a dataset take other actions, in which all of its labels have to stay.

    Raises:
        DatasetError: A label is not in them, or is another action there.
    """
    new = load_vocabulary(source)
    with nullcontext() if dry_run else exclusive(dataset):
        opened = Dataset.open(dataset)
        before = opened.vocabulary
        said = read_annotations(opened)
        _refuse_loss(before, new, _labels(opened), f"{dataset} has labels")
        judged = Counter(label for each in said if each.kind == "action" for label in each.value.get("actions", []))
        _refuse_loss(before, new, judged, f"people judged clips of {dataset}", replaced=True)
        after = new if new.published else new.chosen(source, datetime.now(UTC).isoformat(timespec="seconds"))
        report = {
            "dataset": dataset,
            "label_space": {"before": before.space.name, "after": after.space.name},
            "changes": [f"{len(after.actions)} actions, taken from {source}"],
            "relabelled": 0,
            "taken_out": 0,
            "waiting": len(waiting(said, after)),
            "written": not dry_run,
        }
        if not dry_run:
            _write(opened, after, {}, ())
    return report


def _write(dataset: Dataset, after: Vocabulary, tables: Any, before: Iterable[Annotation]) -> None:
    add_annotations(dataset, before)
    for name, table in tables.items():
        dataset.write(name, table)
    own = after.name if after.published and after.name != MICROG_50.name else None
    dataset.describe(vocabulary=after.document, label_space=own)


def _labels(dataset: Dataset) -> Counter[int]:
    """Count the labels of people; those of samples where nothing else holds any, as after an import of AVA's files."""
    counts = Counter(dataset.table("actions")["action_id"].drop_null().to_pylist())
    for action_id, count in Counter(dataset.table("samples")["action_id"].drop_null().to_pylist()).items():
        counts.setdefault(action_id, count)
    return counts


def _refuse_loss(
    before: Vocabulary, new: Vocabulary, labels: Counter[int], where: str, *, replaced: bool = False
) -> None:
    """Raise `DatasetError` for labels that would not be what they are in other actions."""
    lost = []
    for action_id, count in sorted(labels.items()):
        old, there = before.by_id.get(action_id), new.by_id.get(action_id)
        called = str(action_id) if old is None else old.label
        if there is None and not (replaced and action_id in new.replaced):
            lost.append(f"{called!r} ({count})")
        elif old and there and before.origin != new.origin and old.name.casefold() != there.name.casefold():
            lost.append(f"{called!r} ({count}), which is {there.name!r} there")
    if lost:
        more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
        raise DatasetError(
            f"{where} that are not in {new.name!r}: {', '.join(lost[:_NAMED])}{more}",
            "add these actions to it with their ids, or rename, merge and split the dataset's own",
        )


def action_of(vocabulary: Vocabulary, text: str) -> int:
    """Return the id of an action in use, which a user gives by id or by name."""
    return vocabulary.action(int(text)).id if text.isdecimal() and len(text) < 10 else vocabulary.parse(text)


def counterpart_of(space: str, text: str) -> int | None:
    """Return the id of an action of a published set, which a user gives by id or by name; None for `none`.

    Raises:
        ConfigError: There is no such set, or it has no such action.
    """
    if space not in COUNTERPARTS:
        raise ConfigError(f"there is no set of actions {space!r}", f"sets are {', '.join(COUNTERPARTS)}")
    names = COUNTERPARTS[space].names
    if text.strip().casefold() == "none":
        return None
    by_name = {name.casefold(): number for number, name in names.items()}
    number = int(text) if text.isdecimal() and len(text) < 10 else by_name.get(text.strip().casefold())
    if number not in names:
        raise ConfigError(f"{space} has no action {text!r}", "give its id, or its name in quotes, or none")
    return number


def show(document: dict[str, Any]) -> None:
    """Print a dataset's actions for people."""
    screen = wide_screen()
    table = Table(title=f"{document['dataset']}: {document['label_space']}", title_justify="left")
    for heading in ("id", "name", "group", "definition", "counterparts", "labels"):
        table.add_column(heading, justify="right" if heading in ("id", "labels") else "left", overflow="fold")
    for action in document["actions"]:
        told = " ".join(action.get(key, "") for key in ("definition", "note")).strip()
        others = ", ".join(f"{space} {number}" for space, number in action.get("counterparts", {}).items())
        labels = f"{document['labels'][str(action['id'])]:,}"
        table.add_row(str(action["id"]), action["name"], action.get("group", ""), told, others, labels)
    screen.print(table)
    for action_id, count in document["unknown"].items():
        say(f"note: {count} labels have the id {action_id}, which is none of the actions")
    for trace in document["history"]:
        say(f"{trace['time']}  {trace['note']}")
    if document["waiting"]:
        say(_waiting(document["waiting"]))


def show_change(report: dict[str, Any]) -> None:
    """Print what changed for people."""
    for note in report["changes"]:
        say(note)
    spaces = report["label_space"]
    if spaces["before"] != spaces["after"]:
        say(f"label space: {spaces['before']} before, {spaces['after']} now")
    if report["relabelled"]:
        say(f"{report['relabelled']:,} labels have another id now")
    if report["taken_out"]:
        say(f"{report['taken_out']:,} labels were taken out; what the dataset held is kept in its table annotations")
    if report["waiting"]:
        say(_waiting(report["waiting"]))
    say(f"wrote {report['dataset']}" if report["written"] else "nothing was written (--dry-run)")


def _waiting(people: int) -> str:
    return f"{people:,} people wait for somebody to say what they do: their action was split"
