"""Predictions of one set of actions held against labels of another, where a dataset has its own.

Each action of the dataset takes the score of its counterparts in the model's set: the highest, where it has several.
Several actions may share one counterpart. Actions without any are not scored; the labels that only such actions give a
box leave it as a negative.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from microg.actions.rows import PREDICTION_BOXES, Predictions, Truth, conform_rows, score_matrix
from microg.actions.transfer import Coverage
from microg.arrow import pc
from microg.data.label_space import LabelSpace
from microg.data.vocabulary import COUNTERPARTS, OwnAction, Vocabulary
from microg.errors import ConfigError


def counterparts(own: Vocabulary, said: Vocabulary) -> dict[int, tuple[int, ...]]:
    """Return for each action of a dataset the ids of a model's actions that stand for it.

    Args:
        own: The actions that people are labelled with.
        said: The actions that the model knows. A published set has the counterparts that the dataset says; an earlier
            or later state of the same vocabulary also those that its changes tell; another vocabulary those that both
            name in a published set.
    """
    followed = _followed(own, said) if said.origin == own.origin else {}
    sets = [said.name] if said.published else [own.name] if own.published else list(COUNTERPARTS)
    found: dict[int, tuple[int, ...]] = {}
    for action in own.actions:
        named = next((same for name in sets if (same := _named(action, said, name))), ())
        changed = followed.get(action.id, ())
        # what a dataset says of a published set counts; a merge adds what else went into an action
        ids = changed if changed and (not said.published or set(changed) & set(named)) else named
        if ids:
            found[action.id] = ids
    return found


def _named(action: OwnAction, said: Vocabulary, name: str) -> tuple[int, ...]:
    theirs = action.counterparts.get(name)
    return tuple(each.id for each in said.actions if theirs is not None and each.counterparts.get(name) == theirs)


def _followed(own: Vocabulary, said: Vocabulary) -> dict[int, tuple[int, ...]]:
    """Follow the changes from one state of a vocabulary to another: what was merged since counts as one."""
    found: dict[int, tuple[int, ...]] = {}
    for theirs in said.by_id:
        known = theirs in own.by_id or theirs in own.replaced
        meant = own.in_use(theirs) if known else None
        if meant is not None:
            found[meant] = (*found.get(meant, ()), theirs)
    return found


@dataclass(frozen=True)
class ClassMap:
    """How scores of a model's classes become scores of a dataset's.

    Attributes:
        space: The classes that are scored, under the name of the dataset's label space.
        columns: For each of them the places of its counterparts among the model's classes.
    """

    space: LabelSpace
    columns: tuple[tuple[int, ...], ...]

    def scores(self, scores: np.ndarray) -> np.ndarray:
        """Return the scores (boxes, scored classes) of those of all the model's classes (boxes, classes)."""
        return np.stack([scores[:, list(places)].max(axis=1) for places in self.columns], axis=1)

    def boxes(self, boxes: pa.Table, classes: int) -> pa.Table:
        """Return predicted boxes (`PREDICTION_BOXES`) of so many classes with the scores of those that are scored."""
        if not boxes.num_rows:
            return boxes
        scores = self.scores(score_matrix(boxes, classes)[0])
        columns: dict[str, Any] = {name: boxes[name] for name in ("clip_id", "frame", "x1", "y1", "x2", "y2")}
        order = np.argsort(boxes["row"].to_numpy(), kind="stable")
        rows = np.empty(len(order), np.int64)
        rows[order] = np.arange(len(order)) * len(self.space)  # boxes keep their order
        places = np.where(np.isfinite(scores), rows[:, None] + np.arange(len(self.space)), -1)
        columns |= {
            "row": pa.array(rows),
            "scores": pa.array(list(scores), pa.list_(pa.float64())),
            "places": pa.array(list(places), pa.list_(pa.int64())),
        }
        return conform_rows(columns, PREDICTION_BOXES, "predictions")


def class_map(own: Vocabulary, said: Vocabulary) -> ClassMap:
    """Return how a model's scores become scores of a dataset's classes.

    Raises:
        ConfigError: None of the dataset's actions has a counterpart among the model's.
    """
    found = counterparts(own, said)
    if not found:
        example = said.name if said.published else next(iter(COUNTERPARTS))
        raise ConfigError(
            f"no action of {own.space.name} has a counterpart among those of the model, {said.space.name}",
            f"say which: microg data vocabulary map DATASET ID {example} ID",
        )
    ids = tuple(action_id for action_id in own.space.ids if action_id in found)
    kept = set(ids)
    space = replace(
        own.space,
        ids=ids,
        names={each: own.space.names[each] for each in ids},
        counterparts={mine: ours for mine, ours in own.space.counterparts.items() if mine in kept},
        groups={mine: group for mine, group in own.space.groups.items() if mine in kept},
    )
    places = {action_id: place for place, action_id in enumerate(said.space.ids)}
    return ClassMap(space, tuple(tuple(places[theirs] for theirs in found[each]) for each in ids))


def scored_truth(truth: Truth, space: LabelSpace) -> Truth:
    """Return truth with the labels of the classes that are scored; a box that keeps none stays, as a negative."""
    labels = truth.rows["action_id"]
    kept = pc.is_in(labels, pa.array(space.ids, pa.int32()))
    place = truth.rows.schema.get_field_index("action_id")
    column = pc.if_else(kept, labels, pa.scalar(None, pa.int32()))
    return replace(truth, rows=truth.rows.set_column(place, truth.rows.schema.field("action_id"), column))


def onto_own(
    predictions: Predictions, said: Vocabulary, truth: Truth, own: Vocabulary
) -> tuple[Predictions, Truth, Coverage]:
    """Bring predictions to a dataset's own actions.

    Args:
        predictions: Scores of the model's classes.
        said: The model's actions.
        truth: Labels of the dataset.
        own: The dataset's actions.

    Raises:
        ConfigError: None of the dataset's actions has a counterpart among the model's.
    """
    mapping = class_map(own, said)
    brought_truth = scored_truth(truth, mapping.space)
    scored, notes = brought_truth.rows["action_id"], []
    left_out = [action.name for action in own.actions if action.id not in mapping.space.names]
    count = scored.null_count - truth.rows["action_id"].null_count
    if left_out:
        notes.append(
            f"{len(left_out)} of {len(own.actions)} actions have no counterpart in {said.space.name} and were not "
            f"scored, nor were their {count} labels: {', '.join(left_out)}"
        )
    covered = Coverage(
        onto=own.space.name,
        predictions=said.space.name,
        truth=own.space.name,
        classes=len(own.actions),
        scored=tuple((each, mapping.space.names[each]) for each in mapping.space.ids),
        with_truth=len(pc.unique(scored.drop_null())),
        unscored=tuple(left_out),
        labels=len(scored) - scored.null_count,
        labels_left_out=count,
    )
    brought = Predictions(
        mapping.boxes(predictions.boxes, len(predictions.space)),
        predictions.score_kind,
        mapping.space,
        (*predictions.notes, *notes),
    )
    return brought, brought_truth, covered
