"""Files on any fsspec filesystem: local paths and `s3://`, `gs://` ... URIs alike.

Writes go to a temporary name first and are then moved, so that a reader never sees half a file.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from microg.errors import DatasetError, MicrogError, PathError, PointerError
from microg.escaping import json_text
from microg.reading import POINTER_BYTES, refuse_pointer
from microg.storage_faults import reading, writing

# Folders do not exist there: s3fs would make a missing bucket instead, such as a misspelt one.
OBJECT_STORES = ("s3://", "s3a://", "gs://", "gcs://", "az://", "abfs://", "abfss://")
_BLOCK_BYTES = 64 * 2**20
# Cells (rows times columns) of a table: so many a byte of its file at most, beyond those that fit any memory.
_FREE_CELLS, _CELLS_A_BYTE = 20_000_000, 20


def is_local(uri: str | os.PathLike[str]) -> bool:
    """Tell whether `uri` is a plain path on this machine's filesystem (or shared mount)."""
    return "://" not in str(uri) or str(uri).startswith("file://")


def local_path(uri: str | os.PathLike[str]) -> Path:
    """Return the local path of a plain path or a `file://` URI; `~` is expanded, as fsspec does."""
    return Path(str(uri).removeprefix("file://")).expanduser()


def absolute(uri: str | os.PathLike[str]) -> str:
    """Return a local path made absolute, or a URI without a trailing slash: what other processes can be told."""
    return str(local_path(uri).absolute()) if is_local(uri) else str(uri).rstrip("/")


def join(root: str | os.PathLike[str], *parts: str) -> str:
    """Join a folder with the names of what is in it, by `/`.

    This is the door for paths that are made from data (ids, origins, names of archive members, listings): the result
    lies below `root`, but for links (`microg.data.places` looks at those).

    Raises:
        PathError: A part is absolute, a URI, climbs (`..`), or holds what no path may hold.

    >>> join("s3://bucket/data/", "videos", "a_000.mp4")
    's3://bucket/data/videos/a_000.mp4'
    """
    result = str(root)
    for part in parts:
        if part.startswith("/") or "::" in part or "://" in part or "\0" in part or ".." in part.split("/"):
            raise PathError(f"{part!r} may not become part of a path below {root}", "names must stay in their folder")
        result = f"{result.rstrip('/')}/{part}"
    return result


def join_local(folder: Path, name: str) -> Path:
    """Join a folder of this machine with the name of what is in it, as `join` does. Raises `PathError`."""
    return Path(join(folder, name))


def filesystem(uri: str | os.PathLike[str]) -> tuple[Any, str]:
    """Return the fsspec filesystem and the path on it.

    Raises `DatasetError` when the package for the URI's scheme is not installed.
    """
    import fsspec.core

    # other processes write to the same folders: a listing that is kept soon tells of files that are gone
    options = {} if is_local(uri) else {"use_listings_cache": False}
    try:
        if str(uri).startswith(("s3://", "s3a://")):
            _retry_server_errors()
        return fsspec.core.url_to_fs(str(uri), **options)
    except (ImportError, ValueError) as error:
        raise DatasetError(
            f"cannot open {uri}: {error}", "for s3:// install microg-bench[s3], for gs:// microg-bench[gcs]"
        ) from error


@cache
def _retry_server_errors() -> None:
    """Have s3fs try again, with growing pauses, after any error of the server, as it does after a lost connection.

    That is on top of botocore's own tries (AWS_MAX_ATTEMPTS, AWS_RETRY_MODE): about half a minute in all.
    """
    from s3fs.core import set_custom_error_handler

    def is_servers(error: Exception) -> bool:
        answer = getattr(error, "response", None) or {}
        return answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500

    set_custom_error_handler(is_servers)


def exists(uri: str | os.PathLike[str]) -> bool:
    """Tell whether a file or folder is there."""
    fs, path = filesystem(uri)
    with reading(uri):
        return bool(fs.exists(path))


def names(uri: str | os.PathLike[str]) -> list[str]:
    """Return the names of what is directly in a folder, sorted; none when it is not there."""
    fs, path = filesystem(uri)
    with reading(uri):
        found = fs.ls(path, detail=False) if fs.exists(path) else []
    return sorted(name.rstrip("/").rsplit("/", 1)[-1] for name in found)


def make_dirs(uri: str | os.PathLike[str]) -> None:
    """Create a folder and its parents (object stores have none: nothing happens there)."""
    if not str(uri).startswith(OBJECT_STORES):
        fs, path = filesystem(uri)
        with writing(uri):
            fs.makedirs(path, exist_ok=True)


def remove(uri: str | os.PathLike[str]) -> None:
    """Delete a file; none there is fine."""
    fs, path = filesystem(uri)
    with writing(uri):
        if fs.exists(path):
            fs.rm_file(path)


def remove_tree(uri: str | os.PathLike[str]) -> None:
    """Delete a folder with all that is in it; none there is fine."""
    fs, path = filesystem(uri)
    with writing(uri):
        if fs.exists(path):
            fs.rm(path, recursive=True)


def read_bytes(uri: str | os.PathLike[str]) -> bytes:
    """Read a whole file. Raises `PointerError` for what Git LFS puts in a file's place."""
    fs, path = filesystem(uri)
    with reading(uri), fs.open(path, "rb") as file:
        data = file.read()
    refuse_pointer(data, str(uri))
    return data


def refuse_pointer_at(uri: str | os.PathLike[str], kind: type[MicrogError] = PointerError) -> None:
    """Raise an error of `kind` when Git LFS left its stand-in at `uri`; to be called where a file cannot be read."""
    fs, path = filesystem(uri)
    try:
        head = fs.cat_file(path, 0, POINTER_BYTES) if fs.isfile(path) else b""
    except Exception:  # the caller knows already that the file cannot be read, and why
        return
    refuse_pointer(head, str(uri), kind)


