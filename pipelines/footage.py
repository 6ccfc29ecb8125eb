"""Finding raw footage: which files of a folder are videos, under which source id, of which origin."""

from __future__ import annotations

from dataclasses import dataclass

from microg import storage
from microg.errors import DatasetError, IdError
from microg.ids import source_ids, split_clip_id
from microg.schema import ORIGINS

_EXTENSIONS = "3g2 3gp asf avi flv m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv ts vob webm wmv y4m"
VIDEO_EXTENSIONS = frozenset(f".{name}" for name in _EXTENSIONS.split())


@dataclass(frozen=True)
class Footage:
    """One raw file. `fingerprint` changes when the file does."""

    source_id: str
    uri: str
    origin: str
    size: int
    fingerprint: str


def list_footage(
    folder: str, *, exclude: str | None = None, default_origin: str = "real"
) -> tuple[list[Footage], list[str]]:
    """Return the videos below `folder`, by source id, and the relative paths of files that are none.

    Videos are told by their extension; hidden files, and everything below `exclude`, are passed over. The origin is
    `movie` or `real` where a folder of that name is in the path. Raises `DatasetError` when the folder is missing or
    holds no video.
    """
    fs, root = storage.filesystem(folder)
    if not fs.exists(root):
        raise DatasetError(f"footage folder {folder} is not there")
    root = root.rstrip("/")
    skipped_below = storage.filesystem(exclude)[1].rstrip("/") + "/" if exclude else None
    found, ignored = {}, []
    if fs.isfile(root):
        root, _, name = root.rpartition("/")
        names = {f"{root}/{name}": fs.info(f"{root}/{name}")}
    else:
        names = fs.find(root, detail=True)
    for path, info in names.items():
        relative = path[len(root) + 1 :]
        if any(part.startswith(".") for part in relative.split("/")):
            continue
        if skipped_below is not None and path.startswith(skipped_below):
            continue
        if "." + path.rsplit(".", 1)[-1].lower() in VIDEO_EXTENSIONS:
            found[relative] = info
        else:
            ignored.append(relative)
    if not found:
        raise DatasetError(
            f"{folder} holds no video", f"files with these extensions are taken: {' '.join(sorted(VIDEO_EXTENSIONS))}"
        )
    ids = source_ids(found)
    prefix = "" if storage.is_local(folder) else str(folder).split("://", 1)[0] + "://"
    footage = [
        Footage(
            source_id=ids[relative],
            uri=f"{prefix}{root}/{relative}",
            origin=_origin(relative, default_origin),
            size=int(info.get("size") or 0),
            fingerprint=f"{info.get('size')}-{info.get('mtime') or info.get('ETag') or info.get('LastModified')}",
        )
        for relative, info in found.items()
    ]
    return sorted(footage, key=lambda item: item.source_id), sorted(ignored)


def clip_identity(source_id: str) -> tuple[str, str, int]:
    """Return (clip_id, source_id, sequence) of a file that is a clip already: its own id, or number 0 of its source."""
    try:
        source, sequence = split_clip_id(source_id)
    except IdError:
        return f"{source_id}_000", source_id, 0
    return source_id, source, sequence


def _origin(relative: str, default: str) -> str:
    folders = [part.lower() for part in relative.split("/")[:-1]]
    return next((origin for origin in ORIGINS if origin in folders), default)
