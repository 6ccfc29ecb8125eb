"""What the tiny vision-language model learns about each clip: captions, answers, and what action labels tell."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from microg.arrow import pc
from microg.data.dataset import Dataset
from microg.demo.tiny_vlm.settings import VlmTrainSettings
from microg.errors import DatasetError
from microg.metrics.text.answers import answer_type, normalise
from microg.texts.items import Task

# A question is answered by an action label where that never failed in so many clips with "yes" and with "no".
_LEAST_SUPPORT = 3


@dataclass(frozen=True)
class Lesson:
    """One thing to say; `question` is None for captions. kind: caption, yes/no, count, unanswerable or other."""

    task: Task
    question: str | None
    answer: str
    kind: str


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainingClip:
    """A clip with its captions, answers, person boxes and action labels.

    Attributes:
        clip_id: The clip.
        uri: Its video.
        lessons: Captions and answers of annotators.
        more: Questions that its labels answer, with "yes" and with "no".
        frames: (n,) number of the frame, from 1, of each box.
        people: (n,) number of the person, from 0, of each box.
        boxes: (n, 4) corners as parts of the frame's sides.
        labels: (persons, actions) bool.
        words: (words,) bool, which of the discriminative words occur in its texts.
    """

    clip_id: str
    uri: str
    lessons: tuple[Lesson, ...]
    more: tuple[tuple[Lesson, ...], tuple[Lesson, ...]]
    frames: np.ndarray
    people: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    words: np.ndarray

    @property
    def texts(self) -> list[str]:
        """Questions, answers and captions, in the annotators' words."""
        return [text for lesson in self.lessons for text in (lesson.question, lesson.answer) if text]


@dataclass(frozen=True)
class Lessons:
    """Clips to train on and to validate on; columns of their `labels` are `actions` (ids), of their `words` `words`."""

    train: tuple[TrainingClip, ...]
    val: tuple[TrainingClip, ...]
    actions: tuple[int, ...]
    words: tuple[str, ...]
    fingerprint: str


def read_lessons(root: str, settings: VlmTrainSettings) -> Lessons:
    """Read what the train and val splits teach. Raises `DatasetError` when the train split teaches nothing."""
    dataset = Dataset.open(root)
    splits = dataset.table("splits").filter(pc.field("scheme") == settings.scheme)
    home = dict(zip(splits["clip_id"].to_pylist(), splits["split"].to_pylist(), strict=True))
    if not home:
        raise DatasetError(f"dataset {root} has no split of scheme {settings.scheme!r}", f"microg data split {root}")
    lessons = _read_texts(dataset, settings.tasks)
    rows = [row for row in dataset.kept_clips().sort_by("clip_id").to_pylist() if lessons.get(row["clip_id"])]
    chosen = {name: [row for row in rows if home.get(row["clip_id"]) == name] for name in ("train", "val")}
    chosen = {name: found[: settings.limit] for name, found in chosen.items()}
    if not chosen["train"]:
        wanted = " and ".join({"caption": "captions", "vqa": "questions"}[task] for task in settings.tasks)
        raise DatasetError(f"no clip of the train split of {root} has {wanted}", "are there tables qa and captions?")
    people = _actions_by_person(dataset, {row["clip_id"] for row in chosen["train"]})
    actions = tuple(sorted({action for persons in people.values() for ids in persons.values() for action in ids}))
    clip_actions = {clip: frozenset().union(*persons.values()) for clip, persons in people.items()}
    label_answers = answered_by_actions({clip: lessons[clip] for clip in clip_actions}, clip_actions)
    boxes = _boxes(dataset, people)
    words = discriminative_words([lessons[row["clip_id"]] for row in chosen["train"]])
    train = [
        _training_clip(
            dataset,
            row,
            lessons[row["clip_id"]],
            more=_more(label_answers, clip_actions.get(row["clip_id"])),
            actions=actions,
            people=people.get(row["clip_id"], {}),
            boxes=boxes.get(row["clip_id"], []),
            words=words,
        )
        for row in chosen["train"]
    ]
    val = [_training_clip(dataset, row, lessons[row["clip_id"]]) for row in chosen["val"]]
    return Lessons(tuple(train), tuple(val), actions, words, dataset.fingerprint())


def discriminative_words(lessons: Sequence[Sequence[Lesson]]) -> tuple[str, ...]:
    """Return the words in 3% to 60% of the clips' captions and answers, and of three clips at least, sorted.

    Only captions and answers that name something count: neither numbers nor "yes" tell of one thing in the picture.
    """
    counts = Counter(word for clip in lessons for word in _words(clip))
    least, most = max(_LEAST_SUPPORT, 0.03 * len(lessons)), 0.6 * len(lessons)
    return tuple(sorted(word for word, count in counts.items() if least <= count <= most))


