"""Changes to files: to their bytes, and to what is in them where that can be told (JSON, CSV, archives, tables)."""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Mutation = Callable[[bytes, random.Random], bytes]

NUMBERS = (
    *("0", "-1", "1e999", "-1e999", "NaN", "nan", "Infinity", "0.5", "2000000000", "199999999", "2147483648"),
    *("9223372036854775808", "9" * 5000, "0x10", "1_000", "٣", "1e-400", "", "true", "null"),
)
TEXTS = (
    *("", "../../../X", "/etc/passwd", "file:///etc/passwd", "http://127.0.0.1:9/a", "a\0b", "\ud800", "x" * 10_000),
    *("=1+1", "<script>", "\x1b[31m", "a_000", "None", "12 stand", "\u202e", "a::b", "\r", "\n", '"', "'"),
)
_NUMBER = re.compile(rb"-?\d+(\.\d+)?")
_WORD = re.compile(rb"[A-Za-z_]{2,}")
_PIECES = (
    b"\0",
    b"\n",
    b"\r",
    b'"',
    b",",
    b"\t",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"{",
    b"[" * 2000,
    b"<a>" * 500,
    b"&a;",
)


def _flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 8, 64))):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _drop(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.choice((1, 4, 100, 5000)) :]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start : start + rng.choice((1, 30, 300))] * rng.choice((2, 3, 50)) + data[start:]


def _insert(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + rng.choice((rng.choice(_PIECES), rng.randbytes(8))) + data[start:]


def _integer(data: bytes, rng: random.Random) -> bytes:
    """Overwrite a few bytes by an integer at its edges, as lengths and offsets in headers are."""
    value = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1))
    piece = (value & (2**64 - 1)).to_bytes(8, rng.choice(("little", "big")))[: rng.choice((1, 2, 4, 8))]
    start = rng.randrange(max(len(data) - len(piece), 0) + 1)
    return data[:start] + piece + data[start + len(piece) :]


def _replace(pattern: re.Pattern[bytes], values: tuple[str, ...]) -> Mutation:
    def change(data: bytes, rng: random.Random) -> bytes:
        places = list(pattern.finditer(data[:200_000]))
        if not places:
            return _flip(data, rng)
        place = rng.choice(places)
        return data[: place.start()] + rng.choice(values).encode("utf-8", "surrogatepass") + data[place.end() :]

    return change


def _values(rng: random.Random) -> Any:
    number = rng.choice((0, -1, 0.5, 1e308, 10**30, 2_000_000_000, 46.0))
    return rng.choice((None, True, number, rng.choice(TEXTS), [], {}, [[]], {"a": None}, [None] * 3))


