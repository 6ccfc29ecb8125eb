"""Boards of a leaderboard: their rows, and how each row stands to the best one on the same bootstrap resamples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from microg.arrow import pc
from microg.metrics.bootstrap import Distribution
from microg.reports.run_folders import RunFolder
from microg.reports.tables.result_table import Cell, Origin

PUBLISHED_DATA = "published"


class Difference(NamedTuple):
    """How one score stands to another: the difference and its 95% interval, in the unit of the scores."""

    difference: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Against:
    """The difference of a row to the best run called `best`, with its 95% interval, in percent."""

    difference: float
    low: float
    high: float
    best: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of a board: a system under a protocol on some data.

    Attributes:
        data: A key of the data: only rows that share it are ranked together.
        data_title: The data in words.
        cells: Scores by column.
        run: The run; empty for published rows and baselines.
        rank: The place among the rows of the same data and protocol, from 1.
        against: How the row stands to the best run; None where resamples are not paired.
        is_best: Whether it is the best of several runs.
    """

    name: str
    origin: Origin
    protocol: str
    data: str
    data_title: str
    cells: dict[str, Cell]
    run: str = ""
    about: str = ""
    note: str = ""
    rank: int = 0
    against: Against | None = None
    is_best: bool = False


@dataclass(frozen=True, kw_only=True)
class Board:
    """One board of a leaderboard.

    Attributes:
        key: The anchor of its section.
        columns: Titles of the columns by key.
        main: The column that ranks.
        protocols: Protocols in the order of the page.
        entries: Makes the rows of these runs, all of one kind, and the published rows; none where no run has a place.
        resamples: Reads the bootstrap of a run's main score under a protocol, None where there is none.
        compare: Compares two paired bootstraps, given the two scores.
    """

    key: str
    title: str
    columns: Mapping[str, str]
    main: str
    protocols: tuple[str, ...]
    entries: Callable[[Sequence[RunFolder]], list[Entry]]
    resamples: Callable[[RunFolder, str], Distribution | None]
    compare: Callable[[Distribution, Distribution, tuple[float, float]], Difference]

    def score(self, entry: Entry) -> float | None:
        """Return the score that ranks a row, in percent."""
        cell = entry.cells.get(self.main)
        return None if cell is None else cell.value

    def ranked(self, runs: Sequence[RunFolder]) -> list[Entry]:
        """Return the rows of these runs with `against` and `is_best` set."""
        rows = self.entries(runs)
        by_name = {run.name: run for run in runs}
        resamples = {
            (row.run, row.protocol): self.resamples(by_name[row.run], row.protocol)
            for row in rows
            if row.run and self.score(row) is not None
        }
        result = []
        for row in rows:
            group = (row.data, row.protocol)
            rivals = [one for one in rows if (one.run, one.protocol) in resamples and (one.data, one.protocol) == group]
            best = max(rivals, key=lambda one: (self.score(one), one.name), default=None)
            against = None if best is None else self._against(row, best, resamples)
            result.append(replace(row, against=against, is_best=best is row and len(rivals) > 1))
        return result

    def _against(
        self, row: Entry, best: Entry, resamples: Mapping[tuple[str, str], Distribution | None]
    ) -> Against | None:
        value, top = self.score(row), self.score(best)
        first, second = resamples.get((row.run, row.protocol)), resamples.get((best.run, best.protocol))
        if value is None or top is None or row.run == best.run or first is None or second is None:
            return None
        if first.drawn_from != second.drawn_from:
            return None
        difference, low, high = (100 * part for part in self.compare(first, second, (value / 100, top / 100)))
        if np.isnan([difference, low, high]).any():
            return None
        return Against(difference=difference, low=low, high=high, best=best.name)


def read_resamples(run: RunFolder, table: str, metric: str, **where: str) -> Distribution | None:
    """Return the resampled values of a metric in the rows of a table that `where` names, None where there are none."""
    if not run.has(table):
        return None
    rows = run.table(table)
    for column, value in {**where, "metric": metric}.items():
        rows = rows.filter(pc.equal(rows[column], value))
    if not rows.num_rows:
        return None
    values = rows.sort_by("resample")["value"].to_numpy()
    return Distribution("clip", 0, 0, str(rows["drawn_from"][0].as_py()), {metric: values})
