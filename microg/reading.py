"""Reading what strangers wrote: sizes are bounded before memory is taken, and what goes wrong is a `MicrogError`."""

from __future__ import annotations

import functools
import json
import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from microg.errors import FormatError, MicrogError, PointerError, describe
from microg.storage_faults import explain

F = TypeVar("F", bound=Callable[..., Any])

# What a compressed file may grow to: texts and tables shrink to a tenth or so, zeros to a thousandth.
_FREE_BYTES = 64 << 20
_EXPANSION = 100
_BLOCK = 1 << 20
# What Python's zipfile raises for damaged archives, beside `OSError`.
DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, EOFError, ValueError)
_FIX = "it may be damaged, or of another kind than its name says: make or fetch it again"
_POINTER = b"version https://git-lfs.github.com/spec/"
POINTER_BYTES = 1024  # such a file is smaller
SAVE_AS_CSV = "save the sheet as CSV (UTF-8) and give that file"
SPREADSHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers")


def reads(kind: type[MicrogError] = FormatError) -> Callable[[F], F]:
    """Return a decorator for a reader of a file, whose first argument is the file's path or URI.

    Each reader says by itself, with place and fix, what it finds wrong. What a library raises from deep inside for
    bytes that nobody thought of (there is no end of them) becomes an error of `kind` that names the file, and what an
    object store refuses stays what it is.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def guarded(path: Any, *args: Any, **kwargs: Any) -> Any:
            if str(path).lower().endswith(SPREADSHEETS):
                raise kind(f"{path} is a spreadsheet, which is not read", SAVE_AS_CSV)
            try:
                return function(path, *args, **kwargs)
            except PointerError as error:
                raise kind(error.what, error.fix) from error
            except MicrogError:
                refuse_pointer_file(path, kind)
                raise
            except FileNotFoundError as error:
                raise kind(f"{error.filename or path} is not there") from error
            except (OSError, AssertionError):
                raise
            except MemoryError as error:
                raise kind(f"{path} does not fit in memory", "it may be damaged: look at its size") from error
            except Exception as error:
                refuse_pointer_file(path, kind)
                raise (explain(error) or kind(f"{path} cannot be read: {describe(error)}", _FIX)) from error

        return guarded  # type: ignore[return-value]

    return decorate


def refuse_pointer(data: bytes, where: str, kind: type[MicrogError] = PointerError) -> None:
    """Raise an error of `kind` when a file begins as Git's stand-in for a large file (Git LFS) that was not fetched."""
    if data.startswith(_POINTER):
        raise kind(f"{where} is a Git LFS pointer, not the file itself", "run 'git lfs pull' where it came from")


def refuse_pointer_file(path: str | os.PathLike[str], kind: type[MicrogError] = PointerError) -> None:
    """Raise an error of `kind` when there is such a stand-in at a path of this machine."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 (a Path cannot be made of every name)
            head = file.read(len(_POINTER)) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""
    except (OSError, ValueError, TypeError):
        return
    refuse_pointer(head, str(path), kind)


def refuse_pointers_in(folder: str | os.PathLike[str], kind: type[MicrogError]) -> None:
    """Raise an error of `kind` for the first such stand-in in a folder of this machine (a model's, say)."""
    for file in sorted(Path(folder).rglob("*")):
        refuse_pointer_file(file, kind)


def parse_json(text: str | bytes, where: str, **options: Any) -> Any:
    """Return what JSON says; `options` are those of `json.loads`.

    Raises `FormatError` saying `where` for what is not JSON or not UTF-8, nested too deeply, or a number with more
    digits than Python reads.
    """
    try:
        return json.loads(text, **options)
    except RecursionError as error:
        raise FormatError(f"{where} is not valid JSON: it is nested too deeply") from error
    except ValueError as error:
        raise FormatError(f"{where} is not valid JSON: {error}") from error


def _expanded_limit(size: int) -> int:
    """Return to how many bytes real data of `size` bytes may grow when they are unpacked."""
    return max(_FREE_BYTES, _EXPANSION * size)


def gunzip(data: bytes, where: str) -> bytes:
    """Return what gzip packed. Raises `FormatError` for damage, and for more bytes than real data grow to."""
    most = _expanded_limit(len(data))
    parts: list[bytes] = []
    size = 0
    try:
        while data:
            unpacker = zlib.decompressobj(wbits=31)
            while not unpacker.eof:
                part = unpacker.decompress(data, _BLOCK)
                data = unpacker.unconsumed_tail or unpacker.unused_data
                if not part and not unpacker.eof and not data:
                    raise EOFError("it is cut off")
                parts.append(part)
                size += len(part)
                if size > most:
                    raise FormatError(f"{where} unpacks to over {most >> 20} MiB, out of proportion", _FIX)
            data = data.lstrip(b"\0")  # some writers pad
        return b"".join(parts)
    except (zlib.error, EOFError) as error:
        raise FormatError(f"cannot unpack {where}: {error}", "make or fetch it again") from error


def is_mac_leftover(name: str) -> bool:
    """Tell whether a file or member of an archive is what macOS writes beside each file (`._x`, `__MACOSX/`)."""
    parts = name.replace("\\", "/").split("/")
    return "__MACOSX" in parts or parts[-1].startswith("._")


def check_expansion(member: zipfile.ZipInfo, archive: str, kind: type[MicrogError] = FormatError) -> None:
    """Raise an error of `kind` for a member of a zip file that would grow more than real data do."""
    if member.file_size > _expanded_limit(member.compress_size):
        raise kind(
            f"{archive}: member {member.filename!r} of {member.compress_size:,} bytes unpacks to {member.file_size:,}, "
            "out of proportion",
            "do not trust this file",
        )
