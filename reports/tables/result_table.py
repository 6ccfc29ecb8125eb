"""Tables of results as data, before any format: cells with intervals and differences, rows of several origins.

What is not known is an empty cell; nothing is filled in.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Literal

Verdict = Literal["same", "above", "below"]
Origin = Literal["published", "ours", "baseline"]


@dataclass(frozen=True)
class Cell:
    """One number as the table prints it (percent and the like), or a text.

    low, high: the 95% interval; difference: ours less the published value; verdict: whether the published value lies
    inside the interval (`same`), or ours is significantly `above` or `below` it; doubt: why a value is suspicious.
    """

    value: float | None = None
    text: str = ""
    digits: int = 2
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    verdict: Verdict | None = None
    doubt: str | None = None

    @property
    def number(self) -> str:
        """Return the value alone.

        >>> Cell(46.4).number, Cell(text="I3D").number, Cell().number, Cell(4759, digits=0).number
        ('46.40', 'I3D', '', '4,759')
        """
        return self.text if self.value is None else rounded(self.value, self.digits)

    @property
    def interval(self) -> str:
        """Return the interval in brackets, nothing where there is none.

        >>> Cell(46.4, low=41.1, high=52.123).interval, Cell(46.4).interval
        ('[41.10, 52.12]', '')
        """
        if self.low is None or self.high is None:
            return ""
        return f"[{rounded(self.low, self.digits)}, {rounded(self.high, self.digits)}]"

    @property
    def change(self) -> str:
        """Return the difference with its sign, nothing where there is none.

        >>> Cell(1.0, difference=-0.104).change, Cell(1.0, difference=0.001).change
        ('−0.10', '±0.00')
        """
        if self.difference is None:
            return ""
        text = rounded(abs(self.difference), self.digits)
        if not text.strip("0."):
            return f"±{text}"
        return ("−" if self.difference < 0 else "+") + text


@dataclass(frozen=True)
class Head:
    """A column: its title, whether it holds scores (with interval and difference), and whether higher is better."""

    title: str
    score: bool = False
    number: bool = True


@dataclass(frozen=True)
class Row:
    """A row of cells; `protocol` and `note` are about the whole row, `run` names the run it comes from."""

    origin: Origin
    cells: tuple[Cell, ...]
    run: str = ""
    protocol: str = ""
    note: str = ""


@dataclass(frozen=True)
class ResultTable:
    """One of the paper's tables: number, title, columns, rows, and what must be known to read it."""

    number: int
    title: str
    heads: tuple[Head, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return the name of its files.

        >>> ResultTable(4, "Captioning", (), ()).name
        'table4_captioning'
        """
        words = "".join(letter.lower() if letter.isalnum() else " " for letter in self.title).split()
        return f"table{self.number}_{'_'.join(words[:3])}"

    @property
    def ours(self) -> bool:
        """Tell whether any row is ours."""
        return any(row.origin == "ours" for row in self.rows)


def rounded(value: float, digits: int) -> str:
    """Return a number as the paper prints it: halves up, thousands apart.

    The shortest decimal that a float stands for is rounded, so that 100 x 0.24645 is 24.65.

    >>> rounded(100 * 0.24645, 2), rounded(-0.5, 0), rounded(1234.5, 1)
    ('24.65', '−1', '1,234.5')
    """
    exact = Decimal(f"{value:.9g}").quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    return f"{exact:,}".replace("-", "−")


def percent(value: float | None) -> float | None:
    """Return a fraction in percent; None and nan are None."""
    return None if value is None or value != value else 100.0 * value


def verdict_of(difference: float, low: float, high: float) -> Verdict:
    """Say how ours stands to a published value: `same` where the interval of the difference holds zero.

    `low` and `high` bound the difference.

    >>> verdict_of(1.5, 0.5, 2.5), verdict_of(-1.0, -2.5, 0.5)
    ('above', 'same')
    """
    if low <= 0 <= high:
        return "same"
    return "above" if difference > 0 else "below"
