"""Imports that keep all annotators: what they said becomes judgements, of which a rule makes the tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from microg.annotations.accept import TABLE_OF, Acceptance, Accepted, accept
from microg.annotations.apply import accept_into, described, recorded
from microg.annotations.boxes import edited
from microg.annotations.imports import Held, Import, fitted
from microg.annotations.rows import DATASET, KINDS, Annotation, Item, Kind, checked
from microg.annotations.table import current, read_annotations
from microg.arrow import pc
from microg.data import schema
from microg.data.dataset import Dataset
from microg.data.vocabulary import Vocabulary
from microg.formats.merging import merge, merge_clips, refuse_loss

# Columns by which rows of what is accepted are put in order within a clip.
_ORDER: dict[Kind, tuple[str, ...]] = {
    "action": ("person_id", "action_id"),
    "box": ("person_id", "frame"),
    "caption": (),
    "qa": ("qa_index",),
}


@dataclass(frozen=True)
class Judged:
    """What an import with annotators makes of a dataset.

    Attributes:
        tables: The dataset's tables that the import speaks of, as they are then.
        report: Who said how much, and what is open.
        notes: Notes for the user.
        acceptance: What `dataset.json` says of it.
    """

    tables: dict[str, pa.Table]
    report: dict[str, Any]
    notes: list[str]
    acceptance: dict[str, Any] = field(default_factory=dict)


def spoken_kinds(
    annotations: Sequence[Annotation], tables: Collection[str], chosen: Collection[str]
) -> tuple[Kind, ...]:
    """Return the kinds that an import speaks of.

    People without actions are no statement about actions where nobody in the import has one, unless the table is
    named.

    Args:
        annotations: Its judgements.
        tables: The tables that are taken.
        chosen: Those of them that the user names.
    """
    labelled = any(each.value.get("actions") for each in annotations if each.kind == "action")
    kinds: list[Kind] = [kind for kind in KINDS if kind != "screening" and TABLE_OF[kind] in tables]
    return tuple(kind for kind in kinds if kind != "action" or labelled or "actions" in chosen)


def new_dataset(
    tables: Mapping[str, pa.Table],
    annotations: Sequence[Annotation],
    vocabulary: Vocabulary,
    how: Acceptance,
    kinds: Sequence[Kind],
    name: str,
) -> Judged:
    """Return the tables of a new dataset: what the rule accepts of all judgements.

    Where one annotator judged everything these are the imported tables themselves, row by row.

    Args:
        tables: The imported tables, which hold what the newest annotator of each clip said.
        annotations: All judgements.
        vocabulary: The dataset's actions.
        how: The rule.
        kinds: The kinds that the import speaks of.
        name: The dataset, for notes.

    Raises:
        AnnotationError: A judgement is not fit to be saved.
    """
    said = [checked(each, vocabulary) for each in annotations if each.kind in kinds]
    judged = {each.about for each in said if each.source != "model"}
    empty = {table: schema.empty(table) for table in (*TABLE_OF.values(), "clips")}
    before = {TABLE_OF[kind]: _unjudged(tables[TABLE_OF[kind]], kind, judged) for kind in kinds}
    accepted = accept({**empty, **before}, said, vocabulary, how, kinds)
    result = dict(tables)
    for kind in kinds:
        if (table := TABLE_OF[kind]) in accepted.tables:
            result[table] = _in_order(accepted.tables[table], tables[table], tables["clips"], _ORDER[kind])
    result["annotations"] = schema.from_rows("annotations", [each.to_row() for each in [*said, *accepted.before]])
    notes = _open_notes(accepted, how, name)
    return Judged(result, _report(Import(said), said, accepted, how), notes, described(how, accepted, said))


def merged_into(
    dataset: Dataset,
    known: Mapping[str, pa.Table],
    tables: Mapping[str, pa.Table],
    annotations: Sequence[Annotation],
    chosen: Collection[str],
    how: Acceptance,
    *,
    dry_run: bool,
) -> Judged:
    """Add an import's judgements to a dataset that the caller holds, and accept them by the rule.

    Clips that no annotator judged, such as a model's, get the imported rows in place of theirs.

    Args:
        dataset: The dataset.
        known: Its tables.
        tables: The imported tables.
        annotations: The import's judgements.
        chosen: The tables that the user names: their rows may go.
        how: The rule.
        dry_run: Whether nothing is written.

    Raises:
        FormatError: A clip's rows would be replaced by none, in a table that is not named.
        AnnotationError: A judgement is not fit to be saved.
    """
    kinds = spoken_kinds(annotations, tables, chosen)
    vocabulary = dataset.vocabulary
    spoken = [checked(each, vocabulary) for each in annotations if each.kind in kinds]
    refuse_loss(known, _spoken_of(tables, spoken), chosen)
    clip_ids = pa.array(sorted({each.clip_id for each in spoken if each.source != "model"}), pa.string())
    judged = {name: table.filter(pc.is_in(table["clip_id"], clip_ids)) for name, table in tables.items()}
    others = {name: table.filter(pc.invert(pc.is_in(table["clip_id"], clip_ids))) for name, table in tables.items()}
    made, notes = merge(known, others, chosen) if others["clips"].num_rows else ({"clips": known.get("clips")}, [])
    made["clips"] = merge_clips(made["clips"], judged["clips"])
    said = read_annotations(dataset)
    anew = set(others["clips"]["clip_id"].to_pylist())
    imported = fitted(spoken, said, _held(known, said, clip_ids.to_pylist()), kinds)
    accepted, more = _accepted(dataset, made, [*said, *imported.added], imported.added, how, kinds, anew, dry_run)
    named = {name: made.get(name, known.get(name, schema.empty(name))) for name in tables}
    named |= {name: table for name, table in accepted.tables.items() if name in tables}
    notes += [*more, *_open_notes(accepted, how, dataset.root)]
    if imported.older:
        notes.append(f"{imported.older:,} judgements are older than what their annotators said last: left out")
    return Judged(named, _report(imported, spoken, accepted, how), notes)


def is_judged(known: Mapping[str, pa.Table], tables: Mapping[str, pa.Table]) -> bool:
    """Tell whether somebody judged clips of an import in the dataset that it is merged into."""
    if "annotations" not in known:
        return False
    return bool(set(known["annotations"]["clip_id"].to_pylist()) & set(tables["clips"]["clip_id"].to_pylist()))


def unsigned_into(
    dataset: Dataset,
    known: Mapping[str, pa.Table],
    tables: Mapping[str, pa.Table],
    chosen: Collection[str],
    *,
    dry_run: bool,
) -> Judged:
    """Merge rows that tell of no annotator into a dataset, some of whose clips people judged.

    The rows take the place of what the dataset held before people judged it; what people said is applied to them.

    Args:
        dataset: The dataset, which the caller holds.
        known: Its tables.
        tables: The imported tables.
        chosen: The tables that the user names: their rows may go.
        dry_run: Whether nothing is written.

    Raises:
        FormatError: A clip's rows would be replaced by none, in a table that is not named.
    """
    made, notes = merge(known, tables, chosen)
    kinds: tuple[Kind, ...] = tuple(each for each in KINDS if each != "screening" and TABLE_OF[each] in tables)
    anew = set(tables["clips"]["clip_id"].to_pylist())
    said = read_annotations(dataset)
    how = recorded(dataset)
    accepted, more = _accepted(dataset, made, said, (), how, kinds, anew, dry_run)
    judged = {each.about for each in current(said) if each.annotator != DATASET and each.clip_id in anew}
    judged = {each for each in judged if each.kind in kinds}
    if judged:
        notes.append(f"{len(judged):,} items of these clips were judged before: what was said of them counts")
    result = {**made, **{name: table for name, table in accepted.tables.items() if name in made}}
    return Judged(result, {}, [*notes, *more])


def _accepted(
    dataset: Dataset,
    made: Mapping[str, pa.Table],
    said: Sequence[Annotation],
    added: Sequence[Annotation],
    how: Acceptance,
    kinds: Sequence[Kind],
    anew: Collection[str],
    dry_run: bool,
) -> tuple[Accepted, list[str]]:
    """Write tables that an import made, rows of the clips `anew` among them, and accept judgements; or do as if."""
    rebased = kinds if anew else ()
    if dry_run:
        there = {name: made.get(name, dataset.table(name)) for name in (*TABLE_OF.values(), "clips")}
        return accept(there, said, dataset.vocabulary, how, kinds, rebased, anew), []
    for name, table in made.items():
        dataset.write(name, table)
    return accept_into(dataset, how, kinds, rebased, added, anew)


def _unjudged(table: pa.Table, kind: Kind, judged: Collection[Item]) -> pa.Table:
    """Return the rows of a table that are of no judged item."""
    keys = {
        (each.clip_id, each.person_id if each.index is None else each.index) for each in judged if each.kind == kind
    }
    column = {"action": "person_id", "box": "person_id", "qa": "qa_index"}.get(kind)
    second = table[column].to_pylist() if column else [None] * table.num_rows
    kept = [pair not in keys for pair in zip(table["clip_id"].to_pylist(), second, strict=True)]
    return table.filter(pa.array(kept, pa.bool_()))


def _in_order(made: pa.Table, read: pa.Table, clips: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Return accepted rows in the order of the import: its own table where that has the same rows."""
    rows = made.to_pylist()
    if made.num_rows == read.num_rows and Counter(map(_key, rows)) == Counter(map(_key, read.to_pylist())):
        return read
    places = {clip_id: place for place, clip_id in enumerate(clips["clip_id"].to_pylist())}
    keys = [(places[row["clip_id"]], *(row[column] for column in columns)) for row in rows]
    return made.take(pa.array(sorted(range(len(rows)), key=keys.__getitem__), pa.int64()))


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.values())


