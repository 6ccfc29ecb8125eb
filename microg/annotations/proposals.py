"""What a run of a model says of a dataset's clips, as statements that people can judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from microg import storage
from microg.actions.people import read_people
from microg.annotations.rows import KINDS, MAX_ACTIONS, Annotation, Item, Kind, check_annotator, now
from microg.annotations.statements import Statement
from microg.data import schema
from microg.data.dataset import Dataset
from microg.errors import AnnotationError, FormatError
from microg.texts.files import read_generations
from microg.texts.screening import read_screening

COMMANDS = ("har predict", "vlm generate", "data make-qa")


@dataclass(frozen=True)
class Proposals:
    """What a run says.

    Attributes:
        name: The run's name, under which it is an annotator.
        command: The command that made it.
        statements: What it says of clips of the dataset.
        notes: What was left out, and why.
    """

    name: str
    command: str
    statements: list[Statement]
    notes: list[str]


def read_proposals(
    run: str,
    dataset: Dataset,
    *,
    kinds: Collection[Kind] = KINDS,
    name: str | None = None,
    threshold: float = 0.5,
    limit: int | None = None,
) -> Proposals:
    """Read what a run of a model says of a dataset.

    Args:
        run: Folder of a run of `har predict`, `vlm generate` or `data make-qa`.
        dataset: The dataset.
        kinds: Only these kinds.
        name: What to call the model; without it the folder's name.
        threshold: Probability from which on an action is said, at most five a person.
        limit: Only the first so many clips, by id.

    Raises:
        AnnotationError: It is no such run, it is of another dataset's clips, or its actions are not the dataset's.
        FormatError: Its table is damaged.
    """
    command, fingerprint = _manifest(run)
    name = check_annotator(name or PurePosixPath(run.rstrip("/")).name)
    notes: list[str] = []
    if command == "har predict":
        found = _actions(run, dataset, threshold, notes)
    elif command == "vlm generate":
        found = _generations(run, dataset, notes)
    else:
        found = _questions(run)
    statements = [each for each in found if each.about.kind in kinds]
    known = set(dataset.table("clips")["clip_id"].to_pylist())
    clips = {each.about.clip_id for each in statements}
    strange = sorted(clips - known)
    if strange and len(strange) == len(clips):
        raise AnnotationError(
            f"{run} is of another dataset: {dataset.root} has none of its {len(clips)} clips, such as {strange[0]}"
        )
    if strange:
        notes.append(f"{len(strange)} clips of the run are not in the dataset, such as {strange[0]}")
    elif fingerprint is not None and fingerprint != dataset.fingerprint():
        notes.append("the dataset has changed since the run was made")
    chosen = set(sorted(clips & known)[:limit])
    return Proposals(name, command, [each for each in statements if each.about.clip_id in chosen], notes)


def as_annotations(proposals: Proposals) -> list[Annotation]:
    """Return what a run says as judgements that are compared and not saved."""
    time = now()
    return [
        Annotation(
            annotation_id=f"{proposals.name}-{number}",
            clip_id=each.about.clip_id,
            person_id=each.about.person_id,
            kind=each.about.kind,
            item=each.about.index,
            value=each.value,
            annotator=proposals.name,
            source="model",
            time=time,
        )
        for number, each in enumerate(proposals.statements)
        if each.about.kind != "qa" or each.about.index is not None
    ]


def _manifest(run: str) -> tuple[str, str | None]:
    path = storage.join(run, "run.json")
    if not storage.exists(path):
        raise AnnotationError(f"{run} is no run folder: it has no run.json", f"give a run of {', '.join(COMMANDS)}")
    found = storage.read_json(path)
    command = found.get("command") if isinstance(found, dict) else None
    if command not in COMMANDS:
        raise AnnotationError(
            f"{run} is a run of {command!r}, which proposes nothing", f"give a run of {', '.join(COMMANDS)}"
        )
    return command, found.get("dataset")


def _actions(run: str, dataset: Dataset, threshold: float, notes: list[str]) -> Iterator[Statement]:
    vocabulary = dataset.vocabulary
    people = read_people(run, vocabulary)
    if people.failed:
        notes.append(f"{people.failed} rows of people failed when they were predicted: they say nothing")
    if unknown := len(vocabulary.space) - len(people.space):
        notes.append(f"{unknown} actions of {vocabulary.name} have no counterpart in {people.said}: never said")
    boxes = dataset.table("boxes").select(["clip_id", "person_id"]).group_by(["clip_id", "person_id"]).aggregate([])
    there = set(zip(boxes["clip_id"].to_pylist(), boxes["person_id"].to_pylist(), strict=True))
    boxed = {clip for clip, _ in there}
    strange = 0
    for (clip, person), probabilities in sorted(people.probabilities.items()):
        if clip in boxed and (clip, person) not in there:
            strange += 1
            continue
        likeliest = np.argsort(-probabilities, kind="stable")[:MAX_ACTIONS]
        actions = sorted(people.space.ids[place] for place in likeliest if probabilities[place] >= threshold)
        yield Statement(f"{clip}:{person}", Item("action", clip, person), {"actions": actions})
    if strange:
        notes.append(f"{strange} people of the run have no boxes in the dataset: left out")


def _generations(run: str, dataset: Dataset, notes: list[str]) -> Iterator[Statement]:
    questions = {(row["clip_id"], row["qa_index"]): row["question"] for row in dataset.table("qa").to_pylist()}
    left: Counter[str] = Counter()
    for row in read_generations(run).to_pylist():
        clip, text = row["clip_id"], (row["text"] or "").strip()
        if row["status"] != "ok" or not text:
            left["failed or are empty"] += 1
        elif row["task"] == "caption":
            yield Statement(clip, Item("caption", clip), {"verdict": "accept", "caption": text})
        elif row["task"] == "screening":
            try:
                keep, reason = read_screening(text)
            except FormatError:
                left["are no screenings"] += 1
                continue
            if keep is None:
                left["could not tell"] += 1
                continue
            value = {"keep": keep} if keep or not reason else {"keep": keep, "reason": reason}
            yield Statement(f"screening:{clip}", Item("screening", clip), value)
        else:
            index, question = row["qa_index"], row["question"] or ""
            if questions.get((clip, index), question) != question:
                left["answer another question than the dataset has there"] += 1
                continue
            value = {"verdict": "accept", "question": question, "answer": text}
            yield Statement(f"{clip}:{index}", Item("qa", clip, None, index), value)
    notes += [f"{count} rows {what}: left out" for what, count in left.items()]


def _questions(run: str) -> Iterable[Statement]:
    path = storage.join(run, "qa.parquet")
    if not storage.exists(path):
        raise AnnotationError(f"{run} has no qa.parquet", "its command did not finish: run it again")
    rows: list[dict[str, Any]] = schema.conform("qa", storage.read_parquet(path)).to_pylist()
    for row in rows:
        value = {"verdict": "accept", "question": row["question"] or "", "answer": row["answer"] or ""}
        yield Statement(f"{row['clip_id']}:{row['qa_index']}", Item("qa", row["clip_id"]), value)
