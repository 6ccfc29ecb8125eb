"""The train-ready AVA folder, as PySlowFast reads it; `frames/` holds every frame of a clip as a JPEG.

`annotations/ava_{split}.csv` (no header: video_id, frame, x1, y1, x2, y2 normalised, action_id, person_id),
`annotations/ava_{split}_predicted_boxes.csv` (the same boxes with an empty action and score 1),
`annotations/label_map.pbtxt`, `frame_lists/{split}.csv` (one row a frame, separated by spaces) and, on demand,
`frames/{clip_id}/{clip_id}_{frame:06d}.jpg` with frames from 1.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from microg import storage
from microg.arrow import parse_schema, pc
from microg.data import schema
from microg.data.ids import check_id, clip_id_of
from microg.data.vocabulary import MICROG_VOCABULARY, Vocabulary
from microg.errors import DatasetError, FormatError, MicrogError, VideoError, describe
from microg.formats.base import Annotations, FormatResult, new_clips, read_csv, write_csv
from microg.formats.known_clips import KnownClips, check_places
from microg.formats.labelmap import check_label_map, label_map_text
from microg.video import decode_frames, probe

TABLES = frozenset({"samples", "splits", "actions", "boxes"})
_ROWS = parse_schema("clip_id: string, frame: int32, x1 y1 x2 y2: float64, action_id person_id: int32")
_FRAME_LIST_HEADER = "original_video_id video_id frame_id path labels\n"
_FRAME_LIST_COLUMNS = ("original_video_id", "video_id", "frame_id", "path", "labels")


def read(path: str, *, vocabulary: Vocabulary = MICROG_VOCABULARY) -> FormatResult:
    """Read the AVA folder `path` into `clips`, `samples`, `actions` and `splits` (scheme `published`).

    Boxes stay what they are there: one normalised key box a person, in `samples`. The number of frames comes from the
    frame lists, the frame size from the first JPEG in `frames/`, where they are there. Raises `FormatError` for a row
    that cannot be read.
    """
    notes, samples, homes, files = [], [], {}, {}
    for split in schema.SPLITS:
        file = storage.join(path, "annotations", f"ava_{split}.csv")
        if not storage.exists(file):
            notes.append(f"{file} is not there: no {split} split")
            continue
        rows, negative = _checked_rows(file)
        if negative:
            notes.append(f"{file}: {negative} key frames without a box were left out")
        for clip_id in pc.unique(rows["clip_id"]).to_pylist():
            if homes.setdefault(clip_id, split) != split:
                raise FormatError(f"{file}: {clip_id} is in the {homes[clip_id]} split as well")
            files[clip_id] = file
        samples.append(rows)
    if not samples:
        raise FormatError(f"{path} has no annotations/ava_train.csv, ava_val.csv or ava_test.csv")
    table = schema.conform("samples", pa.concat_tables(samples).select(schema.TABLES["samples"].names))
    lengths = _frame_counts(path)
    for clip_id in lengths:
        homes.setdefault(clip_id, "")
    sizes = {clip_id: frame_size(path, clip_id) for clip_id in homes}
    columns = {
        "num_frames": [lengths.get(clip_id) for clip_id in homes],
        "width": [size[0] if (size := sizes[clip_id]) else None for clip_id in homes],
        "height": [size[1] if (size := sizes[clip_id]) else None for clip_id in homes],
    }
    splits = [{"clip_id": c, "split": split, "scheme": "published"} for c, split in sorted(homes.items()) if split]
    label_map = storage.join(path, "annotations", "label_map.pbtxt")
    if storage.exists(label_map):
        notes += check_label_map(label_map, vocabulary)
    notes.append(
        "AVA holds one normalised key box a person: 'samples' was read, pixel boxes of other frames are not there"
    )
    actions = table.select(["clip_id", "person_id", "action_id"]).group_by(
        ["clip_id", "person_id", "action_id"], use_threads=False
    )
    tables = {
        "clips": new_clips(homes, **columns),
        "samples": table,
        "splits": schema.from_rows("splits", splits),
        "actions": schema.conform("actions", actions.aggregate([])),
    }
    return FormatResult(tables, notes, files=files)


def read_samples(path: str, split: str) -> tuple[pa.Table, dict[str, int | None], str]:
    """Read one split of the AVA folder `path`, or `all`: its samples, each clip's frames, and a hash of the rows.

    A clip that the frame lists lack has None frames. Raises `FormatError` when the split is not there or a row cannot
    be read.
    """
    wanted = schema.SPLITS if split == "all" else (split,)
    files = {name: storage.join(path, "annotations", f"ava_{name}.csv") for name in wanted}
    there = {name: file for name, file in files.items() if storage.exists(file)}
    if not there:
        raise FormatError(f"{path} has no annotations/ava_{split}.csv", "splits are train, val, test and all")
    parts = [_checked_rows(file)[0] for file in there.values()]
    table = schema.conform("samples", pa.concat_tables(parts).select(schema.TABLES["samples"].names))
    counts = _frame_counts(path, tuple(there))
    lengths = {clip_id: counts.get(clip_id) for clip_id in pc.unique(table["clip_id"]).to_pylist()}
    clips = new_clips(lengths, num_frames=lengths.values())
    check_places({"clips": clips, "samples": table}, {}, f"the {split} samples of {path}", KnownClips())
    digest = hashlib.sha256(table.to_pandas().to_csv(index=False).encode())
    digest.update(repr(sorted(lengths.items())).encode())
    return table, lengths, digest.hexdigest()[:16]


def write(annotations: Annotations, path: str, *, split: str = "published", frames: bool = False) -> list[str]:
    """Write the splits of scheme `split` as AVA files, byte for byte as the reference conversion writes them.

    With `frames` every frame of each video is also written as a JPEG. Raises `DatasetError` when the dataset has no
    samples, no such split, or a clip of unknown length, and
    `VideoError` at the end when the frames of some clips could not be written.
    """
    notes = []
    boxes = annotations.table("boxes").num_rows
    if boxes:
        notes.append(f"ava holds key boxes only: of {boxes} boxes those in 'samples' were written")
    samples = annotations.table("samples")
    labelled = samples.filter(pc.is_valid(samples["action_id"]))
    if not labelled.num_rows:
        raise DatasetError("there are no labelled samples to export", "run 'microg data split DATASET' first")
    if labelled.num_rows < samples.num_rows:
        notes.append(f"{samples.num_rows - labelled.num_rows} samples without an action were not written")
    homes = _homes(annotations, split)
    unsplit = set(labelled["clip_id"].to_pylist()) - set(homes)
    if unsplit:
        notes.append(f"{len(unsplit)} clips are in no split of scheme '{split}': their samples were not written")
    lengths = {row["clip_id"]: row["num_frames"] for row in annotations.clips()}
    for name in schema.SPLITS:
        clip_ids = [clip_id for clip_id, home in homes.items() if home == name]
        rows = labelled.filter(pc.is_in(labelled["clip_id"], pa.array(clip_ids, pa.string()))).select(_ROWS.names)
        scores = pa.array([1] * rows.num_rows, pa.int32())
        unlabelled = rows.set_column(6, "action_id", pa.nulls(rows.num_rows, pa.int32()))
        predicted = unlabelled.set_column(7, "score", scores)
        write_csv(storage.join(path, "annotations", f"ava_{name}.csv"), rows, header=False)
        write_csv(storage.join(path, "annotations", f"ava_{name}_predicted_boxes.csv"), predicted, header=False)
        present = sorted(set(rows["clip_id"].to_pylist()))
        storage.write_bytes(storage.join(path, "frame_lists", f"{name}.csv"), _frame_list(present, lengths).encode())
    storage.write_bytes(
        storage.join(path, "annotations", "label_map.pbtxt"), label_map_text(annotations.vocabulary).encode()
    )
    if frames:
        more, failed = export_frames(annotations, homes, path)
        notes += more
        if failed:
            raise VideoError(
                f"all annotations were written, but not the frames of {len(failed)} clips ({failed[0]})",
                "run 'microg data validate', then the same export again: finished clips are passed over",
            )
    return notes


def _homes(annotations: Annotations, scheme: str) -> dict[str, str]:
    splits = annotations.table("splits")
    rows = splits.filter(pc.equal(splits["scheme"], scheme))
    if not rows.num_rows:
        raise DatasetError(
            f"the dataset has no split of scheme {scheme!r}", f"run 'microg data split DATASET --scheme {scheme}' first"
        )
    return dict(zip(rows["clip_id"].to_pylist(), rows["split"].to_pylist(), strict=True))


def _frame_list(clip_ids: list[str], lengths: Mapping[str, int | None]) -> str:
    lines = [_FRAME_LIST_HEADER]
    for clip_id in clip_ids:
        length = lengths.get(clip_id)
        if not length:
            raise DatasetError(
                f"clip {clip_id} has no number of frames: its frame list cannot be written",
                "import the dataset with its videos, or fill in num_frames in table 'clips'",
            )
        for frame in range(1, length + 1):
            lines.append(f'{clip_id} {clip_id} {frame} {relative_path(clip_id, frame)} ""\n')
    return "".join(lines)


def _frame_counts(path: str, splits: tuple[str, ...] = schema.SPLITS) -> dict[str, int]:
    """Return the highest frame number of each clip in the frame lists."""
    counts: dict[str, int] = {}
    for split in splits:
        file = storage.join(path, "frame_lists", f"{split}.csv")
        if not storage.exists(file):
            continue
        for number, line in enumerate(storage.read_bytes(file).decode("utf-8", "replace").splitlines(), 1):
            fields = line.split(" ")
            if number == 1 and tuple(fields) == _FRAME_LIST_COLUMNS:
                continue
            if len(fields) != len(_FRAME_LIST_COLUMNS) or not fields[3].endswith(".jpg"):
                raise FormatError(f"{file}, line {number}: {line!r} is not '{_FRAME_LIST_HEADER.strip()}'")
            stem = fields[3].rsplit("/", 1)[-1].removesuffix(".jpg")
            clip_id, _, frame = stem.rpartition("_")
            if not re.fullmatch("[0-9]{1,9}", frame):
                raise FormatError(f"{file}, line {number}: {fields[3]!r} does not end in a frame number")
            clip_id = clip_id_of(clip_id, f"{file}, line {number}")
            counts[clip_id] = max(counts.get(clip_id, 0), int(frame))
    return counts


def _checked_rows(file: str) -> tuple[pa.Table, int]:
    """Return the rows of a file that have a box, and how many key frames it has without one."""
    rows = read_csv(file, _ROWS, header=False)
    negative = pc.is_valid(rows["clip_id"])
    for name in _ROWS.names[2:7]:
        negative = pc.and_(negative, pc.is_null(rows[name]))
    for name in rows.column_names:
        empty = pc.and_not(pc.is_null(rows[name]), negative)
        if (line := pc.index(empty, True).as_py()) >= 0:
            raise FormatError(f"{file}, line {line + 1}: {name} is empty")
    rows = rows.filter(pc.invert(negative))
    ids = rows["clip_id"].to_pylist()
    clean = {name: clip_id_of(name, file) for name in dict.fromkeys(ids)}
    rows = rows.set_column(0, "clip_id", pa.array([clean[name] for name in ids], pa.string()))
    return rows, pc.sum(negative).as_py() or 0


_JPEG_QUALITY = 95
_PUBLISHED_FPS = 30.0


def relative_path(clip_id: str, frame: int) -> str:
    """Return where frame `frame` (from 1) lies below `frames/`.

    >>> relative_path("a_000", 7)
    'a_000/a_000_000007.jpg'
    """
    return f"{check_id(clip_id, 'clip id')}/{clip_id}_{frame:06d}.jpg"


def frame_size(root: str, clip_id: str) -> tuple[int, int] | None:
    """Return (width, height) of the first frame in `root/frames`, or None when it is not there."""
    uri = storage.join(root, "frames", relative_path(clip_id, 1))
    if not storage.exists(uri):
        return None
    info = probe(uri)
    return info.width, info.height


def export_frames(annotations: Annotations, clip_ids: Iterable[str], root: str) -> tuple[list[str], list[str]]:
    """Write the frames of the given clips below `root/frames`, upright; return notes, and what failed by clip.

    A clip that has all its frames already is passed over. A clip whose video is missing, cannot be decoded, or has
    another number of frames than table `clips` says is a failure; the others are written.
    """
    rows = {row["clip_id"]: row for row in annotations.clips()}
    notes, failed, odd_rate = [], [], []
    for clip_id in clip_ids:
        row = rows[clip_id]
        try:
            if row["uri"] is None:
                raise VideoError("it has no video")
            if row["fps"] is not None and abs(row["fps"] - _PUBLISHED_FPS) > 0.01:
                odd_rate.append(clip_id)
            done = storage.join(root, "frames", relative_path(clip_id, row["num_frames"] or 1))
            written = row["num_frames"] if storage.exists(done) else _write_frames(annotations, row, root)
            if written != row["num_frames"]:
                raise VideoError(f"it has {written} frames and table 'clips' says {row['num_frames']}")
        except (MicrogError, OSError) as error:
            failed.append(f"{clip_id}: {describe(error)}")
    if odd_rate:
        notes.append(f"{len(odd_rate)} clips are not at 30 frames a second; their frames were written as they are")
    return notes, failed


def _write_frames(annotations: Annotations, row: dict[str, Any], root: str) -> int:
    import cv2

    number = 0
    for number, frame in enumerate(decode_frames(annotations.resolve(row["uri"], row["clip_id"])), 1):
        encoded, jpeg = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        if not encoded:
            raise VideoError(f"frame {number} cannot be written as JPEG")
        storage.write_bytes(storage.join(root, "frames", relative_path(row["clip_id"], number)), jpeg.tobytes())
    return number
