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


def question_indices(slots: Sequence[int], known: Sequence[int]) -> dict[int, int]:
    """Return the index of the question in each slot, which are numbered in the order of the clip's known questions."""
    if not known:
        return {slot: index for index, slot in enumerate(slots)}
    known = sorted(known)
    if len(known) == len(slots):
        return dict(zip(slots, known, strict=True))
    return {slot: known[slot - 1] if 1 <= slot <= len(known) else known[-1] + slot - len(known) for slot in slots}


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
