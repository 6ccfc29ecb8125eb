"""A dataset's labels after a change of its vocabulary: merged ones get their new id, split ones wait for people.

What the dataset held before stands beside it as judgements of `dataset`; what people said stays as they said it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from microg.annotations.accept import record
from microg.annotations.rows import DATASET, Annotation, Item
from microg.annotations.table import current
from microg.data import schema
from microg.data.vocabulary import Vocabulary

# Tables that hold labels.
TABLES = ("actions", "samples")


@dataclass(frozen=True, kw_only=True)
class Recoded:
    """What a change of the vocabulary makes of a dataset's labels.

    Attributes:
        tables: New tables by name; only those that change.
        before: What the dataset held of the people concerned, to be added to the judgements first.
        relabelled: How many labels of table `actions` get another id.
        taken_out: How many were taken out, by the id that was split.
    """

    tables: Mapping[str, pa.Table]
    before: tuple[Annotation, ...]
    relabelled: int
    taken_out: Mapping[int, int]


def recode(tables: Mapping[str, pa.Table], annotations: Iterable[Annotation], vocabulary: Vocabulary) -> Recoded:
    """Return what the labels of a dataset are in a vocabulary that was changed.

    Args:
        tables: Its tables `actions` and `samples` as they are.
        annotations: All judgements.
        vocabulary: The actions after the change; ids that it never had stay as they are.
    """
    meaning = {old: vocabulary.in_use(old) for old in vocabulary.replaced}
    actions = tables["actions"].to_pylist()
    concerned = {(row["clip_id"], row["person_id"]) for row in actions if row["action_id"] in meaning}
    relabelled = sum(meaning.get(row["action_id"]) is not None for row in actions)
    taken_out = Counter(row["action_id"] for row in actions if meaning.get(row["action_id"], 0) is None)
    made = {}
    for name in TABLES:
        ids = set(tables[name]["action_id"].to_pylist())
        if ids & set(meaning):
            made[name] = schema.from_rows(name, _recoded(tables[name].to_pylist(), meaning))
    held = _records(actions, concerned, annotations)
    return Recoded(tables=made, before=held, relabelled=relabelled, taken_out=dict(taken_out))


def _recoded(rows: list[dict[str, Any]], meaning: Mapping[int, int | None]) -> list[dict[str, Any]]:
    """Return rows with the ids that are in use now, each label of a person once where ids became one.

    A person of whom no label is left stays in `samples` without one, where it holds people without labels.
    """
    kept: list[dict[str, Any]] = []
    there = {_key(row, row["action_id"]) for row in rows if row["action_id"] not in meaning}
    bare = any(row["action_id"] is None for row in rows)
    people = {_key(row, None) for row in rows if meaning.get(row["action_id"], row["action_id"]) is not None}
    for row in rows:
        old = row["action_id"]
        if old not in meaning:
            kept.append(row)
            continue
        new = meaning[old]
        key = _key(row, new)
        wanted = key not in there if new is not None else bare and key not in people | there
        if wanted:
            there.add(key)
            kept.append({**row, "action_id": new})
    return kept


def _key(row: Mapping[str, Any], action_id: int | None) -> tuple[Any, ...]:
    return (*(value for name, value in row.items() if name != "action_id"), action_id)


def _records(
    actions: Iterable[Mapping[str, Any]],
    concerned: set[tuple[str, int]],
    annotations: Iterable[Annotation],
) -> tuple[Annotation, ...]:
    """Return what the dataset holds of people, where no judgement of `dataset` says so yet."""
    held: dict[tuple[str, int], set[int]] = {}
    for row in actions:
        person = (row["clip_id"], row["person_id"])
        if person in concerned:
            held.setdefault(person, set()).add(row["action_id"])
    said: dict[Item, list[Annotation]] = {}
    for each in current(annotations):
        said.setdefault(each.about, []).append(each)
    made = []
    for (clip_id, person_id), labels in held.items():
        item = Item("action", clip_id, person_id)
        rows = said.get(item, [])
        before = next((each for each in rows if each.annotator == DATASET), None)
        if before is None:
            made.append(record(item, {"actions": sorted(labels)}))
        elif len(rows) == 1 and set(before.value["actions"]) != labels:
            # nobody judged it, and yet it is another: it was imported again
            made.append(replace(record(item, {"actions": sorted(labels)}), supersedes=before.annotation_id))
    return tuple(made)


def waiting(annotations: Iterable[Annotation], vocabulary: Vocabulary) -> list[Item]:
    """Return the people of whom somebody has to say what an action that was split is, in order."""
    said: dict[Item, list[Annotation]] = {}
    for each in current(annotations):
        if each.kind == "action":
            said.setdefault(each.about, []).append(each)
    split = {old for old in vocabulary.replaced if vocabulary.in_use(old) is None}
    found = []
    for item, rows in said.items():
        judged = [each for each in rows if each.annotator != DATASET] or rows
        if split & {label for each in judged for label in each.value["actions"]}:
            found.append(item)
    return sorted(found)
