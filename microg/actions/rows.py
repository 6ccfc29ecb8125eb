"""Rows that HAR scoring works on, whatever file they came from, and checks that refuse the first unfit one.

Predictions are one row a box with a score for each class; files with one row a (box, class) are folded when they are
read. Truth is one row a (key frame, box, class). Boxes are normalised (x1, y1, x2, y2). `row` is the row's place in the
original file: the reference's matching order and its ties depend on it, so it travels with the row through any
sharding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from microg.arrow import parse_schema, pc
from microg.data.ids import clip_id_of
from microg.data.label_space import LabelSpace
from microg.errors import FormatError

if TYPE_CHECKING:
    import pandas as pd

ScoreKind = Literal["logit", "probability"]
Where = Callable[[int], str]  # names the place of a row in its file

_CLIP = pa.dictionary(pa.int32(), pa.string())
_KEY_BOX = pa.schema([("row", pa.int64()), ("clip_id", _CLIP), *parse_schema("frame: int32, x1 y1 x2 y2: float64")])
# scores: one a class of the label space, in the order of its ids, -inf where the file has none. places: where each
# stands in the file, -1 where none; null for a box whose scores follow each other from `row` on.
PREDICTION_BOXES = pa.schema([*_KEY_BOX, *parse_schema("scores: [float64], places: [int64]")])
# The long form: one row a (key frame, box, class).
PREDICTION_ROWS = pa.schema([*_KEY_BOX, ("action_id", pa.int32()), ("score", pa.float64())])
# action_id is null for a person without labels; person_id is null where the file has none.
TRUTH_ROWS = pa.schema([*_KEY_BOX, ("action_id", pa.int32()), ("person_id", pa.int32())])

# What `clip_id_of` leaves as it is; others are looked at one by one.
_CLEAN_CLIP_ID = r"^[A-Za-z0-9_-]{1,190}_[0-9]{3,6}$"


@dataclass(frozen=True)
class Predictions:
    """Predicted boxes (`PREDICTION_BOXES`), what their scores are, their label space, and what was noticed."""

    boxes: pa.Table
    score_kind: ScoreKind
    space: LabelSpace
    notes: tuple[str, ...] = ()

    @classmethod
    def from_rows(
        cls, rows: pa.Table, score_kind: ScoreKind, space: LabelSpace, notes: tuple[str, ...] = ()
    ) -> Predictions:
        """Fold the long form (`PREDICTION_ROWS`, checked, in file order)."""
        return cls(fold_rows(rows, space), score_kind, space, notes)

    @property
    def rows(self) -> pa.Table:
        """The long form (`PREDICTION_ROWS`), in file order."""
        scores, places = score_matrix(self.boxes, len(self.space))
        box, label = np.nonzero(places >= 0)
        order = np.argsort(places[box, label], kind="stable")
        box, label = box[order], label[order]
        columns = {name: self.boxes[name].take(pa.array(box)) for name in _KEY_BOX.names if name != "row"}
        columns |= {"row": pa.array(places[box, label]), "score": pa.array(scores[box, label])}
        columns["action_id"] = pa.array(np.array(self.space.ids, np.int32)[label])
        return pa.table([columns[name] for name in PREDICTION_ROWS.names], schema=PREDICTION_ROWS).unify_dictionaries()

    def distinct(self) -> tuple[pd.DataFrame, np.ndarray]:
        """Return each place once: clip_id, frame, x1, y1, x2, y2 of boxes (n), and their scores (n, classes)."""
        boxes = self.boxes.select(["clip_id", "frame", "x1", "y1", "x2", "y2"]).to_pandas()
        boxes = boxes.astype({"clip_id": str}).drop_duplicates()
        scores, _ = score_matrix(self.boxes, len(self.space))
        return boxes.reset_index(drop=True), scores[boxes.index]


@dataclass(frozen=True)
class Truth:
    """Truth rows (`TRUTH_ROWS`), the origin (movie | real) of the clips where known, and what was noticed."""

    rows: pa.Table
    origins: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def conform_rows(columns: Mapping[str, pa.ChunkedArray | pa.Array], kind: pa.Schema, where: str) -> pa.Table:
    """Build a table of one of the schemas here, numbering rows where `row` is absent.

    Raises `FormatError` when a column is missing or of another type.
    """
    count = len(next(iter(columns.values())))
    result = []
    for item in kind:
        column = columns.get(item.name)
        if column is None and item.name == "row":
            column = pa.array(np.arange(count))
        elif column is None and item.name in ("person_id", "places"):
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


def fold_rows(rows: pa.Table, space: LabelSpace) -> pa.Table:
    """Return `PREDICTION_BOXES` for checked `PREDICTION_ROWS` in file order.

    The k-th score of one box and class belongs to the k-th box of that place: a file may hold a box several times.
    """
    clip, dictionary = clip_codes(rows)
    box, first = distinct_boxes(rows, clip)
    label = space.index(rows["action_id"].to_numpy())
    owner, column = np.arange(len(first)), box
    cell = label * len(first) + box
    if len(cell) and np.bincount(cell, minlength=1).max() > 1:
        again = np.flatnonzero(np.bincount(cell)[cell] > 1)
        order = again[np.argsort(cell[again], kind="stable")]
        starts = np.append(True, np.diff(cell[order]) != 0)
        nth = np.arange(len(order)) - np.flatnonzero(starts)[np.cumsum(starts) - 1]
        later = order[nth > 0]
        extra, place = np.unique(np.stack([box[later], nth[nth > 0]], axis=1), axis=0, return_inverse=True)
        column = box.copy()
        column[later] = len(first) + place.reshape(-1)
        owner = np.concatenate([owner, extra[:, 0]])
    scores = np.full((len(owner), len(space)), -np.inf)
    places = np.full(scores.shape, -1, dtype=np.int64)
    scores[column, label] = rows["score"].to_numpy()
    places[column, label] = rows["row"].to_numpy()
    head = first[owner]
    columns = {name: rows[name].take(pa.array(head)) for name in _KEY_BOX.names if name not in ("row", "clip_id")}
    return pa.table(
        {
            "row": np.where(places < 0, np.iinfo(np.int64).max, places).min(axis=1, initial=np.iinfo(np.int64).max),
            "clip_id": pa.DictionaryArray.from_arrays(pa.array(clip[head], pa.int32()), dictionary),
            **columns,
            "scores": _lists(scores),
            "places": _lists(places),
        }
    ).cast(PREDICTION_BOXES)


def _lists(matrix: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1]).cast(
        pa.list_(pa.from_numpy_dtype(matrix.dtype))
    )


def score_matrix(boxes: pa.Table, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scores (n, classes) float64 and their places in the file (n, classes) int64 of `PREDICTION_BOXES`."""
    scores = pc.list_flatten(boxes["scores"]).to_numpy().reshape(-1, classes)
    places = boxes["row"].to_numpy()[:, None] + np.arange(classes)
    stored = pc.is_valid(boxes["places"]).to_numpy()
    if stored.any():
        places[stored] = pc.list_flatten(boxes["places"]).to_numpy().reshape(-1, classes)
    return scores, places


