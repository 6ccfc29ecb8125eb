"""What a module must have to be a dataset format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

from microg.data.schema import TABLES
from microg.errors import ConfigError
from microg.formats.base import FormatResult


class Format(Protocol):
    """A dataset format: a module, or any object, with these three names.

    Attributes:
        TABLES: The tables, beside `clips`, that the format can hold. On export each other table that has rows gets a
            note that it was not written.
        read: `read(path, *, ...) -> FormatResult`: the annotations at `path`. Videos are looked for by the caller,
            unless it takes `videos` and `dataset_root` and returns `FormatResult.videos`.
        write: `write(annotations, path, *, ...) -> notes`: writes `microg.formats.base.Annotations` under `path`.

    Keyword-only parameters of `read` and `write` are the options of the format.
    """

    TABLES: frozenset[str]

    @property
    def read(self) -> Callable[..., FormatResult]: ...

    @property
    def write(self) -> Callable[..., list[str]]: ...


def check_format(name: str, found: Any) -> Format:
    """Return `found` when it is a format.

    Raises:
        ConfigError: It lacks one of the three names, or `TABLES` holds a name that is no table of a dataset.
    """
    needed = "a format is a module with TABLES, read(path, *, ...) and write(annotations, path, *, ...)"
    for attribute in ("TABLES", "read", "write"):
        value = getattr(found, attribute, None)
        if value is None or (attribute != "TABLES" and not callable(value)):
            raise ConfigError(f"{name} is no dataset format: it has no {attribute}", needed)
    unknown = sorted(set(found.TABLES) - set(TABLES))
    if unknown:
        raise ConfigError(f"format {name}: there is no table {unknown[0]!r}", f"tables are {', '.join(TABLES)}")
    return cast("Format", found)
