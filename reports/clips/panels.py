"""Panels of action recognition (the paper's Figures 3 and 4): key frames, truth, what each model answers."""

# pandas annotates `frame[...]` as DataFrame | Series | Any, which makes nearly every chained call an error.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from microg.actions.own_classes import class_map
from microg.actions.predictions import read_predictions, vocabulary_of_predictions
from microg.actions.rows import Predictions
from microg.data.dataset import Dataset
from microg.data.vocabulary import Vocabulary
from microg.errors import MicrogError, VideoError
from microg.formats.key_frame_sources import read_key_frames
from microg.metrics.har.boxes import iou
from microg.reports.clips.cards import spread
from microg.reports.clips.pictures import Box, PictureStyle, clip_picture, colour_number
from microg.reports.run_folders import RunFolder, model_name, predictions_path

_CONSIDERED = 2000  # key frames ranked, spread over the data
_MOST_PREDICTED = 6


@dataclass(frozen=True)
class ActionScore:
    """One action of a model's answer: its probability, and whether it is true."""

    action: str
    probability: float
    right: bool


@dataclass(frozen=True)
class ModelAnswer:
    """A model's answer on a person: actions from p = 0.5, and true ones it misses; `more` were left out."""

    model: str
    predicted: tuple[ActionScore, ...]
    missed: tuple[ActionScore, ...]
    more: int = 0


@dataclass(frozen=True)
class PersonPanel:
    """A person, the number of the box's colour, true actions, and what each model answers."""

    person_id: int
    colour: int
    truth: tuple[str, ...]
    models: tuple[ModelAnswer, ...]


@dataclass(frozen=True)
class ActionPanel:
    """One key frame. `picture` is a data URI, or None and `problem` says why; f1 is that of the first model."""

    clip_id: str
    frame: int
    picture: str | None
    problem: str | None
    f1: float
    people: tuple[PersonPanel, ...]


@dataclass(frozen=True)
class _Scores:
    """A run's probabilities by key frame: boxes (n, 4), normalised, and probabilities (n, classes)."""

    name: str
    ids: np.ndarray
    by_key: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]]


def action_panels(
    runs: Sequence[RunFolder], dataset: Dataset, limit: int, style: PictureStyle
) -> tuple[list[ActionPanel], list[str]]:
    """Return at most `limit` panels from the best to the worst answered key frame, and why some runs are not there.

    `runs` are runs of `har score` on this dataset. Key frames are ranked by F1 of the first run's answers at p = 0.5.
    """
    notes: list[str] = []
    own = dataset.vocabulary
    models = [found for run in runs if (found := _scores(run, own, notes)) is not None]
    if not models or limit <= 0:
        return [], notes
    settings = runs[0].config.get("score", {})
    try:
        key_frames = read_key_frames(dataset.root, settings.get("split", "test"), settings.get("scheme", "published"))
    except MicrogError as error:
        return [], [*notes, f"no pictures of actions: {error.what}"]
    rows = [row for row in key_frames.rows.to_pylist() if any(row["labels"])]
    rows = [row for row in spread(rows, _CONSIDERED) if (row["clip_id"], row["frame"]) in models[0].by_key]
    ranked = sorted(rows, key=lambda row: (-_f1(row, models[0]), row["key"]))
    return [_panel(row, models, style, own) for row in spread(ranked, limit)], notes


def _scores(run: RunFolder, own: Vocabulary, notes: list[str]) -> _Scores | None:
    """Return a run's probabilities of a dataset's actions; without any, add to the notes why."""
    path = predictions_path(run)
    if path is None:
        notes.append(f"{run.name}: its predictions are no longer where it read them, so that nothing can be shown")
        return None
    if run.config.get("label_space") != own.space.name:
        notes.append(f"{run.name}: its classes are not those of {own.space.name}, so that its answers are not shown")
        return None
    try:
        found = _brought(path, run, own)
    except MicrogError as error:
        notes.append(f"{run.name}: {error.what}")
        return None
    boxes, scores = found.distinct()
    values = 1 / (1 + np.exp(-scores)) if found.score_kind == "logit" else np.maximum(scores, 0)
    ids, places = np.array(found.space.ids), boxes[["x1", "y1", "x2", "y2"]].to_numpy()
    by_key: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}
    for key, members in boxes.groupby(["clip_id", "frame"], sort=False).indices.items():
        clip, number = cast("tuple[str, int]", key)
        by_key[str(clip), int(number)] = (places[members], values[members])
    name = model_name(run)
    return _Scores(f"{name} ({run.name})" if name else run.name, ids, by_key)


