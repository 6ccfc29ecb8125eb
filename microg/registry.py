"""Registries: the only list of the things of one kind (engines, metrics, formats ...), by name and imported lazily."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Generic, TypeVar

from microg.errors import ConfigError

Entry = TypeVar("Entry")


class Registry(dict[str, Entry], Generic[Entry]):
    """Entries by name, in the order of the listing: import strings, or small records that may hold some.

    Adding a thing is its module and one line here. A user's own needs no line: the name `module:object` stands for
    what lies there, which is the thing itself where entries are import strings, else a record like the entries.

    Args:
        noun: What one entry is called in messages, as "text metric".
        entries: Import strings (`module:object`) or records by name.

    >>> codecs = Registry("codec", {"json": "json:dumps"})
    >>> codecs.load("json")([1]), codecs.load("json:loads")("[2]")
    ('[1]', [2])
    """

    def __init__(self, noun: str, entries: Mapping[str, Entry]) -> None:
        super().__init__(entries)
        self.noun = noun

    def find(self, name: str) -> Entry:
        """Return the entry called `name`.

        Raises:
            ConfigError: There is none; names those there are, and the one that is spelled like it.
        """
        if name in self:
            return self[name]
        if ":" in name:
            place: Any = name
            return place if self._holds_import_strings() else load_object(name)
        lower = {known.lower(): known for known in self}
        near = [lower[match] for match in difflib.get_close_matches(name.lower(), lower, n=1)]
        raise ConfigError(
            f"there is no {self.noun} {name!r}" + (f", did you mean {near[0]!r}?" if near else ""),
            f"{self.noun}s are {', '.join(self)}; or module:object of your own",
        )

    def load(self, name: str) -> Any:
        """Return the entry called `name`, imported where it is an import string. Raises `ConfigError`."""
        entry = self.find(name)
        return load_object(entry) if isinstance(entry, str) else entry

    def _holds_import_strings(self) -> bool:
        return all(isinstance(entry, str) for entry in self.values())


def load_object(place: str) -> Any:
    """Import what `module:object` names.

    Raises:
        ConfigError: The module or the object is not there. An error inside the module itself passes through.

    >>> load_object("math:sqrt")(4)
    2.0
    """
    module, _, name = place.partition(":")
    if not module or not name:
        raise ConfigError(f"{place!r} names no object of a module", "the form is module:object")
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(
            f"{place}: there is no module {error.name!r}", "install it, or put its folder on PYTHONPATH"
        ) from error
    if not hasattr(found, name):
        raise ConfigError(f"{place}: the module {module} has no {name!r}")
    return getattr(found, name)
