"""Annotation formats of others, found by name and imported only when used.

A format is a module that has what `microg.formats.base.Format` says, and a line in `FORMATS`. Notes say exactly
what was dropped, could not be expressed, or had to be assumed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from microg.errors import ConfigError, FormatError
from microg.registry import Registry

if TYPE_CHECKING:  # the command line lists the formats without waiting for pyarrow
    import pyarrow as pa

    from microg.data.dataset import Dataset
    from microg.data.vocabulary import Vocabulary
    from microg.formats.base import Format, FormatResult


@dataclass(frozen=True)
class FormatEntry:
    """A registry entry: the module that is the format, and what a user has to know to choose it."""

    module: str
    summary: str


FORMATS = Registry(
    "dataset format",
    {
        "microg4m": FormatEntry(
            "microg.formats.microg4m", "the published MicroG-4M folder: annotation_files/, parquet_format/, videos/"
        ),
        "ava": FormatEntry(
            "microg.formats.ava", "the train-ready AVA folder that PySlowFast reads: annotations/, frame_lists/"
        ),
        "coco": FormatEntry(
            "microg.formats.coco", "one JSON file of COCO video boxes (videos, images, tracks, annotations)"
        ),
        "labelstudio": FormatEntry(
            "microg.formats.labelstudio", "Label Studio video tasks with pre-annotations (JSON)"
        ),
        "cvat": FormatEntry("microg.formats.cvat", "CVAT for video 1.1: one XML file a clip"),
        "jhmdb": FormatEntry(
            "microg.formats.jhmdb", "JHMDB's folder, for import only: splits/, puppet_mask/, ReCompress_Videos/"
        ),
    },
)


def load(name: str) -> Format:
    """Return a format by name, or by `module:object`.

    Raises:
        ConfigError: There is none of this name, or it lacks something that a format must have.
    """
    from microg.formats.base import check_format

    entry = FORMATS.find(name)
    return check_format(name, import_module(entry.module) if isinstance(entry, FormatEntry) else entry)


def read(
    name: str,
    path: str,
    *,
    videos: str | None = None,
    dataset_root: str | None = None,
    copy_videos: bool = False,
    existing: pa.Table | None = None,
    held: Mapping[str, pa.Table] | None = None,
    vocabulary: Vocabulary | None = None,
    **options: Any,
) -> FormatResult:
    """Read annotations of a format, and the metadata of the clips' videos.

    Args:
        name: The format.
        path: The folder or file.
        videos: A folder with videos that are named by clip ids.
        dataset_root: Where the dataset will be: videos inside it get relative paths.
        copy_videos: Whether to copy other videos into it.
        existing: Table `clips` of the dataset that the annotations will be merged into.
        held: Its tables `boxes`, `qa` and `annotations`, by name, by which people and questions are recognised.
        vocabulary: The actions that labels may be; without it the format's own, or MicroG-4M's.
        options: Options of the format.

    Raises:
        ConfigError: The format does not know an option.
        FormatError: The annotations cannot be read, or do not fit their clips.
    """
    from microg.formats.known_clips import KnownClips, check_judgements, check_places, known_content
    from microg.formats.video_files import find_videos, video_columns, with_metadata
    from microg.reading import reads

    function = load(name).read
    _check_options(name, "import", options, function, {"videos", "copy_videos"})
    accepted = _options(function)
    found = find_videos(videos) if videos and "videos" not in accepted else {}
    read_video = cache(video_columns)
    rows = {row["clip_id"]: row for row in existing.to_pylist()} if existing is not None else {}
    known = KnownClips(found, rows, read_video, known_content(held or {}))
    own = {"videos": videos, "dataset_root": dataset_root, "known": known}  # for formats that want to know
    own |= {} if vocabulary is None else {"vocabulary": vocabulary}
    options |= {option: value for option, value in own.items() if option in accepted}
    result = reads(FormatError)(function)(path, **options)
    found = found if result.videos is None else result.videos
    clips, notes = with_metadata(
        result.tables["clips"], found, dataset_root=dataset_root, copy=copy_videos, read_video=read_video
    )
    tables = {**result.tables, "clips": clips}
    if vocabulary is not None:
        _check_actions(tables, vocabulary, result.label_space, path)
    check_places(tables, result.files, path, known)
    check_judgements(result.annotations, tables, result.files, path, known)
    return replace(result, tables=tables, notes=[*result.notes, *notes])


def write(name: str, source: Dataset | Mapping[str, pa.Table], path: str, **options: Any) -> list[str]:
    """Write a dataset, or plain tables, in a format under `path` and return the notes.

    Actions of a dataset's own go into `vocabulary.yaml` beside the files, with which they can be imported again.

    Raises:
        ConfigError: The format does not know an option.
    """
    from microg.formats.base import collect, dropped, write_vocabulary

    found = load(name)
    _check_options(name, "export", options, found.write)
    annotations, notes = collect(source)
    notes += [*dropped(annotations, found.TABLES, name), *found.write(annotations, path, **options)]
    if annotations.vocabulary.name != "microg50" and {"actions", "samples"} & found.TABLES:
        notes.append(write_vocabulary(annotations.vocabulary, path))
    return notes


def _check_actions(tables: Mapping[str, pa.Table], vocabulary: Vocabulary, numbered_by: str | None, path: str) -> None:
    """Raise `FormatError` for labels that are not in the vocabulary, or are numbered by another set of actions."""
    from collections import Counter

    if numbered_by is not None and numbered_by != vocabulary.name:
        raise FormatError(
            f"{path} is labelled with {numbered_by}, not with {vocabulary.name}", "import it into a dataset of its own"
        )
    for name in ("actions", "samples"):
        if name in tables:
            unknown = Counter(tables[name]["action_id"].drop_null().to_pylist())
            unknown = {action: count for action, count in unknown.items() if action not in vocabulary.by_id}
            if unknown:
                listed = ", ".join(f"{action} ({count} labels)" for action, count in sorted(unknown.items())[:5])
                raise FormatError(
                    f"{path}: action ids that are not in the vocabulary {vocabulary.name!r}: {listed}",
                    "add them to the file of --vocabulary, or to the dataset with 'microg data vocabulary set'",
                )


def _options(function: Callable[..., Any]) -> set[str]:
    """Return the options of a format's `read` or `write`: its keyword-only parameters."""
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def _check_options(
    name: str,
    verb: str,
    options: Mapping[str, Any],
    function: Callable[..., Any],
    common: AbstractSet[str] = frozenset(),
) -> None:
    known = (_options(function) - {"dataset_root", "known", "vocabulary"}) | common
    for option in options:
        if option not in known:
            flags = ", ".join("--" + flag.replace("_", "-") for flag in sorted(known)) or "none"
            raise ConfigError(
                f"--{option.replace('_', '-')} does nothing when you {verb} {name!r}", f"its own options: {flags}"
            )
