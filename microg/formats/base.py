"""What all formats share: the result of reading, a uniform view of what is to be written, and notes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import pyarrow as pa

from microg import storage
from microg.annotations.rows import Annotation
from microg.arrow import pc
from microg.csv_tables import read_table, refuse_spreadsheet, with_empty_boxes
from microg.data import schema
from microg.data.dataset import Dataset
from microg.data.ids import split_clip_id
from microg.data.schema import TABLES
from microg.data.vocabulary import MICROG_VOCABULARY, Vocabulary
from microg.data.vocabulary_files import FILE_NAME, vocabulary_text
from microg.errors import ConfigError, DatasetError, FormatError


@dataclass(frozen=True)
class FoundVideo:
    """A video file of a clip, and the origin (`movie`, `real`) that its folder tells, if any."""

    path: str
    origin: str | None


@dataclass(frozen=True)
class FormatResult:
    """Tables read from a foreign format, by name, and notes on what was assumed or left out.

    A table is present when the format can express it, even without rows: a merge then knows that "no rows" is a
    statement and not silence. `videos` are those of the clips, by clip id, where the format itself looked for them;
    `files` says which file tells of a clip, where there are several; `label_space` names what actions are numbered by,
    where that is not MicroG-4M's; `annotations` are the judgements of all annotators, where the format tells whose work
    it holds: `tables` are then what the newest of each clip says.
    """

    tables: dict[str, pa.Table]
    notes: list[str]
    videos: Mapping[str, FoundVideo] | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    label_space: str | None = None
    annotations: Sequence[Annotation] = ()


@dataclass(frozen=True)
class Annotations:
    """What is to be written: tables by name, limited to usable clips; `clips` has a row for every clip named.

    `vocabulary` holds the actions that people are labelled with.
    """

    tables: Mapping[str, pa.Table]
    root: str | None = None
    vocabulary: Vocabulary = MICROG_VOCABULARY

    def table(self, name: str) -> pa.Table:
        """Return table `name`, without rows when absent."""
        return self.tables[name] if name in self.tables else schema.empty(name)

    def clips(self) -> list[dict]:
        """Return the rows of table `clips`."""
        return self.table("clips").to_pylist()

    def resolve(self, uri: str, clip_id: str | None = None) -> str:
        """Return a clip's `uri` as an absolute path or URI; one that leads out of the dataset is refused."""
        return uri if self.root is None else Dataset(self.root, {}).resolve(uri, clip_id)


def collect(source: Dataset | Mapping[str, pa.Table]) -> tuple[Annotations, list[str]]:
    """Return a view of a dataset (or of plain tables) for a writer, and notes on clips left out.

    Clips whose status is not `ok` are left out with all their rows. A clip that is named in another table and
    missing from `clips` gets a row without metadata. Every clip id is checked, because it becomes a file name.
    """
    if isinstance(source, Dataset):
        tables = {name: source.table(name) for name in schema.TABLES if source.has(name)}
        root: str | None = source.root
        vocabulary = source.vocabulary
    else:
        tables, root = {name: schema.conform(name, table) for name, table in source.items()}, None
        vocabulary = MICROG_VOCABULARY
    notes = []
    clips = tables.get("clips", schema.empty("clips"))
    usable = pc.fill_null(pc.equal(clips["status"], "ok"), True)
    left_out = clips.filter(pc.invert(usable))["clip_id"]
    if len(left_out):
        notes.append(f"{len(left_out)} clips with status rejected or error were left out, with their annotations")
        for name in tables:
            if "clip_id" in schema.TABLES[name].names:
                tables[name] = tables[name].filter(pc.invert(pc.is_in(tables[name]["clip_id"], left_out)))
        clips = tables["clips"]
    named = [tables[name]["clip_id"] for name in ("boxes", "actions", "captions", "qa", "samples") if name in tables]
    missing = _missing_ids(clips["clip_id"], named)
    if missing:
        notes.append(f"{count_of(missing, 'clip')} annotated but missing from table 'clips': no video, size or length")
        clips = pa.concat_tables([clips, new_clips(missing)])
    tables["clips"] = clips
    for clip_id in clips["clip_id"].to_pylist():
        split_clip_id(clip_id)
    return Annotations(tables, root, vocabulary), notes


