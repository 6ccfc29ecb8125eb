"""AVA-style CSV files of predictions and truth, with and without a header, plain or gzipped.

`video_id, frame, x1, y1, x2, y2, action_id, score` and `video_id, frame, x1, y1, x2, y2, action_id[, person_id]`;
the frame may be `52`, `0052` or `52.0`, and `;` or tabs may stand between values.
What cannot be read is refused with its line number.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

import pyarrow as pa

from microg import storage
from microg.csv_tables import decimal_mark, delimiter_of, read_table, refuse_spreadsheet, with_empty_boxes
from microg.errors import FormatError
from microg.reading import gunzip

PREDICTION_COLUMNS = ("clip_id", "frame", "x1", "y1", "x2", "y2", "action_id", "score")
TRUTH_COLUMNS = ("clip_id", "frame", "x1", "y1", "x2", "y2", "action_id", "person_id")
_OPTIONAL = frozenset({"person_id", "origin"})
_SPELLINGS = {
    "clip_id": ("video_id",),
    "frame": ("frame_id", "frame_stamp", "timestamp"),
    **{side: (f"{side[0]}{'min' if side[1] == '1' else 'max'}",) for side in ("x1", "y1", "x2", "y2")},
    "action_id": ("action",),
    "person_id": (),
    "score": ("logit", "probability"),
    "origin": (),
}
ALIASES = {spelling: name for name, others in _SPELLINGS.items() for spelling in (name, *others)}
_TYPES = {
    "clip_id": pa.dictionary(pa.int32(), pa.string()),
    "origin": pa.dictionary(pa.int32(), pa.string()),
    "frame": pa.int32(),
    "action_id": pa.int32(),
    "person_id": pa.int32(),
}


@dataclass(frozen=True)
class CsvRows:
    """Typed columns of a CSV file by canonical name, the header as written (None: none), and the first row's line."""

    columns: dict[str, pa.ChunkedArray]
    header: tuple[str, ...] | None
    first_line: int


def read_rows(path: str, expected: tuple[str, ...]) -> CsvRows:
    """Read a CSV file whose columns are `expected` (by position) or named in a header.

    A first line whose second field is not a number is a header. Raises `FormatError` with the line of the first
    row that has another number of columns or a value that is not a number.
    """
    data = _text(path)
    if not data.strip():
        raise FormatError(f"{path} is empty", f"a row is {','.join(expected)}")
    refuse_spreadsheet(data, path)
    body = data.rstrip(b"\r\n \t")
    if expected == TRUTH_COLUMNS:
        body = with_empty_boxes(body)
    delimiter = delimiter_of(body)
    mark = decimal_mark(body, delimiter)
    first = next(csv.reader([body.split(b"\n", 1)[0].decode("utf-8", "replace").rstrip("\r")], delimiter=delimiter), [])
    header = None
    if not (len(first) > 1 and _number(first[1], mark) is not None):
        header = tuple(name.strip() for name in first)
    names = _header_names(header, expected, path) if header else _positional(len(first), expected, path)
    kept = [name for name in dict.fromkeys(names) if name in _known(expected)]
    try:
        types = {name: _TYPES.get(name, pa.float64()) for name in kept}
        table = read_table(body, types, names=names, skip_rows=int(header is not None))
    except pa.ArrowInvalid as error:
        _diagnose(body, names, header is not None, path)
        raise FormatError(f"cannot read {path}: {error}") from error
    return CsvRows(dict(zip(kept, table.columns, strict=True)), header, 2 if header else 1)


def _number(text: str, mark: str) -> float | None:
    try:
        return float(text.strip().replace(mark, "."))
    except ValueError:
        return None


def _text(path: str) -> bytes:
    data = storage.read_bytes(path)
    if data[:2] == b"\x1f\x8b":
        data = gunzip(data, path)
    return data.removeprefix(b"\xef\xbb\xbf")


def _known(expected: tuple[str, ...]) -> frozenset[str]:
    return frozenset(expected) | _OPTIONAL


def _header_names(header: tuple[str, ...], expected: tuple[str, ...], path: str) -> list[str]:
    names = [ALIASES.get(name.lower(), f"?{name}") for name in header]
    missing = [name for name in expected if name not in names and name not in _OPTIONAL]
    if missing:
        raise FormatError(
            f"{path}, line 1: the header {','.join(header)[:200]!r} lacks {', '.join(missing)}",
            f"columns are {','.join(expected)}; without a header they are taken in this order",
        )
    double = [name for name in _known(expected) if names.count(name) > 1]
    if double:
        raise FormatError(f"{path}, line 1: column {double[0]} is there twice")
    return names


def _positional(count: int, expected: tuple[str, ...], path: str) -> list[str]:
    least = len(expected) - sum(name in _OPTIONAL for name in expected)
    if not least <= count <= len(expected):
        raise FormatError(
            f"{path}, line 1: {count} columns instead of {len(expected)}", f"a row is {','.join(expected)}"
        )
    return list(expected[:count])


def _diagnose(body: bytes, names: list[str], header: bool, path: str) -> None:
    """Raise `FormatError` for the first line that does not fit, reading again line by line."""
    delimiter = delimiter_of(body)
    reader = csv.reader(io.StringIO(body.decode("utf-8", "replace"), newline=""), delimiter=delimiter)
    mark = decimal_mark(body, delimiter)
    for fields in reader:
        line = reader.line_num
        if header and line == 1:
            continue
        if len(fields) != len(names):
            shown = ",".join(name.lstrip("?") for name in names)
            raise FormatError(
                f"{path}, line {line}: {len(fields)} columns instead of {len(names)}", f"a row is {shown}"
            )
        for name, value in zip(names, fields, strict=True):
            whole = pa.types.is_integer(_TYPES.get(name, pa.float64()))
            if name.startswith("?") or name in ("clip_id", "origin") or not value.strip():
                continue
            number = _number(value, mark)
            if number is None or (whole and not number.is_integer()):
                what = "a whole number" if whole else "a number"
                raise FormatError(f"{path}, line {line}: {name} {value!r} is not {what}")
