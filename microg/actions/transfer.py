"""Scoring across label spaces: predictions in one, truth in another, both brought to the classes that they share.

`transfer`: classes meet through MicroG-4M's ids, when the maps of `microg.data.taxonomy` lead both to one of its
actions. `onto_ava`: they meet in AVA's, by a map of the truth's own. What has no counterpart is left out of
predictions; a true box that keeps no label stays, as a negative.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from microg.actions.rows import Predictions, Truth
from microg.arrow import pc
from microg.data.label_space import AVA_80_SPACE, MICROG_50, LabelSpace
from microg.errors import ConfigError


@dataclass(frozen=True)
class Coverage:
    """Which classes of the target were scored; ids are MicroG-4M's, or those of a dataset with actions of its own.

    classes: how many the target has. scored: id and name (in the target) of those that target, predictions and truth
    all know. with_truth: how many of them have labels. unscored: the names of the target's other classes. labels,
    labels_left_out: how many labels were scored, and how many had no class to go to.
    """

    onto: str
    predictions: str
    truth: str
    classes: int
    scored: tuple[tuple[int, str], ...]
    with_truth: int
    unscored: tuple[str, ...]
    labels: int
    labels_left_out: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**vars(self), "scored": [{"action_id": number, "name": name} for number, name in self.scored]}


def transfer(
    said: Predictions, truth: Truth, truth_space: LabelSpace, onto: LabelSpace
) -> tuple[Predictions, Truth, Coverage]:
    """Bring predictions and truth (with labels in `truth_space`) to the classes they share with `onto`.

    The result is in MicroG-4M's ids, under a label space that has the scored classes only and `onto`'s names for them.
    Raises `ConfigError` when no class is shared.
    """
    names = {ours: onto.names[theirs] for theirs, ours in onto.counterparts.items()}
    known = set(said.space.counterparts.values()) & set(truth_space.counterparts.values())
    ids = tuple(action_id for action_id in MICROG_50.ids if action_id in names and action_id in known)
    if not ids:
        raise ConfigError(f"{said.space.name}, {truth_space.name} and {onto.name} have no class in common")
    space = LabelSpace(
        onto.name,
        ids,
        {action_id: names[action_id] for action_id in ids},
        {action_id: action_id for action_id in ids},
        {action_id: group for action_id in ids if (group := MICROG_50.group(action_id))},
    )
    mapped, labels, left_out = _brought(said, truth, said.space.counterparts, truth_space.counterparts, space)
    found = np.unique(labels.rows["action_id"].drop_null().to_numpy())
    covered = Coverage(
        onto=onto.name,
        predictions=said.space.name,
        truth=truth_space.name,
        classes=len(onto),
        scored=tuple((action_id, space.names[action_id]) for action_id in ids),
        with_truth=len(found),
        unscored=tuple(onto.names[theirs] for theirs in onto.ids if onto.counterparts.get(theirs) not in ids),
        labels=labels.rows.num_rows - labels.rows["action_id"].null_count,
        labels_left_out=left_out,
    )
    return mapped, labels, covered


def onto_ava(
    said: Predictions, truth: Truth, labels: Mapping[int, int], ids: Iterable[int]
) -> tuple[Predictions, Truth, int]:
    """Bring predictions of AVA's classes and truth to the classes `ids` of AVA, and count the labels left out.

    `labels` has AVA's id for each of the truth's. Raises `ConfigError` for predictions of other classes.
    """
    if said.space.name != AVA_80_SPACE.name:
        raise ConfigError(
            f"these predictions are of {said.space.name}, not of AVA's classes", "say --label-space ava80"
        )
    chosen = tuple(sorted(ids))
    space = replace(
        AVA_80_SPACE,
        ids=chosen,
        names={action_id: AVA_80_SPACE.names[action_id] for action_id in chosen},
        counterparts={theirs: ours for theirs, ours in AVA_80_SPACE.counterparts.items() if theirs in chosen},
    )
    return _brought(said, truth, {action_id: action_id for action_id in chosen}, labels, space)


def _brought(
    said: Predictions, truth: Truth, said_ids: Mapping[int, int], truth_ids: Mapping[int, int], space: LabelSpace
) -> tuple[Predictions, Truth, int]:
    """Return both with the ids of `space`, to which the maps lead, and how many labels have none there."""
    predicted = _mapped(said.rows, said_ids, space.ids)
    predicted = predicted.filter(pc.is_valid(predicted["action_id"]))
    labels = _mapped(truth.rows, truth_ids, space.ids)
    left_out = labels["action_id"].null_count - truth.rows["action_id"].null_count
    mapped = Predictions.from_rows(predicted, said.score_kind, space, said.notes)
    return mapped, replace(truth, rows=labels), left_out


def _mapped(rows: pa.Table, ids: Mapping[int, int], wanted: tuple[int, ...]) -> pa.Table:
    """Return rows with the ids that `ids` leads to, null where that is none of `wanted`; rows without an id stay so."""
    action = rows["action_id"].fill_null(0).to_numpy()
    table = np.full(max(*ids, int(action.max(initial=0))) + 1, -1, dtype=np.int32)
    for theirs, ours in ids.items():
        if ours in wanted:
            table[theirs] = ours
    mapped = np.where(rows["action_id"].is_null().to_numpy(), -1, table[action])
    column = pa.array(mapped, pa.int32(), mask=mapped < 0)
    return rows.set_column(rows.schema.get_field_index("action_id"), rows.schema.field("action_id"), column)
