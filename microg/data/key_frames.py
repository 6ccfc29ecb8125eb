"""Key frames with their people, boxes and labels: one row is what a model is shown at once (Arrow only).

A key frame is named `clip:frame`. Boxes are normalised (x1, y1, x2, y2); frames are those of table `samples`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from microg.arrow import parse_schema, pc
from microg.data.dataset import Dataset
from microg.data.label_space import LabelSpace
from microg.errors import DatasetError

# uri: resolved path or URI of the video, or of a folder of JPEGs (then it ends in "/"); null where there is none.
# num_frames: null where it is unknown. boxes: four values a person. labels: action ids of each person.
KEY_FRAMES = parse_schema(
    "key clip_id: string, frame: int32, uri: string, num_frames: int32, person_id: [int32], boxes: [float64], "
    "labels: [[int32]]"
)

ALL_SPLITS = "all"
# A little outside the frame happens to any tracker; far outside, the coordinates are pixels.
_FARTHEST = 0.5


@dataclass(frozen=True)
class KeyFrames:
    """Rows of `KEY_FRAMES`, a fingerprint of the annotations they were read from, and what was noticed."""

    rows: pa.Table
    fingerprint: str
    notes: tuple[str, ...] = ()


def key_frame_rows(dataset: Dataset, split: str, scheme: str = "published", *, labelled: bool = False) -> pa.Table:
    """Return one row of `KEY_FRAMES` a key frame of a split, in the order of table `samples`.

    `split` is train, val, test, or all for every sample whatever its split. With `labelled`, people without labels
    are left out, and key frames without labelled people. Raises `DatasetError` when there is nothing to return, when
    a box is broken, or when a person of a key frame has two boxes.
    """
    samples = dataset.table("samples")
    if split != ALL_SPLITS:
        samples = samples.filter(pc.is_in(samples["clip_id"], dataset.split_clips(split, scheme)))
    uris, lengths = {}, {}
    for row in dataset.table("clips").select(["clip_id", "uri", "num_frames"]).to_pylist():
        uris[row["clip_id"]] = dataset.resolve(row["uri"], row["clip_id"]) if row["uri"] else None
        lengths[row["clip_id"]] = row["num_frames"]
    return group_samples(samples, uris, lengths, labelled=labelled, where=f"the {split} samples of {dataset.root}")


def group_samples(
    samples: pa.Table,
    uris: Mapping[str, str | None],
    lengths: Mapping[str, int | None],
    *,
    labelled: bool = False,
    where: str = "the samples",
) -> pa.Table:
    """Return rows of `KEY_FRAMES` for a `samples` table; `uris` and `lengths` tell where a clip is and its frames.

    Raises `DatasetError` as `key_frame_rows`; `where` names the samples in its message.
    """
    _check_boxes(samples, where)
    found: dict[str, dict[str, Any]] = {}
    for row in samples.to_pylist():
        if labelled and row["action_id"] is None:
            continue
        key = f"{row['clip_id']}:{row['frame']}"
        people = found.setdefault(key, {"clip_id": row["clip_id"], "frame": row["frame"], "people": {}})["people"]
        box = (row["x1"], row["y1"], row["x2"], row["y2"])
        known, labels = people.setdefault(row["person_id"], (box, []))
        if known != box:
            raise DatasetError(
                f"{where}: person {row['person_id']} has two boxes in key frame {key}", "run 'microg data validate'"
            )
        if row["action_id"] is not None and row["action_id"] not in labels:
            labels.append(row["action_id"])
    if not found:
        raise DatasetError(f"{where}: there are no{' labelled' if labelled else ''} key frames")
    rows = [
        {
            "key": key,
            "clip_id": item["clip_id"],
            "frame": item["frame"],
            "uri": uris.get(item["clip_id"]),
            "num_frames": lengths.get(item["clip_id"]),
            "person_id": list(item["people"]),
            "boxes": [value for box, _ in item["people"].values() for value in box],
            "labels": [labels for _, labels in item["people"].values()],
        }
        for key, item in found.items()
    ]
    return pa.Table.from_pylist(rows, schema=KEY_FRAMES)


def check_labels(rows: pa.Table, space: LabelSpace) -> None:
    """Raise `DatasetError` for the first action id of `KEY_FRAMES` rows that `space` does not have."""
    known = set(space.ids)
    for key, people in zip(rows["key"].to_pylist(), rows["labels"].to_pylist(), strict=True):
        for labels in people:
            for action_id in labels:
                if action_id not in known:
                    raise DatasetError(
                        f"key frame {key} has action id {action_id}, which label space {space.name} has not",
                        f"its {len(space)} ids go from {space.ids[0]} to {space.ids[-1]}",
                    )


def label_matrix(labels: Iterable[Iterable[int]], space: LabelSpace) -> np.ndarray:
    """Return (people, classes) float32 of zeros and ones from each person's action ids."""
    people = [list(ids) for ids in labels]
    matrix = np.zeros((len(people), len(space)), dtype=np.float32)
    for row, ids in enumerate(people):
        matrix[row, space.index(np.asarray(ids, dtype=np.int64))] = 1
    return matrix


def _check_boxes(samples: pa.Table, where: str) -> None:
    box = {name: samples[name].fill_null(float("nan")).to_numpy() for name in ("x1", "y1", "x2", "y2")}
    values = np.stack(list(box.values())) if samples.num_rows else np.zeros((4, 0))
    problems = {
        "has no box, or one that is not finite": ~np.isfinite(values).all(axis=0),
        "has a box without area": (values[2] <= values[0]) | (values[3] <= values[1]),
        "has a box far outside the frame: are these pixels?": (
            (values < -_FARTHEST).any(axis=0) | (values > 1 + _FARTHEST).any(axis=0)
        ),
    }
    for what, bad in problems.items():
        if bad.any():
            row = samples.slice(int(np.argmax(bad)), 1).to_pylist()[0]
            raise DatasetError(
                f"{where}: person {row['person_id']} in frame {row['frame']} of {row['clip_id']} {what} "
                f"({', '.join(str(row[name]) for name in box)})",
                "boxes of samples are x1, y1, x2, y2 divided by the frame's width and height",
            )
