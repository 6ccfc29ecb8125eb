"""JHMDB as it is published: `splits/`, `puppet_mask/`, and `ReCompress_Videos/` or `Rename_Images/`.

`splits/{action}_test_split{1,2,3}.txt` has lines `video.avi 1` (train) or `video.avi 2` (test);
`puppet_mask/{action}/{video}/puppet_mask.mat` holds `part_mask`, (height, width, frames), of the one person who acts;
`ReCompress_Videos/{action}/{video}.avi`, or `Rename_Images/{action}/{video}/00001.png` and so on.

A box is what public readers of the masks take (T-CNN's, and those of the Fast R-CNN family): the least and the greatest
column and row, from 0, of the pixels that are not zero. The pickles of ACT and MOC are not read: a pickle runs code.
"""

from __future__ import annotations

import io
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from microg import storage
from microg.data import schema
from microg.data.ids import make_clip_id
from microg.data.label_space import JHMDB_21_SPACE
from microg.data.taxonomy import JHMDB_21
from microg.errors import ConfigError, DatasetError, FormatError
from microg.formats.base import Annotations, FormatResult, FoundVideo, new_clips
from microg.formats.video_files import pack_pictures, real_path, refuse_link
from microg.reading import reads

TABLES = frozenset({"boxes", "actions", "samples", "splits"})
KeyFrameRule = Literal["all", "middle"]
_SPLITS = {1: "published", 2: "split2", 3: "split3"}  # by file: the scheme; results are told of the first
_HOMES = {"1": "train", "2": "test"}
_SPLIT_FILE = re.compile(r"(?P<action>[a-z_]+)_test_split(?P<number>[123])\.txt")
_FPS = 30  # of HMDB51, whose clips these are
_PERSON = 1
_PICTURES = re.compile(r"\d{5}\.png")
# Masks are bytes that are nearly all zero, 320 x 240 and at most 40 frames.
_MOST_CELLS = 64 << 20
_DAMAGED = "it may be damaged: fetch it again"
_MASK_KINDS = frozenset({"uint8", "int8", "logical", "uint16", "int16", "double"})


@dataclass(frozen=True)
class _Video:
    """A video as the split files name it, and the clip id that it gets."""

    action: str
    name: str
    clip_id: str


def read(
    path: str, *, key_frames: KeyFrameRule = "all", dataset_root: str | None = None, videos: str | None = None
) -> FormatResult:
    """Read the folder `path` into boxes and samples of every video that a split file names; actions are JHMDB's 21.

    Args:
        path: The folder.
        key_frames: `all` makes every frame with a box a key frame, as frame mAP on JHMDB has it; `middle` one a video,
            as MicroG-4M has one a person.
        dataset_root: Where the dataset will be: where `path` has pictures only, they are packed into videos there.
        videos: Not an option: they lie in `path`.

    Raises:
        FormatError: A file is not what is published.
        ConfigError: An option is none.
    """
    if videos is not None:
        raise ConfigError("--videos does nothing when you import 'jhmdb'", "its videos lie in the folder itself")
    if key_frames not in ("all", "middle"):
        raise ConfigError(f"--key-frames {key_frames!r} is unknown", "it is all or middle")
    named, notes = _read_splits(path)
    clips = _clips(path, {video: None for homes in named.values() for video in homes})
    boxes: dict[str, np.ndarray] = {}
    empty, thin = 0, 0
    for clip in clips:
        file = storage.join(path, "puppet_mask", clip.action, clip.name, "puppet_mask.mat")
        if not storage.exists(file):
            continue
        refuse_link(path, file)
        found, (width, height), without = mask_boxes(read_mask(file))
        sized = found[(found[:, 3] > found[:, 1]) & (found[:, 4] > found[:, 2])]
        boxes[clip.clip_id] = np.insert(sized, 5, [[width], [height]], axis=1)
        empty += without
        thin += len(found) - len(sized)
    if not boxes:
        raise FormatError(f"{path} has no puppet_mask/ACTION/VIDEO/puppet_mask.mat", "unpack puppet_mask.zip there")
    if len(boxes) < len(clips):
        notes.append(f"{len(clips) - len(boxes)} videos have no puppet mask: they have no boxes")
    if empty:
        notes.append(f"{empty} frames have an empty mask: nobody is labelled there")
    if thin:
        notes.append(f"{thin} masks of one row or column were left out: they have no size")
    tables = _tables(clips, boxes, key_frames)
    tables["splits"] = _split_rows({(clip.action, clip.name): clip.clip_id for clip in clips}, named)
    tables["clips"] = new_clips([clip.clip_id for clip in clips])
    found_videos, more = _find_videos(path, clips, dataset_root)
    return FormatResult(tables, notes + more, videos=found_videos, label_space=JHMDB_21_SPACE.name)


