"""A hard cap on money: what a request may cost is set aside before it is sent.

With a journal the account survives its process: what was set aside and never settled counts as spent.
"""

from __future__ import annotations

import math
import sqlite3
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from microg.errors import ConfigError, describe
from microg.reading import refuse_pointer_file
from microg.storage_faults import writing

_NANO = 1_000_000_000


class Budget:
    """Dollars spent, set aside, and the most that may ever be. Amounts are kept in whole billionths of a dollar.

    `cap` None only counts. `spent` is what earlier runs cost at least: a journal that knows of less is told, and may
    know of more. Should a request ever cost more than was set aside for it, the same factor is added to all later ones.
    Raises `ConfigError` when the journal cannot be used.
    """

    def __init__(self, cap: float | None = None, spent: float = 0.0, journal: str | Path | None = None) -> None:
        self._cap = None if cap is None else math.floor(cap * _NANO)
        self._spent = _nano(spent)
        self._held: dict[int, int] = {}
        self._next = 0
        self._overrun = 1.0
        self._path = None if journal is None else Path(journal)
        self._journal = None if self._path is None else _open(self._path)
        if self._journal is not None:
            query = "SELECT COALESCE(SUM(COALESCE(actual, held)), 0), COALESCE(MAX(id), -1) FROM c"
            try:
                known, last = map(int, self._journal.execute(query).fetchone())
            except (sqlite3.DatabaseError, UnicodeDecodeError, TypeError, ValueError, OverflowError) as error:
                self._journal.close()
                raise ConfigError(
                    f"the account of costs {journal} is damaged: {describe(error)}",
                    "put back a copy, or delete it: what was spent until now is then not counted",
                ) from error
            self._next = last + 1
            if self._spent > known:  # spent where this journal was not
                self._record("INSERT INTO c VALUES (?, 0, ?)", (self._next, self._spent - known))
                self._next += 1
            self._spent = max(self._spent, known)

    @property
    def spent(self) -> float:
        """Dollars spent, without what is set aside."""
        return self._spent / _NANO

    @property
    def held(self) -> float:
        """Dollars set aside for requests under way."""
        return sum(self._held.values()) / _NANO

    def check(self, cost: float) -> Literal["yes", "later", "never"]:
        """Tell whether `cost` fits under the cap now, may fit when requests under way cost less, or never can."""
        if self._cap is None:
            return "yes"
        wanted = self._spent + self._bound(cost)
        if wanted > self._cap:
            return "never"
        return "yes" if wanted + sum(self._held.values()) <= self._cap else "later"

    def hold(self, cost: float) -> int:
        """Set `cost` aside; returns a number for `settle`. Call it only when `check` says yes."""
        if self.check(cost) != "yes":
            raise ValueError("this does not fit under the cap")
        number, self._next = self._next, self._next + 1
        self._held[number] = self._bound(cost)
        self._record("INSERT INTO c (id, held) VALUES (?, ?)", (number, self._held[number]))
        return number

    def settle(self, number: int, actual: float | None) -> float:
        """Replace what was set aside by what it cost, and return that; None where nobody knows: then all of it.

        With a journal, `number` may be of an earlier process.
        """
        held = self._held.pop(number, None)
        if held is None:
            held = self._of_earlier(number)
            self._spent -= held
        cost = held if actual is None else _nano(actual)
        if held and cost > held:
            self._overrun = max(self._overrun, self._overrun * cost / held)
        self._spent += cost
        self._record("UPDATE c SET actual = ? WHERE id = ?", (cost, number))
        return cost / _NANO

    def close(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            self._journal.close()

    def _record(self, statement: str, values: tuple[int, int]) -> None:
        """Write to the journal, if there is one."""
        if self._journal is not None and self._path is not None:
            with writing(self._path):
                self._journal.execute(statement, values)

    def _of_earlier(self, number: int) -> int:
        query = "SELECT held FROM c WHERE id = ? AND actual IS NULL"
        row = None if self._journal is None else self._journal.execute(query, (number,)).fetchone()
        if row is None:
            raise ValueError(f"nothing is set aside under {number}")
        return int(row[0])

    def _bound(self, cost: float) -> int:
        return math.ceil(_nano(cost) * self._overrun)


def _nano(dollars: float) -> int:
    return math.ceil(round(dollars * _NANO, 3))


def _open(path: Path) -> sqlite3.Connection:
    try:
        with writing(path), ExitStack() as failed:
            path.parent.mkdir(parents=True, exist_ok=True)
            base = sqlite3.connect(path, timeout=60.0, isolation_level=None, check_same_thread=False)
            failed.callback(base.close)  # else it holds the file for whoever comes next
            base.execute("PRAGMA journal_mode=WAL")
            base.execute("PRAGMA synchronous=NORMAL")  # a killed process loses nothing
            base.execute("CREATE TABLE IF NOT EXISTS c (id INTEGER PRIMARY KEY, held INTEGER NOT NULL, actual INTEGER)")
            failed.pop_all()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        refuse_pointer_file(path, ConfigError)
        raise ConfigError(f"the account {path} cannot be used: {describe(error)}", "name another file") from error
    return base
