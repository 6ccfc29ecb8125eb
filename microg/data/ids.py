"""Identifiers of sources and clips, and their validation before they become paths."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

from microg.errors import FormatError, IdError

_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")
_MAX_SOURCE_LENGTH, _MAX_SEQUENCE = 190, 999_999
# [0-9] and not \d, which also matches the digits of other scripts.
_CLIP_ID = re.compile(rf"(?P<source>[A-Za-z0-9_-]{{1,{_MAX_SOURCE_LENGTH}}})_(?P<sequence>[0-9]{{3,6}})")
_ENDINGS = "3g2 3gp asf avi flv m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv ts vob webm wmv y4m"
VIDEO_EXTENSIONS = tuple(f".{ending}" for ending in _ENDINGS.split())
_VIDEO_ENDING = re.compile(rf"\.({_ENDINGS.replace(' ', '|')})$", re.IGNORECASE)


def check_id(value: str, what: str = "id") -> str:
    """Return `value` if it may become part of a path, else raise `IdError`.

    >>> check_id("SE4HsMi3KoU_359")
    'SE4HsMi3KoU_359'
    """
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise IdError(
            f"{what} {value!r} is not allowed", "use letters, digits, '_' and '-' only, at most 200 characters"
        )
    return value


def make_clip_id(source_id: str, sequence: int) -> str:
    """Return `{source_id}_{sequence:03d}`; `split_clip_id` undoes it.

    >>> make_clip_id("Apollo13", 32)
    'Apollo13_032'
    """
    if not 0 <= sequence <= _MAX_SEQUENCE:
        raise IdError(f"sequence {sequence} of source {source_id!r} is not between 0 and {_MAX_SEQUENCE}")
    if len(check_id(source_id, "source id")) > _MAX_SOURCE_LENGTH:
        raise IdError(f"source id {source_id!r} is longer than {_MAX_SOURCE_LENGTH} characters")
    return f"{source_id}_{sequence:03d}"


def split_clip_id(clip_id: str) -> tuple[str, int]:
    """Return (source_id, sequence); the source id may itself hold `_` and `-`.

    Other zero-padding than ours is understood (`a_0007`), so a clip is named by its id, not by this pair.

    >>> split_clip_id("a_b-c_007")
    ('a_b-c', 7)
    """
    match = _CLIP_ID.fullmatch(clip_id) if isinstance(clip_id, str) else None
    if match is None:
        raise IdError(f"clip id {clip_id!r} is not allowed", "a clip id is {source}_{sequence}, e.g. Apollo13_032")
    return match["source"], int(match["sequence"])


def clip_name(name: str) -> str:
    """Return what a clip's id, file, path or URL calls it: the last part, without a video's ending in any case.

    >>> clip_name(r"D:\\clips\\Apollo13_032.MOV")
    'Apollo13_032'
    """
    return _VIDEO_ENDING.sub("", str(name).strip().replace("\\", "/").rsplit("/", 1)[-1])


def clip_id_of(name: str, where: str) -> str:
    """Return the clip id for what annotations call a clip: an id, or the path or URL of its video.

    Raises `FormatError` saying `where` it stands.
    """
    try:
        split_clip_id(clip_id := clip_name(name))
    except IdError as error:
        raise FormatError(f"{where}: {error.what}", error.fix) from error
    return clip_id


def source_ids(relative_paths: Iterable[str]) -> dict[str, str]:
    """Map each raw file's relative path to a valid, unique source id.

    The id is the file's stem. Accents are folded and every other character outside `[A-Za-z0-9_-]` becomes `_`;
    a stem that had to be changed, or that two files share, gets a suffix from the hash of its relative path. So the
    ids depend on which files there are, never on the order of the listing. Ids differ in more than upper and lower
    case, for filesystems that ignore it. Raises `IdError` should two files still end with one id.

    >>> source_ids(["a/ISS tour.mp4", "Apollo13.mkv"])
    {'Apollo13.mkv': 'Apollo13', 'a/ISS tour.mp4': 'ISS_tour-f6bfba'}
    """
    paths = sorted(set(relative_paths))
    stems = {path: PurePosixPath(path).stem for path in paths}
    shared = Counter(stem.lower() for stem in stems.values())
    result: dict[str, str] = {}
    taken: dict[str, str] = {}
    for path in paths:
        stem = stems[path]
        folded = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
        clean = re.sub(r"[^A-Za-z0-9_-]+", "_", folded).strip("_")[:150] or "video"
        if clean != stem or shared[stem.lower()] > 1:
            # File names need not be valid Unicode: Python keeps stray bytes as surrogates.
            raw = path.encode("utf-8", "surrogatepass")
            clean = f"{clean}-{hashlib.sha1(raw, usedforsecurity=False).hexdigest()[:6]}"
        other = taken.setdefault(clean.lower(), path)
        if other != path:
            raise IdError(f"files {other!r} and {path!r} would both be source {clean!r}", "rename one of them")
        result[path] = clean
    return result
