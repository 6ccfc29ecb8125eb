"""What a file or a run says of a dataset: the same again adds nothing, something else supersedes what was said."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from microg.annotations.rows import Annotation, Item, Source, check_annotator, checked, now, value_json
from microg.annotations.table import current
from microg.data.vocabulary import Vocabulary
from microg.errors import AnnotationError


@dataclass(frozen=True)
class Statement:
    """One thing that is said.

    Attributes:
        key: What it is called where it comes from: the same one there is the same item here.
        about: What it is about; a question without an index gets the next one that is free.
        value: What is said, as the kind has it.
    """

    key: str
    about: Item
    value: Mapping[str, Any]


@dataclass(frozen=True)
class Renewed:
    """Judgements to add, and how many statements were there already, replace others, or cannot be judgements.

    Attributes:
        added: New judgements, those that replace and take back others among them.
        same: Statements that were there already.
        replaced: How many of `added` say something else than before.
        withdrawn: How many of `added` take back what is not said any more.
        refused: Why statements cannot be saved.
        items: What each statement is about, by its key, questions with their index.
    """

    added: list[Annotation]
    same: int
    replaced: int
    withdrawn: int
    refused: list[str]
    items: dict[str, Item]


def renew(
    annotations: Sequence[Annotation],
    statements: Iterable[Statement],
    vocabulary: Vocabulary,
    *,
    annotator: str,
    source: Source,
    taken: Mapping[str, int],
    adjudicated: bool = False,
    whole: bool = False,
) -> Renewed:
    """Return the judgements that make an annotator say these statements.

    Args:
        annotations: All judgements of the dataset.
        statements: What is said now.
        vocabulary: The dataset's actions.
        annotator: Who says it; a model under the name of its run.
        source: Where it comes from.
        taken: Clip id -> the highest index of a question that the dataset has.
        adjudicated: Whether it settles what others said.
        whole: Whether this is all that the annotator says: then whatever was said before and is not now is withdrawn.

    Raises:
        AnnotationError: The annotator's name is none, or belongs to people where this is a model or the reverse.
    """
    check_annotator(annotator)
    mine = [each for each in annotations if each.annotator == annotator]
    if any((each.source == "model") != (source == "model") for each in mine):
        raise AnnotationError(
            f"{annotator!r} is a {'person' if source == 'model' else 'model'} in this dataset already",
            "choose another name",
        )
    mine = [each for each in mine if each.adjudicated == adjudicated]
    standing = {each.about: each for each in current(mine)}
    latest = {each.about: each for each in sorted(mine, key=lambda each: (each.time, each.annotation_id))}
    indices = _Indices(annotations, mine, taken)
    result = Renewed([], 0, 0, 0, [], {})
    same = replaced = 0
    seen: set[Item] = set()
    for statement in statements:
        base = _digest(annotator, source, str(adjudicated), statement.about.kind, statement.key)
        about = indices.numbered(statement.about, base)
        seen.add(about)
        result.items[statement.key] = about
        before = standing.get(about)
        made = _annotation(about, statement.value, annotator, source, adjudicated, base, latest.get(about))
        try:
            made = checked(made, vocabulary)
        except AnnotationError as error:
            result.refused.append(str(error))
            continue
        if before is not None and value_json(before.value) == value_json(made.value):
            same += 1
            continue
        replaced += before is not None
        result.added.append(made)
    gone = [each for about, each in standing.items() if whole and about not in seen]
    for each in gone:
        base = _digest(annotator, source, str(adjudicated), "withdrawn", each.annotation_id)
        result.added.append(_annotation(each.about, {"withdrawn": True}, annotator, source, adjudicated, base, each))
    return Renewed(result.added, same, replaced, len(gone), result.refused, result.items)


class _Indices:
    """Indices of questions: one that was given once stays, new ones come after all that the clip has."""

    def __init__(self, everybodys: Iterable[Annotation], mine: Iterable[Annotation], taken: Mapping[str, int]) -> None:
        self._highest = dict(taken)
        for each in everybodys:
            if each.item is not None:
                self._highest[each.clip_id] = max(self._highest.get(each.clip_id, -1), each.item)
        self._given = {each.annotation_id.split("-", 1)[0]: each.item for each in mine if each.kind == "qa"}

    def numbered(self, about: Item, base: str) -> Item:
        if about.kind != "qa" or about.index is not None:
            return about
        index = self._given.get(base)
        if index is None:
            index = self._highest.get(about.clip_id, -1) + 1
            self._highest[about.clip_id] = index
            self._given[base] = index
        return about._replace(index=index)


def _annotation(
    about: Item,
    value: Mapping[str, Any],
    annotator: str,
    source: Source,
    adjudicated: bool,
    base: str,
    before: Annotation | None,
) -> Annotation:
    return Annotation(
        # what it follows is part of its name, so that A after B is another judgement than A at first
        annotation_id=f"{base}-{_digest(value_json(value), before.annotation_id if before else '')}",
        clip_id=about.clip_id,
        person_id=about.person_id,
        kind=about.kind,
        item=about.index,
        value=value,
        annotator=annotator,
        source=source,
        time=now(),
        adjudicated=adjudicated,
        supersedes=before.annotation_id if before else None,
    )


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]