def _brought(path: str, run: RunFolder, own: Vocabulary) -> Predictions:
    """Read the predictions that a run scored, in a dataset's actions: the run may have brought them there."""
    asked = (run.config.get("score") or {}).get("label_space")
    kind = run.config.get("score_kind")
    found = read_predictions(path, score_kind=kind, space=asked, known=(own,), default=own.space.name)
    if found.space.name == own.space.name:
        return found
    mapping = class_map(own, vocabulary_of_predictions(path, found.space.name, (own,)))
    return Predictions(mapping.boxes(found.boxes, len(found.space)), found.score_kind, mapping.space)


def _of_person(model: _Scores, row: dict[str, Any], place: int) -> np.ndarray | None:
    """Return the probabilities of the predicted box that lies on a person's, None where none overlaps by half."""
    found = model.by_key.get((row["clip_id"], row["frame"]))
    if found is None:
        return None
    boxes, probabilities = found
    own = np.array(row["boxes"][4 * place : 4 * place + 4], dtype=float)
    overlap = iou(boxes, np.broadcast_to(own, boxes.shape))
    best = int(np.argmax(overlap))
    return probabilities[best] if overlap[best] >= 0.5 else None


def _f1(row: dict[str, Any], model: _Scores) -> float:
    hits = wrong = missed = 0
    for place, labels in enumerate(row["labels"]):
        probabilities = _of_person(model, row, place)
        predicted = set() if probabilities is None else set(model.ids[probabilities >= 0.5].tolist())
        hits, wrong, missed = (
            hits + len(predicted & set(labels)),
            wrong + len(predicted - set(labels)),
            missed + len(set(labels) - predicted),
        )
    return 2 * hits / max(2 * hits + wrong + missed, 1)


def _panel(row: dict[str, Any], models: Sequence[_Scores], style: PictureStyle, own: Vocabulary) -> ActionPanel:
    people = []
    for place, person in enumerate(row["person_id"]):
        labels = set(row["labels"][place])
        answers = tuple(_answer(model, _of_person(model, row, place), labels, own) for model in models)
        people.append(PersonPanel(person, colour_number(person), tuple(_names(sorted(labels), own)), answers))
    picture, problem = None, None
    try:
        if not row["uri"]:
            problem = "it has no video"
        else:
            corners = [row["boxes"][4 * place : 4 * place + 4] for place in range(len(people))]
            boxes = [Box(person, *box) for person, box in zip(row["person_id"], corners, strict=True)]
            picture = clip_picture(row["uri"], row["frame"], boxes, style, normalised=True)
    except VideoError as error:
        problem = error.what
    return ActionPanel(row["clip_id"], row["frame"], picture, problem, _f1(row, models[0]), tuple(people))


def _answer(model: _Scores, probabilities: np.ndarray | None, labels: set[int], own: Vocabulary) -> ModelAnswer:
    if probabilities is None:
        return ModelAnswer(model.name, (), tuple(ActionScore(name, 0.0, False) for name in _names(sorted(labels), own)))
    order = np.argsort(-probabilities, kind="stable")
    predicted = [int(place) for place in order if probabilities[place] >= 0.5]
    missed = [int(place) for place in order if probabilities[place] < 0.5 and int(model.ids[place]) in labels]
    return ModelAnswer(
        model.name,
        tuple(_action_score(model, place, probabilities, labels, own) for place in predicted[:_MOST_PREDICTED]),
        tuple(_action_score(model, place, probabilities, labels, own) for place in missed),
        max(len(predicted) - _MOST_PREDICTED, 0),
    )


def _action_score(
    model: _Scores, place: int, probabilities: np.ndarray, labels: set[int], own: Vocabulary
) -> ActionScore:
    action = int(model.ids[place])
    return ActionScore(_names([action], own)[0], float(probabilities[place]), action in labels)


def _names(ids: Sequence[int], own: Vocabulary) -> list[str]:
    return [own.by_id[number].name if number in own.by_id else f"unknown action {number}" for number in ids]
