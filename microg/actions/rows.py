"""Rows that HAR scoring works on, whatever file they came from: one row a (key frame, box, class), and their checks.

Boxes are normalised (x1, y1, x2, y2). `row` is the row's place in the original file: the reference's matching order
and its ties depend on it, so it travels with the row through any sharding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa

from microg.arrow import pc
from microg.data.ids import clip_id_of
from microg.data.label_space import LabelSpace
from microg.errors import FormatError

ScoreKind = Literal["logit", "probability"]

_CLIP = pa.dictionary(pa.int32(), pa.string())
_KEY_BOX = [
    ("row", pa.int64()),
    ("clip_id", _CLIP),
    ("frame", pa.int32()),
    ("x1", pa.float64()),
    ("y1", pa.float64()),
    ("x2", pa.float64()),
    ("y2", pa.float64()),
]
PREDICTION_ROWS = pa.schema([*_KEY_BOX, ("action_id", pa.int32()), ("score", pa.float64())])
# action_id is null for a person without labels; person_id is null where the file has none.
TRUTH_ROWS = pa.schema([*_KEY_BOX, ("action_id", pa.int32()), ("person_id", pa.int32())])

# What `clip_id_of` leaves as it is; others are looked at one by one.
_CLEAN_CLIP_ID = r"^[A-Za-z0-9_-]{1,190}_[0-9]{3,6}$"

Where = Callable[[int], str]


@dataclass(frozen=True)
class Predictions:
    """Prediction rows (`PREDICTION_ROWS`), what their scores are, their label space, and what was noticed."""

    rows: pa.Table
    score_kind: ScoreKind
    space: LabelSpace
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Truth:
    """Truth rows (`TRUTH_ROWS`), the origin (movie | real) of the clips where known, and what was noticed."""

    rows: pa.Table
    origins: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def conform_rows(columns: Mapping[str, pa.ChunkedArray | pa.Array], kind: pa.Schema, where: str) -> pa.Table:
    """Build a table of schema `kind` (`PREDICTION_ROWS` or `TRUTH_ROWS`), numbering rows where `row` is absent.

    Raises `FormatError` when a column is missing or of another type.
    """
    count = len(next(iter(columns.values())))
    result = []
    for item in kind:
        column = columns.get(item.name)
        if column is None and item.name == "row":
            column = pa.array(np.arange(count))
        elif column is None and item.name == "person_id":
            column = pa.nulls(count, item.type)
        elif column is None:
            raise FormatError(f"{where} has no column {item.name}", f"it needs {', '.join(kind.names[1:])}")
        if item.name == "clip_id" and not pa.types.is_dictionary(column.type):
            column = column.cast(pa.string()).dictionary_encode()
        try:
            result.append(column.cast(item.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise FormatError(f"{where}, column {item.name}: {error}") from error
    return clean_clip_ids(pa.table(result, schema=kind).combine_chunks().unify_dictionaries(), where)


def clean_clip_ids(rows: pa.Table, where: str) -> pa.Table:
    """Cut `.mp4` off clip ids. Raises `FormatError` for an id that is not `{source}_{sequence}`."""
    column = rows["clip_id"].combine_chunks() if rows.num_rows else pa.array([], _CLIP)
    column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    if pc.all(pc.match_substring_regex(column.dictionary, _CLEAN_CLIP_ID), min_count=0).as_py():
        return rows
    used = set(pc.unique(column.indices).drop_null().to_pylist())
    names = column.dictionary.to_pylist()
    clean = [
        clip_id_of(name, where) if place in used and name is not None else name for place, name in enumerate(names)
    ]
    # two spellings of one clip become one entry
    known = {name: code for code, name in enumerate(dict.fromkeys(clean))}
    codes = pa.array([known[name] for name in clean], pa.int32())
    fixed = pa.DictionaryArray.from_arrays(codes.take(column.indices), pa.array(list(known), pa.string()))
    return rows.set_column(rows.schema.get_field_index("clip_id"), "clip_id", fixed)


def check_prediction_rows(rows: pa.Table, space: LabelSpace, kind: ScoreKind, where: Where) -> None:
    """Raise `FormatError` for the first prediction row that cannot be scored; `where` names the place of a row.

    Checked: empty values, boxes, action ids outside the label space, scores that are NaN or infinite, and probabilities
    outside 0 to 1.
    """
    _check_key_boxes(rows, where)
    _check_filled(rows, ("action_id", "score"), where)
    _check_actions(rows["action_id"].to_numpy(), space, where)
    score = rows["score"].to_numpy()
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
    clip = rows["clip_id"].combine_chunks()
    codes = (clip.chunk(0) if isinstance(clip, pa.ChunkedArray) else clip).indices.to_numpy(zero_copy_only=False)
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


def looks_like_probabilities(rows: pa.Table) -> bool:
    """Tell whether every score lies between 0 and 1, which real logits never do."""
    score = rows["score"].to_numpy()
    return bool(len(score)) and bool(((score >= 0) & (score <= 1)).all())


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
