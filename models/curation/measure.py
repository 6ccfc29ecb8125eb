"""What a curation can measure of every clip: the contract of a measure.

A measure is a stage of the observation. It sees each frame of a clip once, adds columns to the clip's row in table
`observations`, and may decide from them, now or in a later `--refilter`, whether the clip is kept.
`microg.models.curation.registry` lists the measures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from microg.config import Config
from microg.errors import StageError


class Meter(Protocol):
    """Measures one clip while its frames stream by."""

    def update(self, frame: np.ndarray) -> None:
        """Take the next frame, (H, W, 3) uint8 BGR."""
        ...

    def columns(self) -> dict[str, Any]:
        """Return the values of the measure's columns, once all frames were taken."""
        ...


class Decision(NamedTuple):
    """Whether a clip is kept, why, and by which score against which threshold."""

    keep: bool
    reason: str
    score: float | None = None
    threshold: float | None = None


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One measure.

    Attributes:
        name: Names its clock (column `{name}_s`) and its rows in table `decisions`.
        columns: What it adds to a clip's row.
        meter: Makes a meter for a clip that should hold so many frames.
        thresholds: Settings of its decision; their keys stand beside all others under `filter`.
        decide: Takes a clip's row and those settings; None where the measure decides nothing.
    """

    name: str
    columns: pa.Schema
    meter: Callable[[int], Meter]
    thresholds: type[Config] | None = None
    decide: Callable[[Mapping[str, Any], Any], Decision] | None = None

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise StageError(f"a measure cannot be called {self.name!r}", "one lower-case word, for example 'blur'")
        if not isinstance(self.columns, pa.Schema) or not len(self.columns):
            raise StageError(f"measure {self.name!r} does not say which columns it adds", "give a pyarrow schema")
        if (self.thresholds is None) != (self.decide is None):
            raise StageError(f"measure {self.name!r} has thresholds or a decision, not both", "give both or neither")
