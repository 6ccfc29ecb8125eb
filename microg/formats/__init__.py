"""Foreign annotation formats: readers and writers, found by name and imported only when used.

Every format module has `read(path, **options) -> FormatResult`, `write(source, path, **options) -> notes` and two
sets, `READ_OPTIONS` and `WRITE_OPTIONS`, with the names of the options it knows. Notes say exactly what was dropped,
could not be expressed, or had to be assumed.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from microg.errors import ConfigError

if TYPE_CHECKING:  # the command line lists the formats without waiting for pyarrow
    import pyarrow as pa

    from microg.data.dataset import Dataset
    from microg.formats.base import FormatResult


@dataclass(frozen=True)
class Format:
    """A registry entry: where the format lives and what a user has to know to choose it."""

    module: str
    summary: str


FORMATS: dict[str, Format] = {
    "microg4m": Format(
        "microg.formats.microg4m", "the published MicroG-4M folder: annotation_files/, parquet_format/, videos/"
    ),
    "ava": Format("microg.formats.ava", "the train-ready AVA folder that PySlowFast reads: annotations/, frame_lists/"),
    "coco": Format("microg.formats.coco", "one JSON file of COCO video boxes (videos, images, tracks, annotations)"),
    "labelstudio": Format("microg.formats.labelstudio", "Label Studio video tasks with pre-annotations (JSON)"),
    "cvat": Format("microg.formats.cvat", "CVAT for video 1.1: one XML file a clip"),
}


def load(name: str) -> ModuleType:
    """Return the module of format `name`. Raises `ConfigError` naming the known ones."""
    if name not in FORMATS:
        raise ConfigError(f"there is no format {name!r}", f"formats are {', '.join(FORMATS)}")
    return importlib.import_module(FORMATS[name].module)


def read(name: str, path: str, **options: Any) -> FormatResult:
    """Read `path` as format `name`. An option that the format does not know raises `ConfigError`."""
    module = load(name)
    _check_options(name, "import", options, module.READ_OPTIONS)
    return module.read(path, **options)


def write(name: str, source: Dataset | Mapping[str, pa.Table], path: str, **options: Any) -> list[str]:
    """Write `source` as format `name` under `path` and return the notes."""
    module = load(name)
    _check_options(name, "export", options, module.WRITE_OPTIONS)
    return module.write(source, path, **options)


def _check_options(name: str, verb: str, options: Mapping[str, Any], known: frozenset[str]) -> None:
    for option in options:
        if option not in known:
            flags = ", ".join("--" + flag.replace("_", "-") for flag in sorted(known)) or "none"
            raise ConfigError(
                f"--{option.replace('_', '-')} does nothing when you {verb} {name!r}", f"its own options: {flags}"
            )