def write(annotations: Annotations, path: str) -> list[str]:
    """Refuse: boxes are no masks. Raises `DatasetError`."""
    raise DatasetError("the jhmdb format is for import only: boxes are no masks")


@reads(FormatError)
def _read_splits(path: str) -> tuple[dict[int, dict[tuple[str, str], str]], list[str]]:
    """Return, by number of the split, where it puts each (action, video)."""
    folder = storage.join(path, "splits")
    files = {name: found for name in storage.names(folder) if (found := _SPLIT_FILE.fullmatch(name))}
    if not files:
        if storage.exists(storage.join(path, "JHMDB-GT.pkl")):
            raise FormatError(
                f"{path} is JHMDB as ACT and MOC pack it, whose JHMDB-GT.pkl is a pickle, and a pickle runs code",
                "get splits.zip and puppet_mask.zip from the page of JHMDB, and unpack them into one folder",
            )
        raise FormatError(f"{folder} has no ACTION_test_split1.txt", "unpack splits.zip of JHMDB there")
    named: dict[int, dict[tuple[str, str], str]] = {}
    for name, match in sorted(files.items()):
        action, file = match["action"], storage.join(folder, name)
        if action not in JHMDB_21:
            raise FormatError(f"{file}: {action!r} is not one of JHMDB's 21 actions", f"they are {', '.join(JHMDB_21)}")
        refuse_link(path, file)
        homes = named.setdefault(int(match["number"]), {})
        for number, line in enumerate(storage.read_bytes(file).decode("utf-8", "replace").splitlines(), 1):
            if not line.strip():
                continue
            video, _, home = line.strip().rpartition(" ")
            video = video.strip().removesuffix(".avi")
            if home not in _HOMES or not video or "/" in video or "\\" in video or video.startswith("."):
                raise FormatError(f"{file}, line {number}: {line[:200]!r}", "a line is VIDEO.avi 1 (train) or 2 (test)")
            if homes.setdefault((action, video), _HOMES[home]) != _HOMES[home]:
                raise FormatError(f"{file}, line {number}: {video} is in both parts")
    missing = len(JHMDB_21) - len({action for homes in named.values() for action, _ in homes})
    return named, [f"splits of {missing} of the 21 actions are not there"] if missing else []


def _clips(path: str, videos: Mapping[tuple[str, str], Any]) -> list[_Video]:
    """Name clips `{source}_{action}_{number}`, so that intervals over sources keep clips of one film together.

    HMDB51 calls a clip `{film}_{action}_{body}_{camera}_np{people}_{side}_{quality}_{number}`. Where two would get one
    name, or the form is another, the whole of it is the source.
    """
    short = {video: _short_name(*video) for video in videos}
    count = Counter(name.lower() for name in short.values())
    clips: dict[str, _Video] = {}
    for action, name in videos:
        clip_id = short[action, name]
        if count[clip_id.lower()] > 1:
            stem, _, number = name.rpartition("_")
            whole = _clean(f"{action}-{stem if number.isdecimal() else name}")
            clip_id = make_clip_id(whole, int(number) if number.isdecimal() and len(number) < 7 else 0)
        other = clips.setdefault(clip_id.lower(), _Video(action, name, clip_id))
        if (other.action, other.name) != (action, name):
            raise FormatError(f"{path}: videos {other.name!r} and {name!r} would both be clip {clip_id}")
    return list(clips.values())