def _words(lessons: Sequence[Lesson]) -> set[str]:
    texts = (lesson.answer for lesson in lessons if lesson.kind in ("caption", "other"))
    return {word for text in texts for word in re.findall(r"[^\W\d_]+", text.lower())}


def answered_by_actions(
    lessons: Mapping[str, Sequence[Lesson]], clip_actions: Mapping[str, frozenset[int]]
) -> dict[str, tuple[int, Lesson, Lesson]]:
    """Find yes/no questions that one action label answers: question -> (action, lesson "yes", lesson "no").

    The label must agree with every answer that annotators gave, of which there are at least three "yes" and three
    "no", and must be the only one that does. Both arguments are by clip.
    """
    by_question: dict[str, list[tuple[str, Lesson]]] = {}
    for clip, own in lessons.items():
        for lesson in own:
            if lesson.kind == "yes/no" and lesson.question and normalise(lesson.answer) in ("yes", "no"):
                by_question.setdefault(lesson.question, []).append((clip, lesson))
    found = {}
    for question, rows in sorted(by_question.items()):
        truth = [normalise(lesson.answer) == "yes" for _, lesson in rows]
        if min(sum(truth), len(truth) - sum(truth)) < _LEAST_SUPPORT:
            continue
        every = sorted(frozenset().union(*(clip_actions[clip] for clip, _ in rows)))
        fits = [action for action in every if [action in clip_actions[clip] for clip, _ in rows] == truth]
        if len(fits) == 1:
            yes, no = rows[truth.index(True)][1], rows[truth.index(False)][1]
            found[question] = (fits[0], yes, no)
    return found


def _more(
    label_answers: Mapping[str, tuple[int, Lesson, Lesson]], actions: frozenset[int] | None
) -> tuple[tuple[Lesson, ...], tuple[Lesson, ...]]:
    if actions is None:  # nobody labelled it: an action that is not listed may be there all the same
        return (), ()
    yes = tuple(yes for action, yes, _ in label_answers.values() if action in actions)
    return yes, tuple(no for action, _, no in label_answers.values() if action not in actions)


def _read_texts(dataset: Dataset, tasks: Sequence[Task]) -> dict[str, list[Lesson]]:
    found: dict[str, list[Lesson]] = {}
    if "vqa" in tasks:
        for row in dataset.table("qa").sort_by([("clip_id", "ascending"), ("qa_index", "ascending")]).to_pylist():
            if row["question"] and row["answer"]:
                kind = answer_type(row["question"], row["answer"])
                found.setdefault(row["clip_id"], []).append(Lesson("vqa", row["question"], row["answer"], kind))
    if "caption" in tasks:
        for row in dataset.table("captions").to_pylist():
            if row["caption"]:
                found.setdefault(row["clip_id"], []).append(Lesson("caption", None, row["caption"], "caption"))
    return found


def _actions_by_person(dataset: Dataset, clips: set[str]) -> dict[str, dict[int, set[int]]]:
    found: dict[str, dict[int, set[int]]] = {}
    for row in dataset.table("actions").to_pylist():
        if row["clip_id"] in clips and row["action_id"] is not None:
            found.setdefault(row["clip_id"], {}).setdefault(row["person_id"], set()).add(row["action_id"])
    return found


def _boxes(dataset: Dataset, clips: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    table = dataset.table("boxes")
    found: dict[str, list[dict[str, Any]]] = {}
    for row in table.filter(pc.is_in(table["clip_id"], value_set=pa.array(sorted(clips), pa.string()))).to_pylist():
        found.setdefault(row["clip_id"], []).append(row)
    return found


def _training_clip(
    dataset: Dataset,
    row: dict[str, Any],
    lessons: Sequence[Lesson],
    *,
    more: tuple[tuple[Lesson, ...], tuple[Lesson, ...]] = ((), ()),
    actions: Sequence[int] = (),
    people: Mapping[int, set[int]] = MappingProxyType({}),
    boxes: Sequence[dict[str, Any]] = (),
    words: Sequence[str] = (),
) -> TrainingClip:
    numbers = {person: number for number, person in enumerate(sorted(people))}
    kept = [box for box in boxes if box["person_id"] in numbers] if row["width"] and row["height"] else []
    corners = np.array([[box[name] for name in ("x1", "y1", "x2", "y2")] for box in kept], np.float64).reshape(-1, 4)
    labels = np.array([[action in people[person] for action in actions] for person in sorted(people)], bool)
    own_words = _words(lessons)
    return TrainingClip(
        clip_id=row["clip_id"],
        uri=dataset.resolve(row["uri"], row["clip_id"]),
        lessons=tuple(lessons),
        more=more,
        frames=np.array([box["frame"] for box in kept], np.int64),
        people=np.array([numbers[box["person_id"]] for box in kept], np.int64),
        boxes=corners / np.array([row["width"] or 1, row["height"] or 1] * 2, np.float64),
        labels=labels.reshape(len(people), len(actions)),
        words=np.array([word in own_words for word in words], bool),
    )
