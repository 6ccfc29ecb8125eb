"""Who said what of which unit: the matrix that coefficients of agreement are computed from."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from microg.annotations.rows import DATASET, Annotation, Item, Kind
from microg.annotations.table import current

# Stands for an annotator who said nothing of a unit, or could not tell.
MISSING = -1


@dataclass(frozen=True)
class Ratings:
    """What annotators said of units that two or more of them judged.

    Attributes:
        annotators: Their names, sorted.
        units: What was judged, sorted.
        codes: Place of what each said in `values` (annotators, units) int64, `MISSING` where they said nothing.
        values: The distinct things that were said.
    """

    annotators: tuple[str, ...]
    units: tuple[Item, ...]
    codes: np.ndarray
    values: tuple[Any, ...]

    @classmethod
    def of(cls, said: Mapping[Item, Mapping[str, Hashable]]) -> Ratings:
        """Build ratings from what each annotator said of each unit; units that one judged are left out."""
        units = tuple(sorted((unit for unit, by in said.items() if len(by) > 1), key=_order))
        annotators = tuple(sorted({name for unit in units for name in said[unit]}))
        values = tuple(sorted({value for unit in units for value in said[unit].values()}, key=repr))
        place = {value: number for number, value in enumerate(values)}
        row = {name: number for number, name in enumerate(annotators)}
        codes = np.full((len(annotators), len(units)), MISSING, dtype=np.int64)
        for column, unit in enumerate(units):
            for name, value in said[unit].items():
                codes[row[name], column] = place[value]
        return cls(annotators, units, codes, values)

    @property
    def clips(self) -> np.ndarray:
        """The clip of each unit (units,), as its place among the sorted clips."""
        names = [unit.clip_id for unit in self.units]
        return np.unique(names, return_inverse=True)[1].reshape(-1) if names else np.zeros(0, dtype=np.int64)

    def recoded(self, say: Callable[[Any], Hashable]) -> Ratings:
        """Return the ratings with each value replaced by what `say` makes of it; None is `MISSING`."""
        made = [say(value) for value in self.values]
        values = tuple(sorted({value for value in made if value is not None}, key=repr))
        place = {value: number for number, value in enumerate(values)}
        table = np.array([*(MISSING if value is None else place[value] for value in made), MISSING], dtype=np.int64)
        return Ratings(self.annotators, self.units, table[self.codes], values)

    def only(self, annotators: Sequence[str]) -> Ratings:
        """Return what some of the annotators said, on all units."""
        rows = [self.annotators.index(name) for name in annotators]
        return Ratings(tuple(annotators), self.units, self.codes[rows], self.values)

    def counts(self) -> np.ndarray:
        """Return how many annotators said each value of each unit (units, values) int64."""
        table = np.zeros((len(self.units), len(self.values)), dtype=np.int64)
        _, column = said = np.nonzero(self.codes != MISSING)
        np.add.at(table, (column, self.codes[said]), 1)
        return table


def standing(
    annotations: Iterable[Annotation], kind: Kind, annotators: Iterable[str] = (), models: bool = False
) -> tuple[list[Annotation], list[Annotation]]:
    """Return the judgements of a kind that stand, and those that decided what others said.

    Args:
        annotations: All judgements.
        kind: Which kind.
        annotators: Only of these, where any are named; what the dataset held before counts only when it is named.
        models: Whether models' proposals count as annotators' judgements. Those that are named do anyway.
    """
    wanted = set(annotators)
    mine = [each for each in current(annotations) if each.kind == kind]
    decided = [each for each in mine if each.adjudicated]
    votes = [
        each
        for each in mine
        if not each.adjudicated
        and (each.annotator in wanted if wanted else each.annotator != DATASET and (models or each.source != "model"))
    ]
    return votes, decided


def by_unit(
    annotations: Iterable[Annotation], say: Callable[[Annotation], Hashable]
) -> dict[Item, dict[str, Hashable]]:
    """Return what each annotator said of each unit; `say` makes it comparable, None where it says nothing."""
    said: dict[Item, dict[str, Hashable]] = {}
    for each in annotations:
        value = say(each)
        if value is not None:
            said.setdefault(each.about, {})[each.annotator] = value
    return said


def _order(unit: Item) -> tuple[str, int, int]:
    return unit.clip_id, -1 if unit.person_id is None else unit.person_id, -1 if unit.index is None else unit.index
