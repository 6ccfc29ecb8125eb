"""What became of every tensor when weights were loaded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

SHOWN = 8
HEAD = "detection_head."


@dataclass(frozen=True)
class Mismatch:
    """A tensor that the file has in another shape."""

    name: str
    file_shape: tuple[int, ...]
    model_shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} (file {_shape(self.file_shape)}, model {_shape(self.model_shape)})"


@dataclass(frozen=True)
class LoadReport:
    """Which tensors of a model came from a file; names are the model's, `unexpected` and `head_unused` the file's.

    `layout` is the naming that fitted the file. `filled` were absent and set to identity, as the model they come from
    computes; `missing` and `mismatched` are outside the head and were left as initialised, which `allowed` patterns
    accepted; `head` tells whether the classification head was loaded, and if not why.
    """

    path: str
    container: str
    layout: str
    model: str
    loaded: tuple[str, ...]
    filled: tuple[str, ...]
    missing: tuple[str, ...]
    mismatched: tuple[Mismatch, ...]
    unexpected: tuple[str, ...]
    head_loaded: bool
    head: str
    head_unused: tuple[str, ...]
    allowed: tuple[str, ...]

    @property
    def not_loaded(self) -> tuple[str, ...]:
        """The model's tensors outside the head that were left as initialised."""
        return (*self.missing, *(mismatch.name for mismatch in self.mismatched))

    @property
    def complete(self) -> bool:
        """Whether everything, the head included, came from the file."""
        return self.head_loaded and not self.not_loaded

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values, for run.json and `--json`."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"{self.model}: {len(self.loaded)} tensors loaded from {self.path} ({self.container}, {self.layout} names)",
            f"  head: {self.head}",
        ]
        groups: list[tuple[str, Sequence[object]]] = [
            ("filled as identity", self.filled),
            ("left as initialised, missing in the file", self.missing),
            ("left as initialised, of another shape", self.mismatched),
            ("in the file but not in the model", self.unexpected),
        ]
        lines += [f"  {title}: {len(items)}: {listed(items)}" for title, items in groups if items]
        return "\n".join(lines)


def listed(items: Sequence[object]) -> str:
    """Return the first few items and how many more there are."""
    text = ", ".join(str(item) for item in items[:SHOWN])
    return text + (f" and {len(items) - SHOWN} more" if len(items) > SHOWN else "")


def is_allowed(names: Iterable[str], patterns: Iterable[str]) -> bool:
    """Tell whether one of a tensor's names fits one of the shell-style patterns."""
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def patterns_for(names: Sequence[str]) -> list[str]:
    """Return few patterns that fit all `names`: the numbers of blocks become `*`, then whole endings do.

    >>> patterns_for(["model.blocks.1.norm.weight", "model.blocks.3.norm.weight"])
    ['model.blocks.*.norm.weight']
    """
    general = [re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in names]
    for depth in range(max((name.count(".") for name in general), default=0), 0, -1):
        patterns = sorted({_cut(name, depth) for name in general})
        if len(patterns) <= 4:
            return patterns
    return sorted({name.split(".")[0] + "*" for name in general})


def _cut(name: str, depth: int) -> str:
    parts = name.split(".")
    return name if len(parts) <= depth + 1 else ".".join([*parts[:depth], "*"])


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"
