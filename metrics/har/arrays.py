"""From rows to arrays: what all HAR metrics work on.

`ScoringArrays` hold every predicted box once, with its scores as a (classes, boxes) matrix, and the truth as flat
arrays.
Key frames are numbered in the order of (clip id, frame), so that the numbers do not depend on how rows were sharded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from microg.actions.rows import clip_codes, distinct_boxes, score_matrix
from microg.arrow import pc
from microg.data.ids import split_clip_id
from microg.data.label_space import LabelSpace
from microg.errors import MetricError


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
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
    """Turn checked rows (`PREDICTION_BOXES`, `TRUTH_ROWS`) into arrays; their order does not matter.

    Raises `MetricError` when a row number is there twice, i.e. a shard was counted twice.
    """
    predictions, truth = _in_file_order(predictions, "prediction"), _in_file_order(truth, "truth")
    clips, pred_clip, true_clip = _clip_codes(predictions, truth)
    true_box, first = distinct_boxes(truth, true_clip)
    places = [pred_clip.astype(np.int64) << 32 | predictions["frame"].to_numpy()]
    places.append((true_clip.astype(np.int64) << 32 | truth["frame"].to_numpy())[first])
    keys, inverse = np.unique(np.concatenate(places), return_inverse=True)
    pred_key, true_key = inverse[: len(pred_clip)], inverse[len(pred_clip) :]

    action = truth["action_id"].fill_null(-1).to_numpy()
    label = np.where(action < 0, -1, space.index(action))
    known = label >= 0
    label_box, label = true_box[known], label[known]
    cell = label_box * len(space) + label
    repeated = np.ones(len(cell), dtype=bool)
    repeated[np.unique(cell, return_index=True)[1]] = False
    return ScoringArrays(
        space=space,
        clips=clips,
        key_clip=keys >> 32,
        key_frame=keys & 0xFFFFFFFF,
        boxes=_predicted_boxes(predictions, pred_key, len(space)),
        truth=TruthBoxes(key=true_key, xyxy=_sides(truth)[first], label_box=label_box, label=label, repeated=repeated),
    )


def _sides(rows: pa.Table) -> np.ndarray:
    return np.stack([rows[name].to_numpy() for name in ("x1", "y1", "x2", "y2")], axis=1)


def _predicted_boxes(table: pa.Table, key: np.ndarray, classes: int) -> Boxes:
    """Number the boxes by their rows, repeated ones last."""
    xyxy = _sides(table)
    columns = [key, *xyxy.T]
    order = np.lexsort((np.arange(len(key)), *columns[::-1]))
    new = np.ones(len(key), dtype=bool)
    new[1:] = np.any([column[order[1:]] != column[order[:-1]] for column in columns], axis=0)
    start = np.flatnonzero(new)[np.cumsum(new) - 1]
    occurrence, first = np.empty(len(key), np.int64), np.empty(len(key), np.int64)
    occurrence[order], first[order] = np.arange(len(key)) - start, order[start]
    scores, rows = score_matrix(table, classes)
    if occurrence.any():
        by = np.lexsort((occurrence, first, occurrence > 0))
        key, xyxy, occurrence, scores, rows = key[by], xyxy[by], occurrence[by], scores[by], rows[by]
    scores, rows = np.ascontiguousarray(scores.T), np.ascontiguousarray(rows.T)
    return Boxes(key=key, xyxy=xyxy, occurrence=occurrence, scores=scores, rows=rows)


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
        codes, dictionary = clip_codes(rows)
        used = np.unique(codes) if len(codes) else np.zeros(0, np.int32)
        parts.append((dictionary, codes, used))
    names = [name for dictionary, _, used in parts for name in dictionary.take(pa.array(used)).to_pylist()]
    clips = tuple(sorted(set(names)))
    result = []
    for dictionary, codes, _ in parts:
        place = pc.index_in(dictionary, pa.array(clips, pa.string())).fill_null(-1).to_numpy(zero_copy_only=False)
        result.append(place.astype(np.int32)[codes])
    return clips, result[0], result[1]