def _spoken_of(tables: Mapping[str, pa.Table], spoken: Sequence[Annotation]) -> dict[str, pa.Table]:
    """Return the clips that an import has something of, by table: also what only older annotations of them say."""
    found = {"clips": tables["clips"].select(["clip_id"])}
    for name, table in tables.items():
        if name != "clips":
            said = {each.clip_id for each in spoken if TABLE_OF[each.kind] == name and _says_something(each)}
            found[name] = pa.table({"clip_id": pa.array(sorted(said | set(table["clip_id"].to_pylist())), pa.string())})
    return found


def _says_something(each: Annotation) -> bool:
    return bool(each.value.get("actions") or each.value.get("stretches") or each.value.get("verdict") == "edit")


def _held(known: Mapping[str, pa.Table], said: Sequence[Annotation], clip_ids: Collection[str]) -> dict[str, Held]:
    """Return what a dataset held of clips before people judged them."""
    records = [each for each in current(said) if each.annotator == DATASET]
    recorded = {each.about: each for each in records}
    rows = {
        name: table.filter(pc.is_in(table["clip_id"], pa.array(list(clip_ids), pa.string()))).to_pylist()
        for name, table in known.items()
        if name in ("actions", "captions", "qa")
    }
    people: dict[str, set[int]] = {clip_id: set() for clip_id in clip_ids}
    if "boxes" in known:
        pairs = known["boxes"].select(["clip_id", "person_id"]).group_by(["clip_id", "person_id"]).aggregate([])
        for row in pairs.to_pylist():
            if row["clip_id"] in people:
                people[row["clip_id"]].add(row["person_id"])
    found = {}
    for clip_id in clip_ids:
        drawn = [each for each in records if each.kind == "box" and each.clip_id == clip_id]
        labelled = {row["person_id"] for row in rows.get("actions", ()) if row["clip_id"] == clip_id}
        questions = {row["qa_index"] for row in rows.get("qa", ()) if row["clip_id"] == clip_id}
        captioned = any(row["clip_id"] == clip_id for row in rows.get("captions", ()))
        for about, each in recorded.items():
            if about.clip_id != clip_id:
                continue
            if about.kind == "action" and about.person_id is not None:
                (labelled.add if each.value["actions"] else labelled.discard)(about.person_id)
            elif about.kind == "qa" and about.index is not None:
                (questions.discard if each.value["verdict"] == "reject" else questions.add)(about.index)
            elif about.kind == "caption":
                captioned = each.value["verdict"] != "reject"
        held_people = edited({}, drawn) if drawn else people[clip_id]
        found[clip_id] = Held(sorted(held_people), sorted(labelled), captioned, sorted(questions))
    return found


def _report(imported: Import, spoken: Sequence[Annotation], accepted: Accepted, how: Acceptance) -> dict[str, Any]:
    return {
        "annotators": dict(sorted(Counter(each.annotator for each in spoken).items())),
        "added": len(imported.added),
        "there_before": imported.same,
        "replaced": imported.replaced,
        "withdrawn": imported.withdrawn,
        "removed": imported.removed,
        "older": imported.older,
        "rule": how.rule,
        "kinds": accepted.counts,
        "open": len(accepted.open),
    }


def _open_notes(accepted: Accepted, how: Acceptance, dataset: str) -> list[str]:
    if not accepted.open:
        return []
    number = len(accepted.open)
    items = f"{number:,} items are" if number != 1 else "1 item is"
    return [f"{items} open by the rule {how.rule}: 'microg data adjudicate {dataset}' lists what annotators said"]
