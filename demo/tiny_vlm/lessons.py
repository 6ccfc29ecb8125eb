"""What a vision-language model is taught about each clip: captions and answers, and what its labels tell besides."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, eq=False)
class TaughtClip:
    """A clip, what is said of it, and who does what where in it.

    more: questions that its labels answer, with "yes" and with "no". frames (n,): numbers of frames from 1 that boxes
    (n, 4), corners as parts of the frame's sides, are of; people (n,) counts persons from 0, labels (persons, actions).
    words: which of the lessons' words are said of it, bool.
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
        """All that is asked and said of the clip, in the annotators' words."""
        return [text for lesson in self.lessons for text in (lesson.question, lesson.answer) if text]


@dataclass(frozen=True)
class Lessons:
    """Clips to learn from and clips to be examined on; `labels` are of `actions`, by their ids, `words` of `words`."""

    train: tuple[TaughtClip, ...]
    val: tuple[TaughtClip, ...]
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
    said = _said(dataset, settings.tasks)
    rows = [row for row in dataset.kept_clips().sort_by("clip_id").to_pylist() if said.get(row["clip_id"])]
    chosen = {name: [row for row in rows if home.get(row["clip_id"]) == name] for name in ("train", "val")}
    chosen = {name: found[: settings.limit] for name, found in chosen.items()}
    if not chosen["train"]:
        wanted = " and ".join({"caption": "captions", "vqa": "questions"}[task] for task in settings.tasks)
        raise DatasetError(f"no clip of the train split of {root} has {wanted}", "are there tables qa and captions?")
    done = _actions(dataset, {row["clip_id"] for row in chosen["train"]})
    actions = tuple(sorted({action for people in done.values() for ids in people.values() for action in ids}))
    shown = {clip: frozenset().union(*people.values()) for clip, people in done.items()}
    told = answered_by_actions({clip: said[clip] for clip in shown}, shown)
    boxes = _boxes(dataset, done)
    words = telling_words([said[row["clip_id"]] for row in chosen["train"]])
    train = [
        _taught(
            dataset,
            row,
            said[row["clip_id"]],
            _more(told, shown.get(row["clip_id"])),
            actions,
            done.get(row["clip_id"], {}),
            boxes.get(row["clip_id"], []),
            words,
        )
        for row in chosen["train"]
    ]
    val = [_taught(dataset, row, said[row["clip_id"]], ((), ()), (), {}, [], ()) for row in chosen["val"]]
    return Lessons(tuple(train), tuple(val), actions, words, dataset.fingerprint())


def telling_words(said: Sequence[Sequence[Lesson]]) -> tuple[str, ...]:
    """Return the words, sorted, by which clips differ: said of three in a hundred clips at least, and of most at most.

    Only captions and answers that name something count: neither numbers nor "yes" tell of one thing in the picture.
    """
    counts = Counter(word for lessons in said for word in _words(lessons))
    least, most = max(_LEAST_SUPPORT, 0.03 * len(said)), 0.6 * len(said)
    return tuple(sorted(word for word, count in counts.items() if least <= count <= most))


def _words(lessons: Sequence[Lesson]) -> set[str]:
    texts = (lesson.answer for lesson in lessons if lesson.kind in ("caption", "other"))
    return {word for text in texts for word in re.findall(r"[^\W\d_]+", text.lower())}


def answered_by_actions(
    said: Mapping[str, Sequence[Lesson]], shown: Mapping[str, frozenset[int]]
) -> dict[str, tuple[int, Lesson, Lesson]]:
    """Find yes/no questions that one action label answers: question -> (action, lesson "yes", lesson "no").

    shown: the actions of each clip. The label must agree with every answer that annotators gave, of which there are
    at least three "yes" and three "no", and must be the only one that does.
    """
    asked: dict[str, list[tuple[str, Lesson]]] = {}
    for clip, lessons in said.items():
        for lesson in lessons:
            if lesson.kind == "yes/no" and lesson.question and normalise(lesson.answer) in ("yes", "no"):
                asked.setdefault(lesson.question, []).append((clip, lesson))
    found = {}
    for question, rows in sorted(asked.items()):
        truth = [normalise(lesson.answer) == "yes" for _, lesson in rows]
        if min(sum(truth), len(truth) - sum(truth)) < _LEAST_SUPPORT:
            continue
        every = sorted(frozenset().union(*(shown[clip] for clip, _ in rows)))
        fits = [action for action in every if [action in shown[clip] for clip, _ in rows] == truth]
        if len(fits) == 1:
            yes, no = rows[truth.index(True)][1], rows[truth.index(False)][1]
            found[question] = (fits[0], yes, no)
    return found


def _more(
    told: Mapping[str, tuple[int, Lesson, Lesson]], shown: frozenset[int] | None
) -> tuple[tuple[Lesson, ...], tuple[Lesson, ...]]:
    if shown is None:  # nobody labelled it: an action that is not listed may be there all the same
        return (), ()
    yes = tuple(yes for action, yes, _ in told.values() if action in shown)
    return yes, tuple(no for action, _, no in told.values() if action not in shown)


def _said(dataset: Dataset, tasks: Sequence[Task]) -> dict[str, list[Lesson]]:
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


def _actions(dataset: Dataset, clips: set[str]) -> dict[str, dict[int, set[int]]]:
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


def _taught(
    dataset: Dataset,
    row: dict[str, Any],
    lessons: Sequence[Lesson],
    more: tuple[tuple[Lesson, ...], ...],
    actions: Sequence[int],
    done: Mapping[int, set[int]],
    boxes: Sequence[dict[str, Any]],
    words: Sequence[str],
) -> TaughtClip:
    persons = {person: place for place, person in enumerate(sorted(done))}
    kept = [box for box in boxes if box["person_id"] in persons] if row["width"] and row["height"] else []
    sides = np.array([row["width"] or 1, row["height"] or 1] * 2, np.float64)
    told = _words(lessons)
    return TaughtClip(
        row["clip_id"],
        dataset.resolve(row["uri"]),
        tuple(lessons),
        (more[0], more[1]),
        np.array([box["frame"] for box in kept], np.int64),
        np.array([persons[box["person_id"]] for box in kept], np.int64),
        np.array([[box[name] for name in ("x1", "y1", "x2", "y2")] for box in kept], np.float64).reshape(-1, 4) / sides,
        np.array([[action in done[person] for action in actions] for person in sorted(done)], bool).reshape(
            len(persons), len(actions)
        ),
        np.array([word in told for word in words], bool),
    )
