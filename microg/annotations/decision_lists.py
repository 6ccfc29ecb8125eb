"""Lists of open items for a third person, as CSV, and what that person decided in them; lists of reviewed questions."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast, get_args

from microg.annotations.accept import Disagreement
from microg.annotations.rows import Annotation, Item, Kind
from microg.annotations.statements import Statement
from microg.annotations.table import current
from microg.annotations.words import in_words, read_decision
from microg.csv_tables import delimiter_of, refuse_spreadsheet
from microg.data.dataset import Dataset
from microg.data.vocabulary import Vocabulary
from microg.errors import AnnotationError
from microg.escaping import csv_text
from microg.reading import refuse_pointer

_COLUMNS = ("kind", "clip_id", "person_id", "item", "why")
_DECISION, _SAID = "decision", "said by "
_MAX_BYTES = 64 * 2**20


def disagreements_csv(disagreements: Iterable[Disagreement], vocabulary: Vocabulary) -> str:
    """Return open items as CSV: what it is about, why it is open, what each annotator said, an empty decision."""
    rows = sorted(disagreements, key=lambda each: str(tuple(each.about)))
    annotators = sorted({name for each in rows for name in each.said})
    heads = (*_COLUMNS, *(f"{_SAID}{name}" for name in annotators), _DECISION)
    return csv_text(
        heads,
        (
            (
                *(each.about.kind, each.about.clip_id, each.about.person_id, each.about.index, each.why),
                *(in_words(each.said[name], vocabulary) if name in each.said else "" for name in annotators),
                "",
            )
            for each in rows
        ),
    )


def read_decisions(
    data: bytes, where: str, dataset: Dataset, annotations: Sequence[Annotation]
) -> tuple[list[Statement], int]:
    """Return what a third person decided in a list, and how many rows have no decision.

    Args:
        data: The file, as `disagreements_csv` writes it, with the column `decision` filled in.
        where: What to call the file in errors.
        dataset: The dataset.
        annotations: All its judgements.

    Raises:
        AnnotationError: A row is about nothing that the dataset has, decides nothing that can be, or decides what
            another row decides.
    """
    rows = _rows(data, where, ("kind", "clip_id", _DECISION))
    vocabulary = dataset.vocabulary
    there = _items(dataset, annotations)
    said: dict[Item, dict[str, Mapping[str, Any]]] = {}
    for each in current(annotations):
        if not each.adjudicated:
            said.setdefault(each.about, {})[each.annotator] = each.value
    found: dict[Item, Statement] = {}
    empty = 0
    for line, row in rows:
        if not row[_DECISION].strip():
            empty += 1
            continue
        item = _item(row, f"{where}, line {line}")
        if item not in there:
            raise AnnotationError(f"{where}, line {line}: {dataset.root} has no {_named(item)}")
        if item in found:
            raise AnnotationError(f"{where}, line {line}: {_named(item)} is decided twice", "keep one of the rows")
        value = read_decision(row[_DECISION], item.kind, vocabulary, said.get(item, {}), f"{where}, line {line}")
        found[item] = Statement(_named(item), item, value)
    return list(found.values()), empty


def read_reviewed(data: bytes, where: str, proposed: Mapping[str, Statement]) -> tuple[list[Statement], int]:
    """Return what somebody said of questions in a list such as `review.csv` of 'microg data make-qa'.

    A column `accept` says yes or no; texts that were changed are edits, also without it. Rows that say neither are
    not judged, and counted.

    Args:
        data: The file.
        where: What to call it in errors.
        proposed: What was proposed, by `clip:index`.

    Raises:
        AnnotationError: A row is about nothing that was proposed, or its `accept` is neither yes nor no.
    """
    result, untouched = [], 0
    seen: set[str] = set()
    for line, row in _rows(data, where, ("clip_id", "qa_index", "question", "answer")):
        place = f"{where}, line {line}"
        key = f"{row['clip_id'].strip()}:{_whole(row['qa_index'], place)}"
        if key not in proposed or key in seen:
            what = "there twice" if key in seen else "not among the run's"
            raise AnnotationError(f"{place}: question {key} is {what}", "keep clip_id and qa_index as they are")
        seen.add(key)
        statement, texts = proposed[key], {}
        for name in ("question", "answer"):
            before = str(statement.value[name])
            texts[name] = before if row[name] in (before, _as_in_csv(before)) else row[name].strip()
        changed = any(texts[name] != statement.value[name] for name in texts)
        accept = row.get("accept", "").strip().casefold()
        if accept in ("no", "n", "0", "false", "reject"):
            verdict = "reject"
        elif accept in ("", "yes", "y", "1", "true", "accept"):
            verdict = "edit" if changed else "accept" if accept else ""
        else:
            raise AnnotationError(f"{place}: accept is {accept!r}", "write yes or no, or nothing")
        if verdict:
            result.append(Statement(key, statement.about, {"verdict": verdict, **texts}))
        else:
            untouched += 1
    return result, untouched


def _rows(data: bytes, where: str, needed: Iterable[str]) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a CSV file with their line numbers; cells that are missing are empty."""
    refuse_pointer(data, where)
    refuse_spreadsheet(data, where)
    if len(data) > _MAX_BYTES:
        raise AnnotationError(f"{where} is larger than {_MAX_BYTES >> 20} MB", "is it a list of decisions?")
    try:
        text = data.decode("utf-8-sig")
        reader = csv.DictReader(
            io.StringIO(text, newline=""), delimiter=delimiter_of(data.removeprefix(b"\xef\xbb\xbf"))
        )
        heads = [name.strip().lower() for name in reader.fieldnames or ()]
        missing = [name for name in needed if name not in heads]
        if missing:
            raise AnnotationError(f"{where} has no column {missing[0]}", f"it needs {', '.join(needed)}")
        reader.fieldnames = heads
        return [(reader.line_num, {name: row.get(name) or "" for name in heads}) for row in reader if any(row.values())]
    except (UnicodeDecodeError, csv.Error) as error:
        raise AnnotationError(f"{where} cannot be read: {error}", "save it as CSV in UTF-8") from error


