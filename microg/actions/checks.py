"""Checks of prediction and truth rows: the first one that cannot be scored is refused with its place in the file."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from microg.actions.rows import ScoreKind, clip_codes
from microg.arrow import pc
from microg.data.label_space import LabelSpace
from microg.errors import FormatError

Where = Callable[[int], str]


def check_prediction_rows(rows: pa.Table, space: LabelSpace, kind: ScoreKind, where: Where) -> None:
    """Raise `FormatError` for the first row of `PREDICTION_ROWS` that cannot be scored; `where` names a row's place.

    Checked: empty values, boxes, action ids outside the label space, scores that are NaN or infinite, and probabilities
    outside 0 to 1.
    """
    _check_key_boxes(rows, where)
    _check_filled(rows, ("action_id", "score"), where)
    _check_actions(rows["action_id"].to_numpy(), space, where)
    _check_scores(rows["score"].to_numpy(), kind, where)


def check_prediction_boxes(boxes: pa.Table, space: LabelSpace, kind: ScoreKind, where: Where) -> None:
    """Raise `FormatError` for the first row of `PREDICTION_BOXES` that cannot be scored, as `check_prediction_rows`."""
    _check_key_boxes(boxes, where)
    scores = pa.table({"score": pc.list_flatten(boxes["scores"])})

    def of_score(index: int) -> str:
        return where(index // len(space))

    _check_filled(scores, ("score",), of_score)
    _check_scores(scores["score"].to_numpy(), kind, of_score)


def _check_scores(score: np.ndarray, kind: ScoreKind, where: Where) -> None:
    _refuse(~np.isfinite(score), where, lambda index: f"score is {score[index]}", "scores must be finite numbers")
    if kind == "probability":
        _refuse(
            (score < 0) | (score > 1),
            where,
            lambda index: f"probability {score[index]:g} is not between 0 and 1",
            "say --scores logit when the scores are logits",
        )


def check_truth_rows(rows: pa.Table, space: LabelSpace, where: Where) -> None:
    """Raise `FormatError` for the first truth row that cannot be used; `where` names the place of a row.

    Checked: empty values, boxes, unknown action ids, and one person id given to two boxes of one key frame.
    """
    _check_key_boxes(rows, where)
    action = rows["action_id"].fill_null(space.ids[0]).to_numpy()
    _check_actions(action, space, where)
    if rows["person_id"].null_count == rows.num_rows:
        return
    _check_filled(rows, ("person_id",), where)
    codes, _ = clip_codes(rows)
    keys = np.stack([codes, rows["frame"].to_numpy(), rows["person_id"].to_numpy()])
    boxes = np.stack([rows[name].to_numpy() for name in ("x1", "y1", "x2", "y2")])
    order = np.lexsort((np.arange(rows.num_rows), *keys[::-1]))
    same = (keys[:, order[1:]] == keys[:, order[:-1]]).all(axis=0)
    moved = (boxes[:, order[1:]] != boxes[:, order[:-1]]).any(axis=0)
    bad = np.zeros(rows.num_rows, dtype=bool)
    bad[order[1:][same & moved]] = True
    _refuse(
        bad,
        where,
        lambda index: f"person id {keys[2, index]} is there twice in this key frame, with two different boxes",
        "ids must be unique: one box a person and key frame",
    )


def looks_like_probabilities(scores: np.ndarray) -> bool:
    """Tell whether every score lies between 0 and 1, which real logits never do."""
    return bool(scores.size) and bool(((scores >= 0) & (scores <= 1)).all())


def _check_key_boxes(rows: pa.Table, where: Where) -> None:
    _check_filled(rows, ("clip_id", "frame", "x1", "y1", "x2", "y2"), where)
    box = {name: rows[name].to_numpy() for name in ("x1", "y1", "x2", "y2")}
    for name, value in box.items():
        _refuse(~np.isfinite(value), where, lambda index, n=name, v=value: f"{n} is {v[index]}", "boxes must be finite")
    for low, high in (("x1", "x2"), ("y1", "y2")):
        _refuse(
            box[high] <= box[low],
            where,
            lambda index, low=low, high=high: f"box with {high} {box[high][index]:g} <= {low} {box[low][index]:g}",
            "boxes are x1, y1, x2, y2 with x2 > x1 and y2 > y1",
        )


def _check_filled(rows: pa.Table, names: tuple[str, ...], where: Where) -> None:
    for name in names:
        if rows[name].null_count:
            raise FormatError(f"{where(pc.index(pc.is_null(rows[name]), True).as_py())}: {name} is empty")


def _check_actions(ids: np.ndarray, space: LabelSpace, where: Where) -> None:
    fix = f"label space {space.name} has {len(space)} ids from {space.ids[0]} to {space.ids[-1]}"
    if space.name == "microg50":
        fix += "; scores of an AVA model need --label-space ava80"
    _refuse(space.index(ids) < 0, where, lambda index: f"unknown action id {ids[index]}", fix)


def _refuse(bad: np.ndarray, where: Where, what: Callable[[int], str], fix: str) -> None:
    if bad.any():
        index = int(np.argmax(bad))
        raise FormatError(f"{where(index)}: {what(index)}", fix)
