"""Identifiers of sources and clips, and their validation before they become paths."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

from microg.errors import IdError

_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")
_CLIP_ID = re.compile(r"(?P<source>[A-Za-z0-9_-]{1,195})_(?P<sequence>\d{3,6})")


def check_id(value: str, what: str = "id") -> str:
    """Return `value` if it may become part of a path, else raise `IdError`.

    >>> check_id("SE4HsMi3KoU_359")
    'SE4HsMi3KoU_359'
    """
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise IdError(
            f"{what} {value!r} is not allowed",
            "use letters, digits, '_' and '-' only, at most 200 characters",
        )
    return value


def make_clip_id(source_id: str, sequence: int) -> str:
    """Return `{source_id}_{sequence:03d}`.

    >>> make_clip_id("Apollo13", 32)
    'Apollo13_032'
    """
    if sequence < 0:
        raise IdError(f"sequence {sequence} of source {source_id!r} is negative")
    return f"{check_id(source_id, 'source id')}_{sequence:03d}"


def split_clip_id(clip_id: str) -> tuple[str, int]:
    """Return (source_id, sequence); the source id may itself hold `_` and `-`.

    >>> split_clip_id("a_b-c_007")
    ('a_b-c', 7)
    """
    match = _CLIP_ID.fullmatch(clip_id) if isinstance(clip_id, str) else None
    if match is None:
        raise IdError(f"clip id {clip_id!r} is not allowed", "a clip id is {source}_{sequence}, e.g. Apollo13_032")
    return match["source"], int(match["sequence"])


def strip_video_extension(name: str) -> str:
    """Return a published `video_id` without the `.mp4` that some of the published files carry."""
    for extension in (".mp4", ".MP4"):
        if name.endswith(extension):
            return name[: -len(extension)]
    return name


def source_ids(relative_paths: Iterable[str]) -> dict[str, str]:
    """Map each raw file's relative path to a valid, unique source id.

    The id is the file's stem. Accents are folded and every other character outside `[A-Za-z0-9_-]` becomes `_`;
    a stem that had to be changed, or that two files share, gets a suffix from the hash of its relative path, so
    that the id depends on the path alone and never on the order of the listing.

    >>> source_ids(["a/ISS tour.mp4", "Apollo13.mkv"])
    {'Apollo13.mkv': 'Apollo13', 'a/ISS tour.mp4': 'ISS_tour-f6bfba'}
    """
    paths = sorted(set(relative_paths))
    stems = {path: PurePosixPath(path).stem for path in paths}
    shared = Counter(stem.lower() for stem in stems.values())
    result: dict[str, str] = {}
    for path in paths:
        stem = stems[path]
        folded = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
        clean = re.sub(r"[^A-Za-z0-9_-]+", "_", folded).strip("_")[:150] or "video"
        if clean != stem or shared[stem.lower()] > 1:
            clean = f"{clean}-{hashlib.sha1(path.encode(), usedforsecurity=False).hexdigest()[:6]}"
        result[path] = clean
    return result