def write_bytes(uri: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Write a whole file atomically, creating its folder; a failed write leaves nothing behind.

    Raises `WriteError` when the disk or the store does not take it.
    """
    make_dirs(str(uri).rpartition("/")[0])
    fs, path = filesystem(uri)
    if not is_local(uri):
        with writing(uri):
            fs.pipe_file(path, bytes(data))  # a put is atomic on object stores
        return
    target = Path(path)
    temporary = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    with writing(uri), removed_after(temporary):
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)


@contextmanager
def removed_after(temporary: Path) -> Iterator[None]:
    """Remove a temporary file at the end of the block, if it is still there and can be removed."""
    try:
        yield
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_blocks(uri: str | os.PathLike[str], blocks: Iterable[bytes]) -> None:
    """Write a file atomically from blocks, so that none is held whole; a failed write leaves nothing behind."""
    folder = local_path(uri).parent if is_local(uri) else Path(tempfile.gettempdir())
    temporary = folder / f".{uuid.uuid4().hex[:8]}.tmp"
    with removed_after(temporary):
        with writing(uri if is_local(uri) else temporary):
            folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                for block in blocks:
                    file.write(block)
        move_into_place(temporary, uri)


def read_json(uri: str | os.PathLike[str]) -> Any:
    """Read a JSON file; raises `DatasetError` when it is not JSON."""
    try:
        return json.loads(read_bytes(uri))
    except (ValueError, RecursionError) as error:  # also a number with more digits than Python reads
        raise DatasetError(f"{uri} is not valid JSON: {error}") from error


def write_json(uri: str | os.PathLike[str], value: Any) -> None:
    """Write a JSON file atomically."""
    write_bytes(uri, (json_text(value) + "\n").encode())


def read_parquet(uri: str | os.PathLike[str]) -> pa.Table:
    """Read one Parquet file."""
    fs, path = filesystem(uri)
    if is_local(uri) and local_path(uri).exists() and not local_path(uri).is_file():
        raise DatasetError(f"{uri} is no file", "a table is a Parquet file")  # a pipe would block for ever
    try:
        with reading(uri), fs.open(path, "rb") as file:
            # not pq.read_table: it goes through pyarrow.dataset, which imports pandas and whose threads now and then
            # abort the interpreter at its exit ("terminate called without an active exception", pyarrow 26.0.1)
            parquet = pq.ParquetFile(file)
            _check_rows(parquet.metadata, file.seek(0, os.SEEK_END), uri)
            table = parquet.read()
            table.validate(full=True)  # else damaged text becomes an error wherever it is used
            return table
    except (pa.ArrowException, OSError, MemoryError, ValueError) as error:
        refuse_pointer_at(uri)
        raise DatasetError(f"cannot read {uri}: {error}") from error


def _check_rows(metadata: pq.FileMetaData, size: int, uri: str | os.PathLike[str]) -> None:
    """Refuse a table that would take far more memory than the file has bytes: repeated values pack without end."""
    cells = metadata.num_rows * max(metadata.num_columns, 1)
    if cells > max(_FREE_CELLS, _CELLS_A_BYTE * size):
        raise DatasetError(
            f"{uri} claims {metadata.num_rows:,} rows of {metadata.num_columns} columns in {size:,} bytes",
            "it is damaged or made to fill memory: do not trust it",
        )


def write_parquet(uri: str | os.PathLike[str], table: pa.Table) -> None:
    """Write one Parquet file atomically."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_bytes(uri, sink.getvalue().to_pybytes())


def read_parquet_folder(uri: str | os.PathLike[str], schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """Read all committed Parquet files of a folder that many writers append to; a torn file is skipped.

    A killed writer may leave a file without a footer on a disk; on an object store none is torn, and one that cannot
    be read for now is an error. A column that an older file lacks is null. Raises `DatasetError` when a column does
    not fit `schema`.
    """
    if not exists(uri):
        return schema.empty_table().select(columns or schema.names)
    fs, path = filesystem(uri)
    import pyarrow.dataset as pa_dataset  # imports pandas: seconds that most commands need not wait
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    try:
        with reading(uri):
            files = {name: about for name, about in fs.find(path, detail=True).items() if name.endswith(".parquet")}
            for name, about in files.items():
                if about["size"] < POINTER_BYTES:
                    refuse_pointer(fs.cat_file(name), name)
            dataset = pa_dataset.dataset(
                sorted(files),
                schema=schema,
                format="parquet",
                filesystem=PyFileSystem(FSSpecHandler(fs)),
                exclude_invalid_files=is_local(uri),
            )
            table = dataset.to_table(columns=columns)
        table.validate(full=True)
        return table
    except (pa.ArrowException, OSError, MemoryError, ValueError) as error:
        raise DatasetError(f"cannot read the Parquet files of {uri}: {error}") from error


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    fs, plain = filesystem(path)
    with reading(path), fs.open(plain, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_blocks(uri: str | os.PathLike[str]) -> Iterator[bytes]:
    """Yield a file's bytes in order, 64 MiB at a time: what is too large for memory can be copied so."""
    fs, path = filesystem(uri)
    with reading(uri), fs.open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block


def move_into_place(temporary: Path, target: str | os.PathLike[str]) -> None:
    """Move a finished local file to its final name, on this filesystem or an object store."""
    with writing(target):
        if is_local(target):
            path = local_path(target)
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.chmod(0o644)
            temporary.replace(path)
            return
        fs, path = filesystem(target)
        fs.put_file(str(temporary), path)
    temporary.unlink()