def clip_codes(rows: pa.Table) -> tuple[np.ndarray, pa.Array]:
    """Return the clip of each row (n,) as a place in a dictionary of clip ids, and that."""
    column = rows["clip_id"].unify_dictionaries().combine_chunks()
    column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    return column.indices.to_numpy(zero_copy_only=False), column.dictionary


def distinct_boxes(rows: pa.Table, clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's box (n,), numbered by first rows, and the first row of each box (b,).

    `clip` (n,) are numbers of clips. Rows of one box mostly follow each other: runs are found first, and only their
    heads are sorted.
    """
    if not len(clip):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    columns = [clip, *(rows[name].to_numpy() for name in ("frame", "x1", "y1", "x2", "y2"))]
    starts_run = np.zeros(len(clip), dtype=bool)
    starts_run[0] = True
    for column in columns:
        starts_run[1:] |= column[1:] != column[:-1]
    heads = np.flatnonzero(starts_run)
    head_columns = [column[heads] for column in columns]
    order = np.lexsort((np.arange(len(heads)), *head_columns[::-1]))
    new = np.ones(len(heads), dtype=bool)
    new[1:] = np.any([column[order[1:]] != column[order[:-1]] for column in head_columns], axis=0)
    first_run = order[new]  # the sort is stable, so this is the first run of each box
    by_first_row = np.argsort(first_run, kind="stable")
    number = np.empty(len(first_run), np.int64)
    number[by_first_row] = np.arange(len(first_run))
    run_box = np.empty(len(heads), np.int64)
    run_box[order] = number[np.cumsum(new) - 1]
    return np.repeat(run_box, np.diff(np.append(heads, len(clip)))), heads[first_run[by_first_row]]


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


def _check_key_boxes(rows: pa.Table, where: Where) -> None:
    _check_filled(rows, ("clip_id", "frame", "x1", "y1", "x2", "y2"), where)
    frame = rows["frame"].to_numpy()
    _refuse(frame < 0, where, lambda index: f"frame {frame[index]}", "no clip has such a frame")
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
