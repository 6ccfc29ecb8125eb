"""What a model predicts of people, for those who judge people and not key frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from microg.actions.own_classes import class_map
from microg.actions.predictions import prediction_table, vocabulary_of_predictions
from microg.data import schema
from microg.data.label_space import MICROG_50, LabelSpace
from microg.data.vocabulary import Vocabulary
from microg.errors import FormatError
from microg.reading import reads

_TABLE = "har_predictions"


@dataclass(frozen=True)
class PeoplesActions:
    """Probabilities of actions of people.

    Attributes:
        probabilities: By clip and person, the mean over key frames of each class of `space` (classes,).
        space: Those actions of the dataset that the model knows.
        said: Name of the model's own label space.
        failed: Key frames of people that have no scores.
    """

    probabilities: Mapping[tuple[str, int], np.ndarray]
    space: LabelSpace
    said: str
    failed: int


@reads()
def read_people(run: str, vocabulary: Vocabulary) -> PeoplesActions:
    """Read what a run of `microg har predict` says of each person.

    Args:
        run: The run folder.
        vocabulary: The dataset's actions; those of the model become theirs by their counterparts.

    Raises:
        FormatError: It holds no predictions of people.
        ConfigError: Its actions are not known, or none is a counterpart of the dataset's.
    """
    table = prediction_table(run)
    if "scores" not in table.column_names or "person_id" not in table.column_names:
        raise FormatError(f"{run} does not say whose actions it predicts", "give a run of 'microg har predict'")
    rows = schema.conform(_TABLE, table).to_pylist()
    names = {row["label_space"] or MICROG_50.name for row in rows}
    if len(names) != 1:
        raise FormatError(f"{run} predicts actions of {', '.join(sorted(names)) or 'nothing'}", "of one model only")
    said = vocabulary_of_predictions(run, names.pop(), [vocabulary])
    counterparts = class_map(vocabulary, said)
    found: dict[tuple[str, int], list[np.ndarray]] = {}
    failed = 0
    for number, row in enumerate(rows, 1):
        if row["status"] != "ok" or row["scores"] is None:
            failed += 1
            continue
        scores = np.array(row["scores"], dtype=np.float64)
        if len(scores) != len(said.space) or row["person_id"] is None or np.isnan(scores).any():
            raise FormatError(f"{run}, row {number}: no person, or not {len(said.space)} scores of numbers")
        if row["score_kind"] != "probability":
            scores = 1 / (1 + np.exp(-np.clip(scores, -700, 700)))
        found.setdefault((row["clip_id"], row["person_id"]), []).append(scores)
    means = {key: counterparts.scores(np.mean(rows, axis=0)[None])[0] for key, rows in found.items()}
    return PeoplesActions(means, counterparts.space, said.space.name, failed)