def write_vocabulary(vocabulary: Vocabulary, path: str) -> str:
    """Write a dataset's own actions beside the files of an export, and return a note on how to import them again.

    `path` is the export's folder, or its one JSON file.
    """
    if vocabulary.published:
        return f"actions are those of {vocabulary.name}: import them with --vocabulary {vocabulary.name}"
    folder = path.rpartition("/")[0] or "." if path.endswith(".json") else path
    file = storage.join(folder, FILE_NAME)
    storage.write_bytes(file, vocabulary_text(vocabulary).encode())
    return f"the actions of {vocabulary.name!r} are in {file}: import them with --vocabulary {file}"


def dropped(annotations: Annotations, kept: Iterable[str], format_name: str) -> list[str]:
    """Return a note for each filled table that a format cannot express."""
    kept = {*kept, "clips"}
    return [
        f"{format_name} cannot express table '{name}': {table.num_rows} rows were not written"
        for name, table in annotations.tables.items()
        if name not in kept and table.num_rows
    ]


def confidence_note(boxes: pa.Table, format_name: str) -> list[str]:
    """Return a note when boxes carry confidences that a format has no place for."""
    known = len(boxes) - boxes["confidence"].null_count
    return [f"{format_name} has no box confidence: {known} values were not written"] if known else []


def actions_by_person(actions: pa.Table) -> tuple[dict[str, dict[int, list[int]]], list[str]]:
    """Return action ids by clip and person in the table's order, and a note when a label is there twice."""
    result: dict[str, dict[int, list[int]]] = {}
    repeated = 0
    columns = (actions[name].to_pylist() for name in ("clip_id", "person_id", "action_id"))
    for clip_id, person_id, action_id in zip(*columns, strict=True):
        labels = result.setdefault(clip_id, {}).setdefault(person_id, [])
        if action_id in labels:
            repeated += 1
        else:
            labels.append(action_id)
    return result, [f"{repeated} repeated action rows were written once"] if repeated else []


@contextmanager
def named_entry(where: str) -> Iterator[None]:
    """Raise a `FormatError` that says `where` for what an entry of a JSON file lacks, or holds of another kind."""
    try:
        yield
    except KeyError as error:
        raise FormatError(f"{where}: it has no {error.args[0]!r}") from error
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise FormatError(f"{where} is malformed: {type(error).__name__}: {error}") from error


def new_clips(clip_ids: Iterable[str], **columns: Iterable) -> pa.Table:
    """Return rows of table `clips` for these ids, status `ok`, with `columns` (aligned with the ids) filled in."""
    ids = list(clip_ids)
    split = [split_clip_id(clip_id) for clip_id in ids]
    base = {
        "clip_id": ids,
        "source_id": [source for source, _ in split],
        "sequence": [sequence for _, sequence in split],
        "status": ["ok"] * len(ids),
    }
    filled = {name: pa.array(list(values), schema.TABLES["clips"].field(name).type) for name, values in columns.items()}
    arrays = {name: pa.array(values, schema.TABLES["clips"].field(name).type) for name, values in base.items()}
    return schema.conform("clips", pa.table({**arrays, **filled}))


