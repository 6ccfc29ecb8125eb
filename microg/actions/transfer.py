"""Scoring across label spaces: predictions in one, truth in another, both brought to the classes that a third shares.

Classes meet through MicroG-4M's ids: two classes are the same when the maps of `microg.data.taxonomy` lead both to one
of its actions. What has no counterpart is left out of predictions; a true box that keeps no label stays, as a negative.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from microg.actions.rows import Predictions, Truth
from microg.arrow import pc
from microg.data.label_space import MICROG_50, LabelSpace
from microg.errors import ConfigError


@dataclass(frozen=True)
class Coverage:
    """Which classes of the target were scored; ids are MicroG-4M's.

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
    predicted = _mapped(said.rows, said.space, ids)
    predicted = predicted.filter(pc.is_valid(predicted["action_id"]))
    labels = _mapped(truth.rows, truth_space, ids)
    left_out = labels["action_id"].null_count - truth.rows["action_id"].null_count
    found = np.unique(labels["action_id"].drop_null().to_numpy())
    covered = Coverage(
        onto=onto.name,
        predictions=said.space.name,
        truth=truth_space.name,
        classes=len(onto),
        scored=tuple((action_id, space.names[action_id]) for action_id in ids),
        with_truth=len(found),
        unscored=tuple(onto.names[theirs] for theirs in onto.ids if onto.counterparts.get(theirs) not in ids),
        labels=labels.num_rows - labels["action_id"].null_count,
        labels_left_out=left_out,
    )
    mapped = Predictions.from_rows(predicted, said.score_kind, space, said.notes)
    return mapped, replace(truth, rows=labels), covered


def _mapped(rows: pa.Table, space: LabelSpace, ids: tuple[int, ...]) -> pa.Table:
    """Return rows with MicroG-4M's ids, null where `ids` has no counterpart; rows without an id stay so."""
    table = np.full(max(space.ids) + 1, -1, dtype=np.int32)
    for theirs, ours in space.counterparts.items():
        if ours in ids:
            table[theirs] = ours
    action = rows["action_id"].fill_null(0).to_numpy()
    mapped = np.where(rows["action_id"].is_null().to_numpy(), -1, table[action])
    column = pa.array(mapped, pa.int32(), mask=mapped < 0)
    return rows.set_column(rows.schema.get_field_index("action_id"), rows.schema.field("action_id"), column)
