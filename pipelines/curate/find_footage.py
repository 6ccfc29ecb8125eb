"""Finding raw footage: which files of a folder are videos, under which source id, of which origin."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from microg import storage
from microg.data.ids import VIDEO_EXTENSIONS, make_clip_id, source_ids, split_clip_id
from microg.data.schema import ORIGINS
from microg.errors import DatasetError, IdError


@dataclass(frozen=True)
class Footage:
    """One raw file. `fingerprint` changes when the file does."""

    source_id: str
    uri: str
    origin: str
    size: int
    fingerprint: str


def list_footage(
    folder: str, *, exclude: str | None = None, default_origin: str = "real", known: Mapping[str, str] | None = None
) -> tuple[list[Footage], list[str]]:
    """Return the videos below `folder`, by source id, and the relative paths of files that are none.

    Videos are told by their extension; hidden files, and everything below `exclude`, are passed over. The origin is
    `movie` or `real` where a folder of that name is in the path. A file whose uri is in `known` keeps the source id it
    has there, whatever other files came since. Raises `DatasetError` when the folder is missing, cannot be listed or
    holds no video, and `IdError` when two files would share an id.
    """
    fs, root = storage.filesystem(folder)
    if not fs.exists(root):
        raise DatasetError(f"footage folder {folder} is not there")
    root = root.rstrip("/")
    local = storage.is_local(folder)
    prefix = "" if local else str(folder).split("://", 1)[0] + "://"
    skipped_below = storage.filesystem(exclude)[1].rstrip("/") + "/" if exclude else None
    if skipped_below is not None and f"{root}/".startswith((f"{skipped_below}videos/", f"{skipped_below}previews/")):
        raise DatasetError(f"the footage folder {folder} is where {exclude} keeps its own videos")
    if skipped_below == f"{root}/":
        raise DatasetError(f"{folder} cannot be both footage and dataset", "name another folder for the dataset")
    if fs.isfile(root):
        entries = {root: fs.info(root)}
        root = root.rpartition("/")[0]
    else:
        entries = dict.fromkeys(_local_entries(root)) if local else fs.find(root, detail=True)
    found: dict[str, tuple[int, str]] = {}
    ignored: list[str] = []
    for path, info in entries.items():
        relative = path[len(root) + 1 :]
        if any(part.startswith(".") for part in relative.split("/")):
            continue
        if skipped_below is not None and skipped_below.startswith(f"{root}/") and path.startswith(skipped_below):
            continue
        state = _local_state(path) if local else _remote_state(info or {})
        if state is not None and "." + path.rsplit(".", 1)[-1].lower() in VIDEO_EXTENSIONS:
            found[relative] = state
        else:
            ignored.append(relative)
    if not found:
        raise DatasetError(
            f"{folder} holds no video", f"files with these extensions are taken: {' '.join(sorted(VIDEO_EXTENSIONS))}"
        )
    ids = source_ids(found)
    footage: dict[str, Footage] = {}
    for relative, (size, fingerprint) in found.items():
        uri = f"{prefix}{root}/{relative}"
        item = Footage((known or {}).get(uri, ids[relative]), uri, _origin(relative, default_origin), size, fingerprint)
        other = footage.setdefault(item.source_id.lower(), item)
        if other is not item:
            raise IdError(f"{other.uri} and {uri} would both be source {item.source_id!r}", "rename one of them")
    return sorted(footage.values(), key=lambda item: item.source_id), sorted(ignored)


def _local_entries(root: str) -> Iterator[str]:
    """Yield all files below `root`, and links to folders, which are not followed: they may lead in circles.

    fsspec's own listing passes silently over a folder that it may not read.
    """
    for folder, folders, names in os.walk(root, onerror=_refuse):
        links = [name for name in folders if storage.local_path(folder).joinpath(name).is_symlink()]
        yield from (f"{folder}/{name}" for name in [*names, *links])


def _refuse(error: OSError) -> None:
    raise DatasetError(f"a folder of footage cannot be listed: {error}", "make it readable, or move it away") from error


def _local_state(path: str) -> tuple[int, str] | None:
    """Return size and fingerprint, of what a link points at; None for what is no file (a pipe would block a reader)."""
    try:
        found = storage.local_path(path).stat()
    except OSError as error:
        return 0, f"unreachable: {type(error).__name__}"  # becomes an error row when it is opened
    return (found.st_size, f"{found.st_size}-{found.st_mtime_ns}") if stat.S_ISREG(found.st_mode) else None


def _remote_state(info: Mapping[str, Any]) -> tuple[int, str]:
    names = ("ETag", "etag", "mtime", "LastModified", "created")
    version = next((info[name] for name in names if info.get(name)), None)
    return int(info.get("size") or 0), f"{info.get('size')}-{version}"


def check_clip_ids(footage: list[Footage]) -> None:
    """Raise `IdError` when two files that are clips already would be the same clip (`a.mp4` is `a_000`)."""
    seen: dict[str, Footage] = {}
    for item in footage:
        other = seen.setdefault(clip_identity(item.source_id)[0].lower(), item)
        if other is not item:
            raise IdError(f"{other.uri} and {item.uri} would both be the same clip", "rename one of them")


def clip_identity(source_id: str) -> tuple[str, str, int]:
    """Return (clip_id, source_id, sequence) of a file that is a clip already: its own id, or number 0 of its source."""
    try:
        source, sequence = split_clip_id(source_id)
    except IdError:
        return make_clip_id(source_id, 0), source_id, 0
    return source_id, source, sequence


def _origin(relative: str, default: str) -> str:
    folders = [part.lower() for part in relative.split("/")[:-1]]
    return next((origin for origin in ORIGINS if origin in folders), default)
