"""The published MicroG-4M folder.

`annotation_files/actions.csv` (video_id, movie_or_real m|r, person_id, action), `bounding_boxes.csv` (video_id,
frame_id from 1, person_id, xmin, ymin, xmax, ymax in pixels), a JSON array of {video_id, caption, qa_pairs: [{Q, A}]},
`label_map/`, `videos/` or `videos.zip` with the folders movie/ and real/, and the same tables in `parquet_format/`.
"""

from __future__ import annotations

import pyarrow as pa

from microg import storage
from microg.arrow import parse_schema, pc
from microg.data import schema
from microg.data.ids import clip_id_of
from microg.data.vocabulary import MICROG_VOCABULARY, Vocabulary
from microg.errors import FormatError
from microg.formats import vqa_json
from microg.formats.base import (
    Annotations,
    FormatResult,
    FoundVideo,
    confidence_note,
    integral,
    new_clips,
    read_csv,
    write_csv,
)
from microg.formats.labelmap import check_label_map, label_map_text
from microg.formats.video_files import copy_videos as copy_clips
from microg.formats.video_files import find_videos, unpack_zip
from microg.reading import SAVE_AS_CSV, SPREADSHEETS

TABLES = frozenset({"boxes", "actions", "captions", "qa"})
_ORIGIN_OF_LETTER = {"m": "movie", "r": "real"}
_LETTER = {origin: letter for letter, origin in _ORIGIN_OF_LETTER.items()}
_ACTIONS = parse_schema("video_id movie_or_real: string, person_id action: int64")
_BOXES = parse_schema("video_id: string, frame_id person_id: int64, xmin ymin xmax ymax: float64")
_PIXELS = {"xmin": "x1", "ymin": "y1", "xmax": "x2", "ymax": "y2"}


def read(
    path: str,
    *,
    videos: str | None = None,
    dataset_root: str | None = None,
    vocabulary: Vocabulary = MICROG_VOCABULARY,
) -> FormatResult:
    """Read the published folder `path` into `clips`, `boxes`, `actions`, `captions` and `qa`.

    Each table comes from `annotation_files/` (or the root), or else from `parquet_format/`. Videos are looked for in
    `videos` (a folder or a zip file), else in `path`; an archive is unpacked into `dataset_root`. Rows keep the
    order of the file; captions and questions that name an unknown clip make it known. Raises `FormatError` for a file
    that cannot be read, a bad id or a bad origin, and when nothing was found.
    """
    if not storage.exists(path):
        raise FormatError(f"{path} is not there")
    notes: list[str] = []
    actions, actions_file = _load(path, "actions", _ACTIONS)
    boxes, boxes_file = _load(path, "bounding_boxes", _BOXES)
    captions, qa, vqa_file = vqa_json.find_and_read(path)
    files = [file for file in (actions_file, boxes_file, vqa_file) if file]
    notes += [f"read {file}" for file in files]
    found, video_notes = _videos(path, videos, dataset_root)
    if not files and not found:
        raise FormatError(f"{path} has no annotations and no videos", "is it the folder that holds annotation_files/?")

    origins = _origins(actions, actions_file)
    actions = _with_clip_ids(actions.drop_columns("movie_or_real"), actions_file)
    actions = actions.rename_columns({"action": "action_id"})
    boxes = _with_clip_ids(boxes, boxes_file).rename_columns({"frame_id": "frame", **_PIXELS})
    ids = dict.fromkeys(actions["clip_id"].to_pylist())
    for column in (boxes["clip_id"], captions["clip_id"], qa["clip_id"]):
        ids |= dict.fromkeys(pc.unique(column).to_pylist())
    ids |= dict.fromkeys(found)
    for label_map in (storage.join(path, "label_map", "label_map.pbtxt"), storage.join(path, "label_map.pbtxt")):
        if storage.exists(label_map):
            notes += check_label_map(label_map, vocabulary)
    tables = {
        "clips": new_clips(ids, origin=[origins.get(clip_id) for clip_id in ids]),
        "boxes": schema.conform("boxes", boxes),
        "actions": schema.conform("actions", actions),
        "captions": captions,
        "qa": qa,
    }
    told = dict.fromkeys(tables["boxes"]["clip_id"].unique().to_pylist(), boxes_file or path)
    return FormatResult(tables, notes + video_notes, found, told)


def write(annotations: Annotations, path: str, *, copy_videos: bool = False) -> list[str]:
    """Write CSV, JSON and Parquet under `path`, byte-stably; with `copy_videos` also `videos/{origin}/{source}/`.

    Boxes are written as integers when all of them are whole, else as exact decimals.
    """
    notes = confidence_note(annotations.table("boxes"), "microg4m")
    actions, more = _published_actions(annotations)
    boxes = _published_boxes(annotations.table("boxes"))
    items, vqa_notes = vqa_json.items(annotations.table("captions"), annotations.table("qa"))
    for name, table in (("actions", actions), ("bounding_boxes", boxes)):
        write_csv(storage.join(path, "annotation_files", f"{name}.csv"), table)
        storage.write_parquet(storage.join(path, "parquet_format", f"{name}.parquet"), table)
    vqa_json.write(path, items)
    storage.write_bytes(
        storage.join(path, "label_map", "label_map.pbtxt"), label_map_text(annotations.vocabulary).encode()
    )
    if copy_videos:
        more += copy_clips(annotations, storage.join(path, "videos"), published_layout=True)[1]
    mentioned = {*actions["video_id"].to_pylist(), *boxes["video_id"].to_pylist(), *(i["video_id"] for i in items)}
    silent = [row["clip_id"] for row in annotations.clips() if row["clip_id"] not in mentioned]
    if silent:
        where = "appear through their video only" if copy_videos else "are not mentioned"
        more.append(f"{len(silent)} clips without any annotation {where} (e.g. {silent[0]})")
    return notes + more + vqa_notes


