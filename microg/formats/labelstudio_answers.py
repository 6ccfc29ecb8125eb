"""What each annotator of a Label Studio task said: who they are, and their work as judgements."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from microg.annotations.imports import annotator_name, judgement, time_of
from microg.annotations.rows import Annotation, Item, Source
from microg.formats.keyframes import Track, drawing

CAPTION = "caption"
# Where a task's data say which of the clip's questions its slots 1, 2, ... are.
QUESTIONS = "qa_index"
SLOT = re.compile(r"(question|answer)_([0-9]{1,4})")


@dataclass(frozen=True)
class Answer:
    """What somebody, or a model, made of a task."""

    annotator: str
    source: Source
    time: datetime
    result: list[dict]


@dataclass(frozen=True)
class Content:
    """What an answer says of a clip: each region's person and track, (person, action) pairs, and texts."""

    people: dict[str, int]
    tracks: dict[str, Track]
    actions: list[tuple[int, int]]
    caption: str | None
    slots: dict[int, dict[str, str]]


def person_key(annotation: dict) -> str:
    """Return what tells an annotation's author from others: an address or a number, as text."""
    who = annotation.get("completed_by")
    if isinstance(who, dict):
        who = who.get("email") or who.get("username") or who.get("id")
    return "" if who is None or isinstance(who, (list, dict)) else str(who)


def annotators_of(tasks: Iterable[dict]) -> dict[str, str]:
    """Return the annotators' names by `person_key`: what stands before the @, where that tells all apart."""
    keys = {person_key(each) for task in tasks for each in task.get("annotations") or []}
    short = {key: annotator_name(key.partition("@")[0], "labelstudio") for key in sorted(keys)}
    times = Counter(short.values())
    return {key: name if times[name] == 1 else annotator_name(key, "labelstudio") for key, name in short.items()}


def dated(annotation: dict) -> datetime:
    """Return when an annotation was changed last, in UTC."""
    return time_of(annotation.get("updated_at") or annotation.get("created_at"))


def questions_in(contents: Iterable[Content]) -> dict[int, set[str]]:
    """Return what answers have as the question in each slot that somebody filled."""
    written: dict[int, set[str]] = {}
    for content in contents:
        for number, slot in content.slots.items():
            if len(slot) == 2:
                written.setdefault(number, set()).add(slot["question"].strip())
    return written


def question_indices(written: Mapping[int, set[str]], listed: Any, known: Mapping[int, set[str]]) -> dict[int, int]:
    """Return the index of the question in each slot.

    A slot has the question that it had when the task was made, where the task says so; else the known one of the same
    text, else, of a task made elsewhere, the known one in its place. What is left is new.

    Args:
        written: What was written as the question of each slot.
        listed: What the task says of the indices of the questions in its slots 1, 2, ...: a list, or nothing.
        known: The texts under which each question of the clip is known, by index.
    """
    stated = isinstance(listed, list) and all(type(each) is int and each >= 0 for each in listed)
    places = dict(enumerate(listed if stated else sorted(known), 1))
    found = {slot: places[slot] for slot in written if stated and slot in places}
    for slot in sorted(written.keys() - found.keys()):
        same = [index for index, texts in known.items() if texts & written[slot] and index not in found.values()]
        found |= {slot: min(same)} if same else {}
    for slot in sorted(written.keys() - found.keys()):
        if not stated and slot in places and places[slot] not in found.values():
            found[slot] = places[slot]
    free = max([-1, *known, *places.values(), *found.values()]) + 1
    new = sorted(written.keys() - found.keys())
    return found | {slot: index for index, slot in enumerate(new, free)}


def judgements_of(clip_id: str, answer: Answer, content: Content, indices: Mapping[int, int]) -> Iterator[Annotation]:
    """Yield what an answer says of each person, and its texts."""
    how: dict[str, Any] = {
        "annotator": answer.annotator,
        "source": answer.source,
        "time": answer.time,
        "task": clip_id,
    }
    for person_id in dict.fromkeys(content.people.values()):
        parts = [content.tracks[region] for region, person in content.people.items() if person == person_id]
        labels = sorted(action for person, action in content.actions if person == person_id)
        yield judgement(Item("box", clip_id, person_id), drawing(parts), **how)
        yield judgement(Item("action", clip_id, person_id), {"actions": labels}, **how)
    if (content.caption or "").strip():
        yield judgement(Item("caption", clip_id), {"verdict": "edit", "caption": content.caption}, **how)
    for number, slot in sorted(content.slots.items()):
        if len(slot) == 2 and all(text.strip() for text in slot.values()):
            value = {"verdict": "edit", "question": slot["question"], "answer": slot["answer"]}
            yield judgement(Item("qa", clip_id, None, indices[number]), value, **how)


def read_slots(result: Sequence[dict]) -> tuple[str | None, dict[int, dict[str, str]]]:
    """Return the caption of a task's results, and its questions and answers by the number of their slot."""
    texts: dict[str, str] = {}
    for item in result:
        if item["type"] == "textarea":
            text = item["value"]["text"]
            texts[item["from_name"]] = "\n".join(text) if isinstance(text, list) else str(text)
    slots: dict[int, dict[str, str]] = {}
    for name, text in texts.items():
        match = SLOT.fullmatch(name)
        if match:
            slots.setdefault(int(match[2]), {})[match[1]] = text
    return texts.get(CAPTION), slots
