"""CSV files as people's tools write them: `;` or tabs between values, decimal commas, whole numbers as `46.0`."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.csv as pa_csv

from microg.arrow import pc
from microg.errors import FormatError
from microg.reading import SAVE_AS_CSV

_DECIMAL_COMMA = re.compile(rb"[0-9],[0-9]")
_PACKED, _OLD_OFFICE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"


def delimiter_of(data: bytes) -> str:
    """Return what separates the values of the first line: a comma, unless it has as many of `;` or tabs.

    Commas may then be those of decimals, of which each value has one at most, and the clip's name none.

    >>> delimiter_of(b"video_id;frame\\na_000;52")
    ';'
    """
    first = data.lstrip(b"\r\n").split(b"\n", 1)[0]
    return max(
        (mark for mark in ";\t," if mark.encode() in first), key=lambda mark: first.count(mark.encode()), default=","
    )


def decimal_mark(data: bytes, delimiter: str) -> str:
    """Return `,` for a file with commas between digits where no comma separates values, else `.`."""
    return "," if delimiter != "," and _DECIMAL_COMMA.search(data) else "."


def refuse_spreadsheet(data: bytes, where: str) -> None:
    """Raise `FormatError` for the bytes of a workbook that is called `.csv`."""
    if data.startswith((_PACKED, _OLD_OFFICE)):
        raise FormatError(f"{where} is a spreadsheet or an archive, whatever its name says", SAVE_AS_CSV)


def with_empty_boxes(data: bytes) -> bytes:
    """Fill up rows of a clip and a frame alone, as AVA-Kinetics has them, with empty values."""
    delimiter = delimiter_of(data).encode()
    full = next((line for line in data.split(b"\n") if line.count(delimiter) > 1), b"")
    mark = re.escape(delimiter)
    pair = re.compile(rb"^([^%s\r\n]+%s[^%s\r\n]+)(\r?)$" % (mark, mark, mark), re.MULTILINE)
    return pair.sub(rb"\g<1>" + delimiter * (full.count(delimiter) - 1) + rb"\g<2>", data) if full else data


def read_table(
    data: bytes, types: Mapping[str, pa.DataType], *, names: Sequence[str] | None = None, skip_rows: int = 0
) -> pa.Table:
    """Return the columns of `types`, which must all be there; others are passed over.

    Without `names` the first line names the columns. An empty value is null, and an empty line a row of nulls where
    `names` are given, so that row numbers stay line numbers. A column of whole numbers may say `46.0`. Raises what
    pyarrow raises, of `pa.ArrowException`.
    """
    delimiter = delimiter_of(data)

    def read(wanted: Mapping[str, pa.DataType]) -> pa.Table:
        return pa_csv.read_csv(
            io.BytesIO(data),
            read_options=pa_csv.ReadOptions(
                column_names=None if names is None else list(names), skip_rows=skip_rows, use_threads=False
            ),
            parse_options=pa_csv.ParseOptions(delimiter=delimiter, ignore_empty_lines=names is None),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict(wanted),
                include_columns=list(wanted),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                decimal_point=decimal_mark(data, delimiter),
            ),
        )

    try:
        return read(types)
    except pa.ArrowInvalid as error:
        whole = {name: kind for name, kind in types.items() if pa.types.is_integer(kind)}
        try:
            table = read({**types, **dict.fromkeys(whole, pa.float64())})
            for name, kind in whole.items():
                table = table.set_column(table.column_names.index(name), name, pc.cast(table[name], kind))
        except pa.ArrowException:
            raise error from None
        return table