def _load(root: str, name: str, columns: pa.Schema) -> tuple[pa.Table, str | None]:
    """Read a table from its CSV file, or else from its Parquet file; without either, an empty one and None."""
    for folder in (storage.join(root, "annotation_files"), root):
        file = storage.join(folder, f"{name}.csv")
        if storage.exists(file):
            return read_csv(file, columns), file
        for ending in SPREADSHEETS:
            if storage.exists(storage.join(folder, name + ending)):
                raise FormatError(f"{folder}/{name}{ending} is a spreadsheet, which is not read", SAVE_AS_CSV)
    for file in (storage.join(root, "parquet_format", f"{name}.parquet"), storage.join(root, f"{name}.parquet")):
        if storage.exists(file):
            table = storage.read_parquet(file)
            missing = [column for column in columns.names if column not in table.column_names]
            if missing:
                raise FormatError(f"{file} lacks the columns {missing}", f"it has {table.column_names}")
            try:
                return table.select(columns.names).cast(columns), file
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise FormatError(f"cannot read {file}: {error}") from error
    return columns.empty_table(), None


def _with_clip_ids(table: pa.Table, file: str | None) -> pa.Table:
    """Turn `video_id` into checked clip ids; every other column must be filled."""
    for name in table.column_names:
        if table[name].null_count:
            row = pc.index(pc.is_null(table[name]), True).as_py()
            raise FormatError(f"{file}: column {name!r} is empty in data row {row + 1}")
    unique = pc.unique(table["video_id"]).to_pylist()
    clean = pa.array([clip_id_of(name, f"{file}") for name in unique], pa.string())
    index = pc.index_in(table["video_id"], pa.array(unique, pa.string()))
    return table.drop_columns("video_id").add_column(0, "clip_id", pc.take(clean, index))


def _origins(actions: pa.Table, file: str | None) -> dict[str, str]:
    origins: dict[str, str] = {}
    pairs = actions.select(["video_id", "movie_or_real"]).group_by(["video_id", "movie_or_real"]).aggregate([])
    for video_id, letter in zip(pairs["video_id"].to_pylist(), pairs["movie_or_real"].to_pylist(), strict=True):
        if letter is None or video_id is None:
            continue
        if letter not in _ORIGIN_OF_LETTER:
            raise FormatError(f"{file}: movie_or_real of {video_id} is {letter!r}", "it is m or r")
        clip_id = clip_id_of(video_id, f"{file}")
        if origins.setdefault(clip_id, _ORIGIN_OF_LETTER[letter]) != _ORIGIN_OF_LETTER[letter]:
            raise FormatError(f"{file}: {clip_id} is called both movie and real")
    return origins


def _videos(path: str, videos: str | None, dataset_root: str | None) -> tuple[dict[str, FoundVideo], list[str]]:
    folder = videos or next(
        (f for f in (storage.join(path, "videos"), f"{path}/videos.zip") if storage.exists(f)), None
    )
    if folder is None:
        return {}, []
    if not storage.exists(folder):
        raise FormatError(f"the videos {folder} are not there")
    if not folder.lower().endswith(".zip"):
        return find_videos(folder), []
    if dataset_root is None:
        return {}, [f"{folder} was not unpacked: no dataset folder was given to unpack it into"]
    return unpack_zip(folder, storage.join(dataset_root, "videos")), []


def _published_actions(annotations: Annotations) -> tuple[pa.Table, list[str]]:
    actions = annotations.table("actions")
    letters = {row["clip_id"]: _LETTER.get(row["origin"]) for row in annotations.clips()}
    origin = [letters[clip_id] for clip_id in actions["clip_id"].to_pylist()]
    table = pa.table(
        [actions["clip_id"], pa.array(origin, pa.string()), actions["person_id"], actions["action_id"]],
        names=_ACTIONS.names,
    ).cast(_ACTIONS)
    unknown = {c for c, letter in zip(actions["clip_id"].to_pylist(), origin, strict=True) if letter is None}
    notes = [f"{len(unknown)} clips have no origin: movie_or_real is empty in their rows"] if unknown else []
    unstated = {row["clip_id"] for row in annotations.clips() if row["origin"]} - set(actions["clip_id"].to_pylist())
    if unstated:
        notes.append(f"the origin of {len(unstated)} clips without actions is not written (actions.csv holds it)")
    return table, notes


def _published_boxes(boxes: pa.Table) -> pa.Table:
    kind = pa.int64() if integral(boxes) else pa.float64()
    columns = [boxes["clip_id"], boxes["frame"], boxes["person_id"], *(boxes[name] for name in _PIXELS.values())]
    types = [*list(_BOXES)[:3], *((name, kind) for name in _PIXELS)]
    return pa.table(columns, names=_BOXES.names).cast(pa.schema(types))