def read_csv(path: str, columns: pa.Schema, *, header: bool = True) -> pa.Table:
    """Read a CSV file with exactly typed columns, of which all must be there; others are ignored.

    Without `header` the columns are given by position. Raises `FormatError` naming the file, and the line where known.
    """
    data = storage.read_bytes(path).removeprefix(b"\xef\xbb\xbf")
    names = columns.names
    if not data.strip():
        if header:
            raise FormatError(f"{path} is empty", f"it must start with the header {','.join(names)}")
        return columns.empty_table()
    refuse_spreadsheet(data, path)
    try:
        types = dict(zip(names, columns.types, strict=True))
        data = data.rstrip(b"\r\n \t")
        return read_table(data if header else with_empty_boxes(data), types, names=None if header else names).cast(
            columns
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise FormatError(f"cannot read {path}: {error}", f"it needs the columns {','.join(names)}") from error


def integral(boxes: pa.Table) -> bool:
    """Tell whether all pixel coordinates are whole numbers."""
    return all(
        pc.all(pc.equal(boxes[name], pc.floor(boxes[name])), min_count=0).as_py() for name in ("x1", "y1", "x2", "y2")
    )


def write_csv(path: str, table: pa.Table, *, header: bool = True) -> None:
    """Write a CSV file byte-stably: numbers in their shortest exact form, `\\n` line ends, nulls empty."""
    frame = table.to_pandas(types_mapper=_nullable)
    storage.write_bytes(path, frame.to_csv(index=False, header=header, lineterminator="\n").encode())


def to_json(document: object, where: str, indent: int | None = None) -> bytes:
    """Return strict JSON. Raises `DatasetError` when a number is not finite, which JSON cannot say."""
    try:
        return (json.dumps(document, ensure_ascii=False, allow_nan=False, indent=indent) + "\n").encode()
    except ValueError as error:
        raise DatasetError(
            f"{where} cannot be written: a coordinate is not a finite number", "run 'microg data validate'"
        ) from error


def _nullable(kind: pa.DataType) -> object:
    """Keep integers with nulls integers on the way through pandas."""
    import pandas as pd

    return pd.Int64Dtype() if pa.types.is_integer(kind) else None


def _missing_ids(known: pa.ChunkedArray, named: list[pa.ChunkedArray]) -> list[str]:
    ids: dict[str, None] = {}
    for column in named:
        ids |= dict.fromkeys(pc.unique(column).to_pylist())
    have = set(known.to_pylist())
    return [clip_id for clip_id in ids if clip_id not in have]


def count_of(items: list, noun: str) -> str:
    return f"{len(items)} {noun}{'s' if len(items) != 1 else ''} (e.g. {items[0]})"


class Format(Protocol):
    """A dataset format: a module, or any object, with these three names.

    Attributes:
        TABLES: The tables, beside `clips`, that the format can hold. On export each other table that has rows gets a
            note that it was not written.
        read: `read(path, *, ...) -> FormatResult`: the annotations at `path`. Videos are looked for by the caller,
            unless it takes `videos` and `dataset_root` and returns `FormatResult.videos`.
        write: `write(annotations, path, *, ...) -> notes`: writes `microg.formats.base.Annotations` under `path`.

    Keyword-only parameters of `read` and `write` are the options of the format.
    """

    TABLES: frozenset[str]

    @property
    def read(self) -> Callable[..., FormatResult]: ...

    @property
    def write(self) -> Callable[..., list[str]]: ...


def check_format(name: str, found: Any) -> Format:
    """Return `found` when it is a format.

    Raises:
        ConfigError: It lacks one of the three names, or `TABLES` holds a name that is no table of a dataset.
    """
    needed = "a format is a module with TABLES, read(path, *, ...) and write(annotations, path, *, ...)"
    for attribute in ("TABLES", "read", "write"):
        value = getattr(found, attribute, None)
        if value is None or (attribute != "TABLES" and not callable(value)):
            raise ConfigError(f"{name} is no dataset format: it has no {attribute}", needed)
    unknown = sorted(set(found.TABLES) - set(TABLES))
    if unknown:
        raise ConfigError(f"format {name}: there is no table {unknown[0]!r}", f"tables are {', '.join(TABLES)}")
    return cast("Format", found)
