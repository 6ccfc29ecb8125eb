"""What models say of clips whose truth nobody has told: guesses of actions by person, captions, answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from microg.arrow import pc
from microg.data.dataset import Dataset
from microg.data.label_space import LabelSpace
from microg.reports.clips.cards import clip_cards, spread
from microg.reports.clips.pictures import PictureStyle, colour_number
from microg.reports.run_folders import RunFolder, vocabulary_of_run

_GUESSES = 3
PREDICTED, SAID = "har predict", "vlm generate"


@dataclass(frozen=True)
class PersonGuesses:
    """A person, the number of the box's colour, and the likeliest actions with their probabilities, or why none."""

    person_id: int
    colour: int
    guesses: tuple[tuple[str, float], ...]
    problem: str | None = None


@dataclass
class ModelWords:
    """What one run says of a clip."""

    model: str
    people: list[PersonGuesses] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    answers: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class UnscoredClip:
    """A clip under its picture (None, and why), and what each run says of it."""

    clip_id: str
    picture: str | None
    problem: str | None
    models: tuple[ModelWords, ...]


def unscored_clips(
    runs: Sequence[RunFolder], dataset: Dataset, limit: int, style: PictureStyle
) -> tuple[list[UnscoredClip], int]:
    """Return at most `limit` clips with what these runs on a dataset say of them, and how many there are."""
    said = [_actions(run) if run.command == PREDICTED else _texts(run) for run in runs]
    ids = sorted(set().union(*said))
    rows = {row["clip_id"]: row for row in dataset.table("clips").to_pylist()}
    chosen = spread([rows[clip_id] for clip_id in ids if clip_id in rows], limit)
    clips = [
        UnscoredClip(
            card.clip_id, card.picture, card.problem, tuple(each[card.clip_id] for each in said if card.clip_id in each)
        )
        for card in clip_cards(dataset, chosen, style)
    ]
    return clips, len(ids)


def _name(run: RunFolder) -> str:
    model = run.config.get("model_id") or run.config.get("model")
    return f"{model} ({run.name})" if isinstance(model, str) else run.name


def _actions(run: RunFolder) -> dict[str, ModelWords]:
    """Return each clip's people with their likeliest actions."""
    found: dict[str, ModelWords] = defaultdict(lambda: ModelWords(_name(run)))
    columns = ["clip_id", "person_id", "scores", "score_kind", "label_space", "error"]
    spaces: dict[str | None, LabelSpace | None] = {None: None}
    for row in run.table("har_predictions").select(columns).to_pylist():
        person, name = row["person_id"], row["label_space"]
        if name not in spaces:
            vocabulary = vocabulary_of_run(run, name)
            spaces[name] = None if vocabulary is None else vocabulary.space
        space = spaces[name]
        guesses: tuple[tuple[str, float], ...] = ()
        if row["scores"] and space is not None and len(row["scores"]) == len(space):
            scores = np.asarray(row["scores"], dtype=np.float64)
            values = 1 / (1 + np.exp(-scores)) if row["score_kind"] == "logit" else scores
            best = np.argsort(-values, kind="stable")[:_GUESSES]
            guesses = tuple((space.names[space.ids[place]], float(values[place])) for place in best)
        problem = None if guesses else row["error"] or "no scores"
        found[row["clip_id"]].people.append(PersonGuesses(person, colour_number(person), guesses, problem))
    return found


def _texts(run: RunFolder) -> dict[str, ModelWords]:
    """Return each clip's captions and answers; of rows that were asked again the last counts."""
    found: dict[str, ModelWords] = defaultdict(lambda: ModelWords(_name(run)))
    table = run.table("generations").select(["clip_id", "task", "question", "text", "status", "error"])
    for row in table.sort_by([("clip_id", "ascending")]).to_pylist():
        words = found[row["clip_id"]]
        if row["status"] != "ok":
            words.problems.append(row["error"] or row["status"])
        elif row["task"] == "caption":
            words.captions.append(row["text"])
        else:
            words.answers.append((row["question"] or "", row["text"]))
    return found


def unscored(runs: Sequence[RunFolder]) -> list[RunFolder]:
    """Return the finished runs of models whose answers no other of the runs scores."""
    scored = {str(run.config.get("predictions") or "") for run in runs}
    made = [run for run in runs if run.command in (PREDICTED, SAID) and run.finished]
    return [run for run in made if not any(_is_from(path, run.root) for path in scored)]


def _is_from(path: str, root: str) -> bool:
    return path.rstrip("/") == root.rstrip("/") or path.startswith(root.rstrip("/") + "/")


def has_rows(run: RunFolder) -> bool:
    """Tell whether a run answered anything."""
    table = run.table("har_predictions" if run.command == PREDICTED else "generations")
    return bool(pc.count(table["clip_id"]).as_py())