def _item(row: Mapping[str, str], place: str) -> Item:
    kind = row["kind"].strip()
    if kind not in get_args(Kind):
        raise AnnotationError(f"{place}: there is no kind {kind!r}", f"kinds are {', '.join(get_args(Kind))}")
    person = _whole(row.get("person_id", ""), place) if kind in ("action", "box") else None
    index = _whole(row.get("item", ""), place) if kind == "qa" else None
    return Item(cast(Kind, kind), row["clip_id"].strip(), person, index)


def _whole(text: str, place: str) -> int:
    plain = text.strip().removesuffix(".0")
    if not plain.isascii() or not plain.isdecimal() or len(plain) > 10:
        raise AnnotationError(f"{place}: {text!r} is no whole number", "person_id and item are numbers")
    return int(plain)


def _named(item: Item) -> str:
    person = "" if item.person_id is None else f", person {item.person_id}"
    index = "" if item.index is None else f", question {item.index}"
    return f"{item.kind} of {item.clip_id}{person}{index}"


def _items(dataset: Dataset, annotations: Iterable[Annotation]) -> set[Item]:
    """Return everything that can be judged: what the dataset has, and what somebody judged."""
    clips = dataset.table("clips")["clip_id"].to_pylist()
    items = {Item(kind, clip) for clip in clips for kind in ("screening", "caption")}
    for table in ("boxes", "actions"):
        people = dataset.table(table).select(["clip_id", "person_id"]).group_by(["clip_id", "person_id"]).aggregate([])
        pairs = zip(people["clip_id"].to_pylist(), people["person_id"].to_pylist(), strict=True)
        items |= {Item("action", clip, person) for clip, person in pairs}
    items |= {Item("qa", row["clip_id"], None, row["qa_index"]) for row in dataset.table("qa").to_pylist()}
    return items | {each.about for each in annotations}


def _as_in_csv(text: str) -> str:
    """Return a text as a list has it, where formulas and characters that steer a terminal are made harmless."""
    return next(csv.reader(io.StringIO(csv_text([text], []), newline="")), [""])[0]
