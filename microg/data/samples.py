"""From tracked boxes to AVA-style samples: one key frame a person, boxes normalised, one row an action.

Pure functions on Arrow tables, without a Python loop over rows.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from microg.arrow import pc
from microg.data import schema
from microg.errors import DatasetError

_DECIMALS = 3
_BOX = ("x1", "y1", "x2", "y2")


def key_boxes(boxes: pa.Table) -> pa.Table:
    """Return the rows of `boxes` that lie on each (clip, person)'s key frame, in their order.

    The key frame is the frame of that person closest to the median of all its frames, the first in the table's order
    on a tie. A frame stated twice for a person yields both rows, as in the reference conversion.
    """
    if boxes.num_rows == 0:
        return boxes
    order, starts = _groups(boxes)
    frame = boxes["frame"].combine_chunks().to_numpy(zero_copy_only=False).astype(np.int64)
    counts = np.diff(np.append(starts, len(order)))
    group = np.repeat(np.arange(len(starts)), counts)

    # Within each group sorted by frame, the median is the mean of the two middle values.
    by_frame = frame[order][np.lexsort((frame[order], group))]
    low = by_frame[starts + (counts - 1) // 2]
    high = by_frame[starts + counts // 2]
    twice_distance = np.abs(2 * frame[order] - (low + high)[group])  # doubled: stays in integers

    # `order` keeps the table's order inside a group, so a stable sort by distance puts the winner first.
    nearest = np.lexsort((np.arange(len(order)), twice_distance, group))[starts]
    key_frame = frame[order][nearest]
    keep = np.zeros(len(order), dtype=bool)
    keep[order] = frame[order] == key_frame[group]
    return boxes.filter(pa.array(keep))


def make_samples(boxes: pa.Table, clips: pa.Table, actions: pa.Table, *, keep_unlabelled: bool = False) -> pa.Table:
    """Return the `samples` table: key boxes divided by the frame size, joined with each person's actions.

    `boxes`, `clips` and `actions` have the schemas of the tables of these names. Coordinates are rounded to three
    decimals. Rows follow the order of `boxes`, the actions of one person the order of `actions`. A person without
    actions is left out, or kept with a null action when `keep_unlabelled`. Raises `DatasetError` when the frame size
    of a clip is unknown. Matches the reference conversion (`ava_with_head.csv`) byte for byte.
    """
    keys = key_boxes(boxes)
    keys = keys.append_column("row", pa.array(np.arange(keys.num_rows)))
    sizes = clips.select(["clip_id", "width", "height"])
    if len(pc.unique(sizes["clip_id"])) != sizes.num_rows:
        raise DatasetError("table 'clips' has a clip twice", "run 'microg data validate' and remove the duplicates")
    keys = keys.join(sizes, "clip_id", join_type="left outer").sort_by("row")
    unknown = keys.filter(
        pc.invert(pc.fill_null(pc.and_(pc.greater(keys["width"], 0), pc.greater(keys["height"], 0)), False))
    )
    if unknown.num_rows:
        some = pc.unique(unknown["clip_id"]).to_pylist()
        raise DatasetError(
            f"the frame size of {len(some)} clips is unknown (e.g. {', '.join(some[:3])}): boxes cannot be normalised",
            "import the dataset with its videos, or fill in width and height in table 'clips'",
        )
    for column in _BOX:
        size = keys["width" if column[0] == "x" else "height"].to_numpy().astype(np.float64)
        normalised = np.round(keys[column].to_numpy() / size, _DECIMALS)
        keys = keys.set_column(keys.schema.get_field_index(column), column, pa.array(normalised))
    labels = actions.append_column("label", pa.array(np.arange(actions.num_rows)))
    how = "left outer" if keep_unlabelled else "inner"
    joined = keys.join(labels, ["clip_id", "person_id"], join_type=how)
    joined = joined.sort_by([("row", "ascending"), ("label", "ascending")])
    return schema.conform("samples", joined.select(schema.TABLES["samples"].names))


def _groups(boxes: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Return row numbers sorted by (clip, person), stable, and where each group starts in them."""
    clip = pc.dictionary_encode(boxes["clip_id"].combine_chunks())
    if isinstance(clip, pa.ChunkedArray):
        clip = clip.combine_chunks()
    codes = clip.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    person = boxes["person_id"].combine_chunks().to_numpy(zero_copy_only=False).astype(np.int64)
    order = np.lexsort((person, codes))
    changed = (np.diff(codes[order]) != 0) | (np.diff(person[order]) != 0)
    return order, np.flatnonzero(np.append(True, changed))
