"""What a perfect detector would find in clips cut from synthetic footage, for machines that have no detector weights.

These are the rendered truth, not the output of any model: whoever uses them must say so.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pyarrow as pa

from microg import storage
from microg.data.ids import make_clip_id, source_ids
from microg.demo.synthetic import truth

_CONFIDENCE = 0.9
_PERSON = 0
SCHEMA = pa.schema(
    [
        ("frame", pa.int32()),
        ("x1", pa.float64()),
        ("y1", pa.float64()),
        ("x2", pa.float64()),
        ("y2", pa.float64()),
        ("confidence", pa.float64()),
        ("class_id", pa.int32()),
    ]
)


def write_detections(footage: str, target: str, *, seconds: float = 3.0, fps: int = 30, height: int = 480) -> int:
    """Write `<target>/<clip_id>.parquet` for every clip that `microg curate` will cut from `footage`; return how many.

    Clip k of a file covers its seconds [k * seconds, (k + 1) * seconds) at `fps` frames a second; boxes are in pixels
    of clips of the given height and the nearest even width. Each frame takes the true boxes of the nearest frame of
    the file. Raises `DatasetError` when the footage has no truth.
    """
    folder = truth.truth_folder(footage)
    files = truth.read(folder, "files").to_pylist()
    boxes: dict[str, dict[int, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in truth.read(folder, "boxes").to_pylist():
        boxes[row["file"]][row["frame"]].append(row)
    ids = source_ids(file["file"] for file in files)
    frames = round(seconds * fps)
    written = 0
    for file in files:
        width = max(2, 2 * round(file["width"] * height / file["height"] / 2))
        for sequence in range(int(file["duration_s"] / seconds + 1e-6)):
            rows = []
            for frame in range(frames):
                native = round((sequence * seconds + frame / fps) * file["fps"]) + 1
                for box in boxes[file["file"]][min(native, file["frames"])]:
                    corners = np.array([box["x1"], box["y1"], box["x2"], box["y2"]]) * [width, height, width, height]
                    named = dict(zip(("x1", "y1", "x2", "y2"), corners.tolist(), strict=True))
                    rows.append({"frame": frame + 1, **named, "confidence": _CONFIDENCE, "class_id": _PERSON})
            clip_id = make_clip_id(ids[file["file"]], sequence)
            storage.write_parquet(storage.join(target, f"{clip_id}.parquet"), pa.Table.from_pylist(rows, SCHEMA))
            written += 1
    return written
