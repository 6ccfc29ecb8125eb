"""Rows that text scoring works on, whatever file they came from: one row a caption or an answer.

A caption belongs to a clip, an answer to a clip and the index (from 0) of its question.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Task = Literal["caption", "vqa", "screening"]
# What is scored.
TASKS: tuple[Task, ...] = ("caption", "vqa")
# What models can be asked for; a screening says whether a clip shows weightlessness.
GENERATED: tuple[Task, ...] = (*TASKS, "screening")


class ItemKey(NamedTuple):
    """What a text belongs to; `qa_index` is None for captions."""

    task: Task
    clip_id: str
    qa_index: int | None = None

    @property
    def id(self) -> str:
        """Return the item's name within its task.

        >>> ItemKey("vqa", "Apollo13_032", 4).id, ItemKey("caption", "Apollo13_032").id
        ('Apollo13_032:4', 'Apollo13_032')
        """
        return self.clip_id if self.qa_index is None else f"{self.clip_id}:{self.qa_index}"

    @property
    def qualified_id(self) -> str:
        """Return the item's name among those of all tasks.

        >>> ItemKey("vqa", "Apollo13_032", 4).qualified_id
        'vqa:Apollo13_032:4'
        """
        return f"{self.task}:{self.id}"


@dataclass(frozen=True)
class TextRow:
    """One text of a file, or several for a reference: where it stands, and what it says of its question.

    A row of task vqa has a `qa_index`, or a `question` by which the index is found, or just its `place` among the
    answers to its clip. `error` tells that a model failed here: then there are no texts.
    """

    task: Task
    clip_id: str
    texts: tuple[str, ...]
    where: str
    qa_index: int | None = None
    question: str | None = None
    place: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class TextPredictions:
    """What a model said: rows in file order, the model's name where known, and what was noticed."""

    rows: tuple[TextRow, ...]
    model: str | None = None
    notes: tuple[str, ...] = ()

    def tasks(self) -> tuple[Task, ...]:
        """Return the tasks that have rows."""
        return _tasks(self.rows)


@dataclass(frozen=True)
class TextReferences:
    """What is true: texts (one or more) and question by key, origins (movie | real) by clip, and what was noticed."""

    texts: Mapping[ItemKey, tuple[str, ...]]
    questions: Mapping[ItemKey, str] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def tasks(self) -> tuple[Task, ...]:
        """Return the tasks that have texts."""
        return _tasks(self.texts)

    def digest(self) -> str:
        """Return a short hash of keys, questions and texts in any order."""
        items = [(list(key), self.questions.get(key), list(self.texts[key])) for key in sorted(self.texts, key=str)]
        return _digest(items)


def rows_digest(rows: Sequence[TextRow]) -> str:
    """Return a short hash of what rows say, whatever file form they came in; the order does not count."""
    names = ("task", "clip_id", "qa_index", "question", "place")
    return _digest(sorted(([*(getattr(row, name) for name in names), list(row.texts)] for row in rows), key=str))


def _digest(items: list) -> str:
    return hashlib.sha256(json.dumps(items, ensure_ascii=True).encode()).hexdigest()[:16]


def _tasks(items: Sequence[TextRow] | Mapping[ItemKey, object]) -> tuple[Task, ...]:
    there = {item.task for item in items}
    return tuple(task for task in TASKS if task in there)
