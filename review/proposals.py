"""What models propose: actions of a HAR run, texts and screenings of a VLM run, questions, rows of source `model`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from microg import storage
from microg.actions.own_classes import class_map
from microg.actions.predictions import vocabulary_of_predictions
from microg.annotations.rows import MAX_ACTIONS, Annotation, Item
from microg.annotations.table import current
from microg.arrow import pc
from microg.data import schema
from microg.data.label_space import MICROG_50
from microg.errors import DatasetError, FormatError
from microg.review.material import Material
from microg.texts.files import newest
from microg.texts.items import GENERATED
from microg.texts.screening import read_screening

_TABLES = ("har_predictions", "generations", "qa_candidates")
# How many classes with the highest scores tell how unsure a model is of a person.
_TOP = 5


@dataclass(frozen=True)
class Proposal:
    """What a model says of an item, as a value of its kind, and the model's name."""

    value: Mapping[str, Any]
    by: str


@dataclass
class Proposals:
    """What models say of a dataset's items.

    Attributes:
        values: By item, what each run says, in the order of the runs.
        unsure: By item, how unsure the first run that scores it is, in bits from 0 to 1.
        doubts: By item of captions and questions, why people should look at it.
    """

    values: dict[Item, list[Proposal]] = field(default_factory=dict)
    unsure: dict[Item, float] = field(default_factory=dict)
    doubts: dict[Item, str] = field(default_factory=dict)

    def of(self, item: Item) -> Proposal | None:
        """Return what the first run that knows an item says of it."""
        said = self.values.get(item)
        return said[0] if said else None

    def add(self, item: Item, value: Mapping[str, Any], by: str) -> None:
        """Add what a run says."""
        self.values.setdefault(item, []).append(Proposal(value, by))

    def questions(self, material: Material) -> np.ndarray:
        """Return clips' numbers with questions' of all proposed questions, (n, 2)."""
        pairs = [
            (number, item.index)
            for item in self.values
            if item.kind == "qa" and (number := material.clips.number(item.clip_id)) is not None
        ]
        return np.array(pairs, np.int64).reshape(-1, 2)


def read_proposals(
    material: Material, runs: Iterable[str], rows: Iterable[Annotation] = (), threshold: float = 0.5
) -> Proposals:
    """Read what models say.

    Args:
        material: The dataset.
        runs: Run folders: of 'har predict', 'vlm generate' or 'data make-qa'.
        rows: Judgements of the dataset's table; those of source `model` count.
        threshold: Least probability of an action that is proposed.

    Raises:
        DatasetError: A folder is no such run, or its actions are none of this dataset's.
    """
    result = Proposals()
    saved = current(row for row in rows if row.source == "model")
    for run in runs:
        found = {name: table for name in _TABLES if (table := run_table(run, name)) is not None}
        if not found:
            raise DatasetError(
                f"{run} proposes nothing: it has none of the tables {', '.join(_TABLES)}",
                "give a run of 'microg har predict', 'microg vlm generate' or 'microg data make-qa'",
            )
        by = storage.absolute(run).rstrip("/").rpartition("/")[2]
        if "har_predictions" in found:
            _actions(result, material, found["har_predictions"], run, by, threshold)
        if "generations" in found:
            _texts(result, material, found["generations"], run, by)
        if "qa_candidates" in found:
            _questions(result, material, found["qa_candidates"], run, by, saved)
    for each in saved:
        if each.kind != "box" and material.clips.number(each.clip_id) is not None:
            result.add(each.about, each.value, each.annotator)
    return result


def run_table(run: str, name: str) -> pa.Table | None:
    """Return a table of a run folder, in one file or as many writers append to it; None when it has none."""
    for folder in (storage.join(run, "tables"), run):
        path = storage.join(folder, f"{name}.parquet")
        if storage.exists(path):
            return schema.conform(name, storage.read_parquet(path))
        if storage.exists(storage.join(folder, name)):
            read = storage.read_parquet_folder(storage.join(folder, name), schema.RUN_TABLES[name])
            return schema.conform(name, read)
    return None


