"""From rows to arrays: what all HAR metrics work on.

`ScoringArrays` hold every predicted box once, with its scores as a (classes, boxes) matrix, and the truth as flat
arrays.
Key frames are numbered in the order of (clip id, frame), so that the numbers do not depend on how rows were sharded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from microg.arrow import pc
from microg.data.ids import split_clip_id
from microg.data.label_space import LabelSpace
from microg.errors import MetricError


@dataclass(frozen=True)
class Boxes:
    """Predicted boxes (n of them); a box that the file holds twice is two boxes, the second with `occurrence` 1.

    key (n,) int64: number of the key frame. xyxy (n, 4) float64, normalised. occurrence (n,) int64. scores
    (classes, n) float64, -inf where the file has none. rows (classes, n) int64: place in the file, -1 where none.
    """

    key: np.ndarray
    xyxy: np.ndarray
    occurrence: np.ndarray
    scores: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True)
class TruthBoxes:
    """True boxes (m of them) and their labels (l of them, in file order).

    key (m,) int64, xyxy (m, 4) float64; label_box (l,) int64 into the boxes, label (l,) class index, repeated (l,)
    bool: the same label of the same box was there before.
    """

    key: np.ndarray
    xyxy: np.ndarray
    label_box: np.ndarray
    label: np.ndarray
    repeated: np.ndarray


@dataclass(frozen=True)
class ScoringArrays:
    """Predictions and truth of one model on one test set.

    clips: all clip ids, sorted. key_clip (k,) int64 into them and key_frame (k,) of each key frame.
    """

    space: LabelSpace
    clips: tuple[str, ...]
    key_clip: np.ndarray
    key_frame: np.ndarray
    boxes: Boxes
    truth: TruthBoxes

    @property
    def num_keys(self) -> int:
        """Number of key frames, predicted or true."""
        return len(self.key_clip)

    def sources(self) -> list[str]:
        """Return the source id of each clip."""
        return [split_clip_id(clip)[0] for clip in self.clips]


def arrays_from_rows(predictions: pa.Table, truth: pa.Table, space: LabelSpace) -> ScoringArrays:
    """Turn checked rows (`PREDICTION_ROWS`, `TRUTH_ROWS`) into a `ScoringArrays`; their order does not matter.

    Raises `MetricError` when a row number is there twice, i.e. a shard was counted twice.
    """
    predictions, truth = _in_file_order(predictions, "prediction"), _in_file_order(truth, "truth")
    clips, pred_clip, true_clip = _clip_codes(predictions, truth)
    found, box, xyxy = _distinct_boxes(predictions, pred_clip)
    true_found, true_box, true_xyxy = _distinct_boxes(truth, true_clip)
    both = np.concatenate([found, true_found])
    keys, inverse = np.unique(both[:, 0] << 32 | both[:, 1], return_inverse=True)
    pred_key, true_key = inverse[: len(found)], inverse[len(found) :]

    boxes = _score_matrix(predictions, space, box, pred_key, xyxy)
    action = truth["action_id"].fill_null(-1).to_numpy()
    label = np.where(action < 0, -1, space.index(action))
    known = label >= 0
    label_box, label = true_box[known], label[known]
    cell = label_box * len(space) + label
    repeated = np.ones(len(cell), dtype=bool)
    repeated[np.unique(cell, return_index=True)[1]] = False
    return ScoringArrays(
        space, clips, keys >> 32, keys & 0xFFFFFFFF, boxes, TruthBoxes(true_key, true_xyxy, label_box, label, repeated)
    )


def _in_file_order(rows: pa.Table, what: str) -> pa.Table:
    row = rows["row"].to_numpy()
    if len(row) > 1:
        step = np.diff(row)
        if (step < 0).any():
            rows = rows.take(pa.array(np.argsort(row, kind="stable")))
            step = np.diff(rows["row"].to_numpy())
        if (step == 0).any():
            number = int(rows["row"].to_numpy()[np.argmin(step != 0)])
            raise MetricError(f"{what} row {number} was given twice", "merge each shard once")
    return rows


def _clip_codes(predictions: pa.Table, truth: pa.Table) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Return all clip ids, sorted, and each row's place among them."""
    parts = []
    for rows in (predictions, truth):
        column = rows["clip_id"].unify_dictionaries().combine_chunks()
        column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        codes = column.indices.to_numpy(zero_copy_only=False)
        used = np.unique(codes) if len(codes) else np.zeros(0, np.int32)
        parts.append((column.dictionary, codes, used))
    names = [name for dictionary, _, used in parts for name in dictionary.take(pa.array(used)).to_pylist()]
    clips = tuple(sorted(set(names)))
    result = []
    for dictionary, codes, _ in parts:
        place = pc.index_in(dictionary, pa.array(clips, pa.string())).fill_null(-1).to_numpy(zero_copy_only=False)
        result.append(place.astype(np.int32)[codes])
    return clips, result[0], result[1]


def _distinct_boxes(rows: pa.Table, clip: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (clip, frame) of the distinct boxes (b, 2), each row's box (n,), and the coordinates (b, 4).

    Boxes are numbered by their first row. Rows of one box mostly follow each other: runs are found first, and only
    their heads are sorted.
    """
    if not len(clip):
        return np.zeros((0, 2), np.int64), np.zeros(0, np.int64), np.zeros((0, 4))
    columns = [clip, rows["frame"].to_numpy(), *(rows[name].to_numpy() for name in ("x1", "y1", "x2", "y2"))]
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
    box = np.repeat(run_box, np.diff(np.append(heads, len(clip))))
    chosen = heads[first_run[by_first_row]]
    place = np.stack([clip[chosen], columns[1][chosen]], axis=1).astype(np.int64)
    return place, box, np.stack([column[chosen] for column in columns[2:]], axis=1)


def _score_matrix(rows: pa.Table, space: LabelSpace, box: np.ndarray, key: np.ndarray, xyxy: np.ndarray) -> Boxes:
    """Spread scores over (classes, boxes); the k-th score of one box and class belongs to the box's k-th occurrence."""
    label = space.index(rows["action_id"].to_numpy())
    column = box
    owner, occurrence = np.arange(len(xyxy)), np.zeros(len(xyxy), np.int64)
    cell = label * len(xyxy) + box
    if len(cell) and np.bincount(cell, minlength=1).max() > 1:
        again = np.flatnonzero(np.bincount(cell)[cell] > 1)
        order = again[np.argsort(cell[again], kind="stable")]
        starts = np.append(True, np.diff(cell[order]) != 0)
        group_start = np.flatnonzero(starts)[np.cumsum(starts) - 1]
        nth = np.arange(len(order)) - group_start
        later = order[nth > 0]
        pairs = np.stack([box[later], nth[nth > 0]], axis=1)
        extra, place = np.unique(pairs, axis=0, return_inverse=True)
        column = box.copy()
        column[later] = len(xyxy) + place.reshape(-1)
        owner = np.concatenate([owner, extra[:, 0]])
        occurrence = np.concatenate([occurrence, extra[:, 1]])
    del cell
    scores = np.full((len(space), len(owner)), -np.inf)
    place_of = np.full((len(space), len(owner)), -1, dtype=np.int64)
    scores[label, column] = rows["score"].to_numpy()
    place_of[label, column] = rows["row"].to_numpy()
    return Boxes(key[owner], xyxy[owner], occurrence, scores, place_of)
