"""Predictions beside their references: which belong together, what is missing, what is too much."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from microg.data import schema
from microg.errors import MetricError
from microg.texts.items import ItemKey, Task, TextPredictions, TextReferences, TextRow

State = Literal["ok", "empty", "missing", "failed"]
_NAMED = 5


@dataclass(frozen=True)
class Pair:
    """An item to score. `text` is None where `state` is missing (nothing was given) or failed (the model failed)."""

    key: ItemKey
    references: tuple[str, ...]
    question: str | None
    text: str | None
    state: State

    @property
    def scored(self) -> str:
        """Return the text to score: what is missing is as an empty text, which scores 0 everywhere."""
        return self.text or ""


@dataclass(frozen=True)
class Pairs:
    """The pairs of one task, sorted by clip and question, and names of predictions without a reference."""

    task: Task
    items: tuple[Pair, ...]
    extra: tuple[str, ...] = ()

    def count(self, *states: State) -> int:
        """Return how many items are in one of these states."""
        return sum(pair.state in states for pair in self.items)

    def coverage(self) -> dict[str, int]:
        """Return counts: items, clips, answered, empty, missing, failed, extra."""
        return {
            "items": len(self.items),
            "clips": len({pair.key.clip_id for pair in self.items}),
            "answered": self.count("ok", "empty"),
            "empty": self.count("empty"),
            "missing": self.count("missing"),
            "failed": self.count("failed"),
            "extra": len(self.extra),
        }


def pair(
    predictions: TextPredictions,
    references: TextReferences,
    task: Task,
    *,
    missing: Literal["error", "zero"] = "error",
    allow_extra: bool = False,
) -> Pairs:
    """Put the predictions of a task beside its references.

    Answers without index are matched by question, or else by their place. Raises `MetricError` naming the items when a
    prediction is missing (unless `missing` is zero), is there twice, answers another question than the reference's, or
    has no reference (unless `allow_extra`).
    """
    keys = sorted((key for key in references.texts if key.task == task), key=lambda key: (key.clip_id, key.qa_index))
    said, extra = _by_key([row for row in predictions.rows if row.task == task], references, keys)
    if extra and not allow_extra:
        raise MetricError(
            f"{len(extra)} {task} predictions have no reference: {_some(extra)}", "--allow-extra leaves them out"
        )
    pairs = []
    for key in keys:
        row = said.get(key)
        text = row.texts[0] if row is not None and row.error is None else None
        state: State = "missing" if row is None else "failed" if text is None else "ok" if text.strip() else "empty"
        pairs.append(Pair(key, references.texts[key], references.questions.get(key), text, state))
    absent = [pair.key.id for pair in pairs if pair.text is None]
    if len(absent) == len(pairs):
        raise MetricError(
            f"no {task} prediction belongs to a reference: {len(keys)} references (e.g. {keys[0].id}), "
            f"{len(extra)} other predictions",
            "are the clip ids the same ones?",
        )
    if absent and missing == "error":
        raise MetricError(
            f"{len(absent)} of {len(pairs)} {task} predictions are missing: {_some(absent)}",
            "--missing zero scores them 0 and gives scores of the answered ones beside",
        )
    return Pairs(task, tuple(pairs), tuple(extra))


def pairs_table(everything: Iterable[Pairs], types: Callable[[Pair], dict[str, str | None]] = lambda _: {}) -> pa.Table:
    """Return the table `text_pairs`; `types` gives the columns answer_type, question_type and qa_kind."""
    rows: list[dict[str, Any]] = []
    for pairs in everything:
        for item in pairs.items:
            rows.append(
                {
                    **item.key._asdict(),
                    "question": item.question,
                    "references": list(item.references),
                    "text": item.text,
                    "status": item.state,
                    **types(item),
                }
            )
    return schema.from_rows("text_pairs", rows)


def _by_key(
    rows: Sequence[TextRow], references: TextReferences, keys: Sequence[ItemKey]
) -> tuple[dict[ItemKey, TextRow], list[str]]:
    """Return rows by key, and the names of those whose item has no reference."""
    asked: dict[tuple[str, str], list[ItemKey]] = {}
    for key in keys:
        asked.setdefault((key.clip_id, _plain(references.questions.get(key))), []).append(key)
    known = set(keys)
    result: dict[ItemKey, TextRow] = {}
    extra: list[str] = []
    for row in rows:
        key = ItemKey(row.task, row.clip_id, row.place if row.qa_index is None else row.qa_index)
        true = references.questions.get(key)
        if row.qa_index is None and row.question is not None and (key not in known or true is not None):
            same = asked.get((row.clip_id, _plain(row.question)), [])
            if not same:
                extra.append(f"{row.clip_id}: {row.question!r}")
                continue
            # a question that a clip is asked twice has two answers, in order
            key = next((key for key in same if key not in result), same[-1])
        elif key not in known:
            extra.append(key.id)
            continue
        elif row.question is not None and true is not None and _plain(row.question) != _plain(true):
            raise MetricError(
                f"{row.where}: answer {key.id} is to {row.question!r}, but the reference asks {true!r}",
                "answers are keyed by qa_index, which counts a clip's questions from 0; leave it out to match by text",
            )
        if key in result:
            raise MetricError(f"{row.where}: {key.task} {key.id} is there twice", "give each prediction once")
        result[key] = row
    return result, extra


def _plain(question: str | None) -> str:
    return " ".join((question or "").split())


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