def _actions(result: Proposals, material: Material, table: pa.Table, run: str, by: str, threshold: float) -> None:
    """Propose the actions whose mean probability over a person's key frames is at least the threshold."""
    good = pc.and_(pc.equal(table["status"], "ok"), pc.is_valid(table["person_id"]))
    table = table.filter(pc.fill_null(good, False))
    clip = material.clips.numbers(table["clip_id"])
    here = np.flatnonzero(clip >= 0)
    if not len(here):
        return
    table, clip = table.take(pa.array(here)), clip[here]
    spaces, kinds = (pc.unique(table[name]).to_pylist() for name in ("label_space", "score_kind"))
    if len(spaces) != 1 or len(kinds) != 1:
        raise DatasetError(f"{run} mixes label spaces or kinds of scores", "give the run of one model")
    own = material.vocabulary
    said = vocabulary_of_predictions(run, spaces[0] or MICROG_50.name, [own])
    counterparts, classes = class_map(own, said), len(said.space)
    lengths = pc.fill_null(pc.list_value_length(table["scores"]), 0).to_numpy()
    if (lengths != classes).any():
        raise DatasetError(f"{run} has rows without {classes} scores", f"label space {spaces[0]} has {classes} classes")
    scores = counterparts.scores(pc.list_flatten(table["scores"]).to_numpy().reshape(-1, classes).astype(np.float64))
    ids = counterparts.space.ids
    if not np.isfinite(scores).all():
        raise DatasetError(f"{run} has scores that are no numbers")
    if kinds[0] != "probability":
        scores = 1 / (1 + np.exp(-np.clip(scores, -60, 60)))
    person = table["person_id"].to_numpy().astype(np.int64)
    pairs, inverse, counts = np.unique(
        np.stack([clip.astype(np.int64), person], axis=1), axis=0, return_inverse=True, return_counts=True
    )
    mean = np.zeros((len(pairs), scores.shape[1]))
    np.add.at(mean, inverse.reshape(-1), scores)
    mean /= counts[:, None]
    unsure = _entropy(np.sort(mean, axis=1)[:, -_TOP:]).mean(axis=1)
    order = np.argsort(-mean, axis=1, kind="stable")[:, :MAX_ACTIONS]
    for row, (number, person_id) in enumerate(pairs.tolist()):
        item = Item("action", material.clips.ids[number], person_id)
        chosen = sorted(ids[place] for place in order[row] if mean[row, place] >= threshold)
        result.add(item, {"actions": chosen}, by)
        result.unsure.setdefault(item, float(unsure[row]))


def _entropy(p: np.ndarray) -> np.ndarray:
    """Return the entropy in bits of yes-or-no questions whose answer is yes with probability p."""
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))


def _texts(result: Proposals, material: Material, table: pa.Table, run: str, by: str) -> None:
    table = newest(table)
    table = table.filter(pc.fill_null(pc.equal(table["status"], "ok"), False))
    for task in GENERATED:
        rows = table.filter(pc.equal(table["task"], task))
        prompts = pc.unique(rows["prompt_id"]).to_pylist()
        if len(prompts) > 1:
            raise DatasetError(f"{run} holds answers to several {task} prompts: {', '.join(map(str, prompts))}")
        for row in rows.select(["clip_id", "qa_index", "question", "text"]).to_pylist():
            number, text = material.clips.number(row["clip_id"]), (row["text"] or "").strip()
            if number is None or not text:
                continue
            if task == "screening":
                _screening(result, Item("screening", row["clip_id"]), text, by)
                continue
            if task == "caption":
                result.add(Item("caption", row["clip_id"]), {"verdict": "accept", "caption": text}, by)
                continue
            held = material.questions.get(number, row["qa_index"]) or {}
            question = held.get("question") or row["question"] or ""
            value = {"verdict": "accept", "question": question, "answer": text}
            result.add(Item("qa", row["clip_id"], None, row["qa_index"]), value, by)


def _screening(result: Proposals, item: Item, text: str, by: str) -> None:
    """Propose what a model said of a clip; an answer of another form proposes nothing."""
    try:
        found = read_screening(text)
    except FormatError:
        return
    if found.keep is None:  # it says itself that it cannot tell
        result.unsure.setdefault(item, 1.0)
        return
    reason = {"reason": found.reason} if found.reason and not found.keep else {}
    result.add(item, {"keep": found.keep, **reason}, by)


def _questions(
    result: Proposals, material: Material, table: pa.Table, run: str, by: str, saved: Sequence[Annotation]
) -> None:
    """Put questions of make-qa first that it doubts; `microg data accept` gave them their places in the dataset.

    Raises:
        DatasetError: They have none yet.
    """
    chosen = [
        row
        for row in table.filter(pc.is_valid(table["chosen"])).to_pylist()
        if material.clips.number(row["clip_id"]) is not None
    ]
    places = {
        (each.clip_id, each.value["question"]): each.about
        for each in saved
        if each.kind == "qa" and each.annotator == by
    }
    if chosen and not places:
        raise DatasetError(
            f"the questions of {run} have no places in the dataset yet", f"first: microg data accept {run} DATASET"
        )
    for row in chosen:
        item = places.get((row["clip_id"], row["question"]))
        if row["review"] and item is not None:
            result.doubts[item] = row["review"]
            result.doubts.setdefault(Item("caption", row["clip_id"]), row["review"])
