"""Small prediction and truth rows for tests of HAR scoring: written out, or random with every oddity there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from microg.actions.rows import PREDICTION_ROWS, TRUTH_ROWS, Predictions, Truth, conform_rows, fold_rows
from microg.data.label_space import AVA_80_SPACE, MICROG_50, LabelSpace
from microg.metrics.har.arrays import ScoringArrays, arrays_from_rows

LEFT, RIGHT = (0.1, 0.1, 0.4, 0.9), (0.6, 0.1, 0.9, 0.9)


def prediction_rows(rows: Sequence[tuple]) -> pa.Table:
    """Build the long form of predictions from (clip, frame, x1, y1, x2, y2, action, score)."""
    return _table(rows, PREDICTION_ROWS.names[1:], PREDICTION_ROWS)


def prediction_boxes(rows: Sequence[tuple], space: LabelSpace = MICROG_50) -> pa.Table:
    """Build predicted boxes from (clip, frame, x1, y1, x2, y2, action, score)."""
    return fold_rows(prediction_rows(rows), space)


def truth_rows(rows: Sequence[tuple]) -> pa.Table:
    """Build truth rows from (clip, frame, x1, y1, x2, y2, action)."""
    return _table(rows, TRUTH_ROWS.names[1:-1], TRUTH_ROWS)


def _table(rows: Sequence[tuple], names: list[str], kind: pa.Schema) -> pa.Table:
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in names]
    arrays = {
        name: pa.array(values, _plain(kind.field(name).type)) for name, values in zip(names, columns, strict=True)
    }
    return conform_rows(arrays, kind, "test")


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def problem_of(predictions: Sequence[tuple], truth: Sequence[tuple]) -> ScoringArrays:
    """Encode written-out rows."""
    return arrays_from_rows(prediction_boxes(predictions), truth_rows(truth), MICROG_50)


def inputs(predictions: Sequence[tuple], truth: Sequence[tuple], **origins: str) -> tuple[Predictions, Truth]:
    """Wrap written-out rows as what readers return."""
    return Predictions(prediction_boxes(predictions), "logit", MICROG_50), Truth(truth_rows(truth), origins)


def random_rows(seed: int, clips: int = 30, classes: int = 6) -> tuple[list[tuple], list[tuple]]:
    """Return prediction and truth tuples with jittered, stray, missing, duplicate and crowded boxes, and many ties.

    Scores have one decimal, some boxes lack some classes, rows of a box do not always follow each other.
    """
    rng = np.random.default_rng(seed)
    actions = MICROG_50.ids[:classes]
    predictions: list[tuple] = []
    truth: list[tuple] = []
    for number in range(clips):
        clip = f"src{number % 5}_{number:03d}"
        frame = int(rng.integers(1, 90))
        for person in range(int(rng.integers(1, 4))):
            corner = rng.uniform(0, 0.5, 2) if person < 2 or not truth else np.array(truth[-1][2:4])
            size = rng.uniform(0.2, 0.5, 2)
            box = tuple(float(value) for value in np.round([*corner, *(corner + size)], 3))
            true = [action for action in actions if rng.random() < 0.3]
            truth += [(clip, frame, *box, action) for action in true]
            if true and rng.random() < 0.1:
                truth.append((clip, frame, *box, true[0]))
            if rng.random() < 0.1:
                continue
            for _ in range(1 + (rng.random() < 0.1)):
                near = np.array(box) + rng.choice([0.0, 0.0, 0.01, 0.2]) * rng.uniform(-0.5, 0.5, 4)
                near = tuple(float(value) for value in np.round(near, 3))
                for _ in range(1 + (rng.random() < 0.1)):
                    predictions += [
                        (clip, frame, *near, action, float(np.round(rng.normal() - 1 + 2 * (action in true), 1)))
                        for action in actions
                        if rng.random() < 0.9
                    ]
    predictions += [("src9_999", 5, 0.1, 0.1, 0.4, 0.4, actions[0], 0.3)]
    order = np.concatenate(
        [part[rng.permutation(len(part))] for part in np.array_split(np.arange(len(predictions)), 9)]
    )
    return [predictions[place] for place in order], truth


def write_csv(path: Path, rows: Sequence[tuple], header: str | None = None, last: object = 1) -> Path:
    """Write rows as CSV; truth tuples get `last` (the person id) appended."""
    lines = [header] if header else []
    for row in rows:
        lines.append(",".join(map(str, row if len(row) == 8 else (*row, last))))
    path.write_text("\n".join(lines) + "\n")
    return path


def ava_predictions(truth: Truth, labels: Mapping[int, int], seed: int, skill: float = 1.5) -> Predictions:
    """Return logits of AVA's 80 classes for each true box, higher by `skill` for what `labels` leads its labels to."""
    draw = np.random.default_rng(seed)
    people: dict[tuple, set[int]] = {}
    for row in truth.rows.to_pylist():
        box = tuple(row[name] for name in ("clip_id", "frame", "x1", "y1", "x2", "y2"))
        people.setdefault(box, set()).add(labels.get(row["action_id"], -1))
    rows = [
        (*box, action_id, float(draw.normal() + skill * (action_id in true)))
        for box, true in people.items()
        for action_id in AVA_80_SPACE.ids
    ]
    return Predictions(prediction_boxes(rows, AVA_80_SPACE), "logit", AVA_80_SPACE)