def _json(data: bytes, rng: random.Random) -> bytes:
    """Replace, remove or wrap one value in a JSON document, or in a line of several."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        lines = data.split(b"\n")
        place = rng.randrange(len(lines))
        try:
            json.loads(lines[place])
        except (ValueError, RecursionError):
            return _replace(_WORD, TEXTS)(data, rng)
        lines[place] = _json(lines[place], rng)
        return b"\n".join(lines)
    spots: list[tuple[Any, Any]] = []
    waiting = [document]
    while waiting and len(spots) < 5000:
        value = waiting.pop()
        inner = (
            list(value.items())
            if isinstance(value, dict)
            else list(enumerate(value))
            if isinstance(value, list)
            else []
        )
        spots += [(value, key) for key, _ in inner]
        waiting += [each for _, each in inner]
    if not spots:
        return json.dumps(_values(rng)).encode()
    holder, key = rng.choice(spots)
    what = rng.randrange(4)
    if what == 0:
        del holder[key]
    elif what == 1 and isinstance(holder, dict):
        holder[rng.choice(TEXTS)] = holder.pop(key)
    elif what == 2:
        for _ in range(rng.choice((1, 200))):
            holder[key] = [holder[key]]
    else:
        holder[key] = _values(rng)
    return json.dumps(document).encode()


def _table(data: bytes, rng: random.Random) -> bytes:
    """Change a column of a Parquet table: its values, its type, its name, or how often it is there."""
    try:
        table = pq.ParquetFile(io.BytesIO(data)).read()
    except Exception:  # what an earlier change broke
        return _integer(data, rng)
    if not table.num_columns:
        return _flip(data, rng)
    place = rng.randrange(table.num_columns)
    name, values = table.column_names[place], table.column(place).to_pylist()
    what = rng.randrange(6)
    if what == 0:
        table = table.drop_columns(name)
    elif what == 1:
        table = table.rename_columns(
            [rng.choice(TEXTS[:3]) if at == place else each for at, each in enumerate(table.column_names)]
        )
    elif what == 2:
        table = rng.choice((table.slice(0, 0), pa.concat_tables([table] * 2), pa.concat_tables([table] * 20)))
    else:
        new: list[Any] = list(values)
        for _ in range(min(3, len(new))):
            old = new[rng.randrange(len(new))]
            choices: tuple[Any, ...] = (None, -1, 0, 2**31 - 1, 10**12, float("nan"), float("inf"), 1e300)
            if isinstance(old, str) or what == 3:
                choices = tuple(text for text in TEXTS if text.isprintable() or text == "\n")
            new[rng.randrange(len(new))] = rng.choice(choices)
        try:
            column = pa.array(new, None if what == 3 else table.column(place).type)
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            column = pa.array([str(value) for value in new])
        table = table.set_column(place, name, column)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def _packed(data: bytes, rng: random.Random) -> bytes:
    """Change what is inside of a gzip or zip file, and pack it again; or let a member grow without end."""
    if data[:2] == b"\x1f\x8b":
        try:
            return gzip.compress(mutate(gzip.decompress(data), rng), 1)
        except (OSError, EOFError, zlib.error):
            return _flip(data, rng)
    if data[:2] != b"PK":
        return _flip(data, rng)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(member, archive.read(member)) for member in archive.infolist()]
    except Exception:
        return _flip(data, rng)
    buffer = io.BytesIO()
    chosen = rng.randrange(len(members)) if members else 0
    with zipfile.ZipFile(buffer, "w") as archive:
        for place, (member, content) in enumerate(members):
            name = member.filename
            if place == chosen and rng.random() < 0.3:
                name = rng.choice(("../../x_000.mp4", "/x_000.mp4", "a_000.mp4", "x.xml", name))
            changed = mutate(content, rng) if place == chosen else content
            archive.writestr(name, changed, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))
    return buffer.getvalue()


def _bomb(data: bytes, rng: random.Random) -> bytes:
    """Pack a hundred megabytes of nothing, where the file is packed."""
    zeros = _zeros()
    if data[:2] == b"\x1f\x8b":
        return data + zeros if rng.random() < 0.5 else zeros
    if data[:2] != b"PK":
        return _flip(data, rng)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(rng.choice(("a_000.mp4", "a_000.xml", "archive/data.pkl")), gzip.decompress(zeros))
    return buffer.getvalue()


_kept: dict[str, bytes] = {}


def _zeros() -> bytes:
    if not _kept:
        _kept["zeros"] = gzip.compress(b"\0" * (100 << 20), 1)
    return _kept["zeros"]


BYTES: tuple[Mutation, ...] = (_flip, _cut, _drop, _repeat, _insert, _integer)
INSIDE: tuple[Mutation, ...] = (_replace(_NUMBER, NUMBERS), _replace(_WORD, TEXTS), _json, _table, _packed)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Return data after one to four changes, drawn from `rng`."""
    if rng.random() < 0.002:
        return _bomb(data, rng)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if data[:4] == b"PAR1":
            kinds: tuple[Mutation, ...] = (*BYTES, _table, _table, _table)
        elif data[:2] in (b"\x1f\x8b", b"PK"):
            kinds = (*BYTES, *[_packed] * len(BYTES))
        elif data[:1] in (b"{", b"["):
            kinds = (*BYTES, *INSIDE[:2], *[_json] * 4)
        else:
            kinds = (*BYTES, *INSIDE[:2], *INSIDE[:2])
        try:
            data = rng.choice(kinds)(data, rng)
        except Exception:  # what an earlier change broke cannot be told apart any more
            data = _flip(data, rng)
        if len(data) > 4 << 20:
            data = data[: 4 << 20]
    return data