def _short_name(action: str, name: str) -> str:
    found = re.fullmatch(rf"(?P<film>.+)_{action}_[a-z]+_[a-z]+_np\d+_[a-z]+_[a-z]+_(?P<number>\d{{1,6}})", name)
    film, number = (found["film"], int(found["number"])) if found else (name, 0)
    return make_clip_id(_clean(f"{film}_{action}"), number)


def _clean(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", text)[:190]


@reads(FormatError)
def read_mask(file: str) -> np.ndarray:
    """Return `part_mask` (height, width, frames) of a MATLAB 5 file.

    Raises `FormatError` for another kind of file, and for one that would unpack to more than masks do.
    """
    data = storage.read_bytes(file)
    if data.startswith((b"MATLAB 7.3", b"\x89HDF")):
        raise FormatError(
            f"{file} is of MATLAB 7.3 (HDF5), which is not read", "save it with -v7, as JHMDB is published"
        )
    if not data.startswith(b"MATLAB 5.0"):
        raise FormatError(f"{file} is no MATLAB 5 file", "JHMDB's puppet_mask.mat is one")
    _check_growth(data, file)
    try:
        return np.atleast_3d(_part_mask(data, file))  # MATLAB drops the last axis of a single frame
    except OSError as error:  # the bytes are here: what scipy cannot go on reading was cut off
        raise FormatError(f"{file} cannot be read: {error}", _DAMAGED) from error


def _part_mask(data: bytes, file: str) -> np.ndarray:
    from scipy.io import loadmat, whosmat

    found = {name: (shape, kind) for name, shape, kind in whosmat(io.BytesIO(data))}
    if "part_mask" not in found:
        raise FormatError(f"{file} has no part_mask", f"it has {', '.join(found) or 'nothing'}"[:200])
    shape, kind = found["part_mask"]
    if kind not in _MASK_KINDS or len(shape) not in (2, 3) or np.prod(shape, dtype=float) > _MOST_CELLS:
        raise FormatError(f"{file}: part_mask is {kind} of {shape}, not (height, width, frames) of numbers")
    mask = loadmat(io.BytesIO(data), variable_names=["part_mask"])["part_mask"]
    if not isinstance(mask, np.ndarray) or mask.shape != shape or mask.dtype.kind not in "biuf":
        raise FormatError(f"{file}: part_mask cannot be read", _DAMAGED)
    return mask


def _check_growth(data: bytes, file: str) -> None:
    """Refuse compressed variables that unpack to more than a mask may have, before anything reserves room for them."""
    place, order = 128, "<" if data[126:128] == b"IM" else ">"
    while place + 8 <= len(data):
        kind, size = np.frombuffer(data, f"{order}u4", 2, place).tolist()
        if kind == 15:
            unpacked = zlib.decompressobj().decompress(data[place + 8 : place + 8 + size], _MOST_CELLS + 1)
            inner = np.frombuffer(unpacked, f"{order}u4", 2).tolist() if len(unpacked) >= 8 else [0, 0]
            if len(unpacked) > _MOST_CELLS or inner[1] > _MOST_CELLS:
                raise FormatError(
                    f"{file} unpacks to over {_MOST_CELLS >> 20} MiB, out of proportion", "do not trust it"
                )
        place += 8 + size


def mask_boxes(mask: np.ndarray) -> tuple[np.ndarray, tuple[int, int], int]:
    """Return boxes (n, 5) float64 of a mask (height, width, frames): frame from 1, then least and greatest x and y.

    Also returned are (width, height), and how many frames have nobody.

    >>> mask = np.zeros((6, 8, 2), np.uint8)
    >>> mask[2:5, 3:7, 1] = 4
    >>> [part.tolist() if isinstance(part, np.ndarray) else part for part in mask_boxes(mask)]
    [[[2.0, 3.0, 2.0, 6.0, 4.0]], (8, 6), 1]
    """
    # (width, frames), (height, frames)
    columns, rows = (np.asarray((mask != 0).any(axis=axis)) for axis in (0, 1))
    there = np.flatnonzero(columns.any(axis=0))
    first = [marks[:, there].argmax(axis=0) for marks in (columns, rows)]
    last = [len(marks) - 1 - marks[::-1, there].argmax(axis=0) for marks in (columns, rows)]
    boxes = np.stack([there + 1, *first, *last], axis=1).astype(np.float64)
    return boxes, (mask.shape[1], mask.shape[0]), mask.shape[2] - len(there)


def _tables(clips: list[_Video], boxes: Mapping[str, np.ndarray], rule: KeyFrameRule) -> dict[str, pa.Table]:
    """Return boxes, samples and actions; `boxes` (n, 7) of a clip: frame, x1, y1, x2, y2, width, height."""
    with_boxes = [clip for clip in clips if len(boxes.get(clip.clip_id, ()))]
    actions = {clip.clip_id: JHMDB_21.index(clip.action) + 1 for clip in clips}
    parts = {"boxes": [schema.empty("boxes")], "samples": [schema.empty("samples")]}
    for clip in with_boxes:
        rows = boxes[clip.clip_id]
        keys = rows if rule == "all" else rows[len(rows) // 2 : len(rows) // 2 + 1]
        divided = keys[:, 1:5] / keys[:, [5, 6, 5, 6]]
        for name, frames, corners in (("boxes", rows[:, 0], rows[:, 1:5]), ("samples", keys[:, 0], divided)):
            columns: dict[str, Any] = {
                "clip_id": [clip.clip_id] * len(frames),
                "frame": frames.astype(np.int32),
                "person_id": [_PERSON] * len(frames),
                **dict(zip(("x1", "y1", "x2", "y2"), corners.T, strict=True)),
            }
            columns |= {"action_id": [actions[clip.clip_id]] * len(frames)} if name == "samples" else {}
            parts[name].append(schema.cast(name, pa.table(columns)))
    tables = {name: schema.conform(name, pa.concat_tables(found)) for name, found in parts.items()}
    labels = [{"clip_id": clip_id, "person_id": _PERSON, "action_id": number} for clip_id, number in actions.items()]
    return {**tables, "actions": schema.from_rows("actions", labels)}


def _split_rows(ids: Mapping[tuple[str, str], str], named: Mapping[int, Mapping[tuple[str, str], str]]) -> pa.Table:
    rows = [
        {"clip_id": ids[video], "split": split, "scheme": _SPLITS[number]}
        for number, homes in sorted(named.items())
        for video, split in homes.items()
    ]
    return schema.from_rows("splits", rows)


def _find_videos(path: str, clips: list[_Video], dataset_root: str | None) -> tuple[dict[str, FoundVideo], list[str]]:
    """Return the video of each clip, made of its pictures where there is none."""
    found: dict[str, FoundVideo] = {}
    packed = waiting = 0
    for clip in clips:
        video = storage.join(path, "ReCompress_Videos", clip.action, f"{clip.name}.avi")
        if storage.exists(video):
            refuse_link(path, video)
            found[clip.clip_id] = FoundVideo(real_path(video), None)
            continue
        pictures = list(_pictures(path, storage.join(path, "Rename_Images", clip.action, clip.name)))
        if pictures and dataset_root is None:
            waiting += 1
        elif pictures:
            packed += 1
            target = storage.join(str(dataset_root), "videos", f"{clip.clip_id}.mp4")
            found[clip.clip_id] = FoundVideo(pack_pictures(pictures, target, fps=_FPS), None)
    notes = [f"{packed} videos were packed from their pictures, as they are, {_FPS} a second"] if packed else []
    return found, notes + ([f"{waiting} videos will be packed from their pictures"] if waiting else [])


def _pictures(root: str, folder: str) -> Iterator[str]:
    for name in sorted(storage.names(folder)):
        if _PICTURES.fullmatch(name):
            refuse_link(root, storage.join(folder, name))
            yield storage.join(folder, name)
