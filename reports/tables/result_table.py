"""Tables of results as data, before any format: cells with intervals and differences, rows of several origins.

What is not known is an empty cell; nothing is filled in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

from microg import storage
from microg.escaping import csv_text, latex_text, markdown_text
from microg.metrics.published.paper import half_up

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
    """A column: its title, whether it holds scores (with interval and difference) or other numbers, and its group.

    Columns of one group that stand side by side share a head above their titles.
    """

    title: str
    score: bool = False
    number: bool = True
    group: str = ""

    @property
    def name(self) -> str:
        """Return the title with the group before it, as formats without grouped heads have it.

        >>> Head("mAP (%)", group="Test").name
        'Test mAP (%)'
        """
        return f"{self.group} {self.title}".strip()


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
    """A table: its number in the paper, title, columns, rows, and what must be known to read it.

    A table without a number is not the paper's.
    """

    number: int | None
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
        return "_".join([*([] if self.number is None else [f"table{self.number}"]), *words[:3]])

    @property
    def label(self) -> str:
        """Return what stands before the title.

        >>> ResultTable(4, "Captioning", (), ()).label, ResultTable(None, "Dataset overview", (), ()).label
        ('Table 4. ', '')
        """
        return "" if self.number is None else f"Table {self.number}. "

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Return (group, columns) from left to right; empty where no column has a group."""
        found = [(group, len([*heads])) for group, heads in groupby(self.heads, key=lambda head: head.group)]
        return found if any(group for group, _ in found) else []

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
    return f"{half_up(value, digits):,}".replace("-", "−")


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


def beside(cell: Cell, published: float | None) -> Cell:
    """Return a cell of ours with its difference to the published value, and what its interval says of that."""
    if published is None or cell.value is None:
        return cell
    verdict = None
    if cell.low is not None and cell.high is not None:
        verdict = verdict_of(cell.value - published, cell.low - published, cell.high - published)
    return replace(cell, difference=cell.value - published, verdict=verdict)


_SIGNIFICANT = "*"
_ORIGIN = {"published": "published", "ours": "ours", "baseline": "no video"}


def write_tables(tables: list[ResultTable], folder: str) -> list[str]:
    """Write each table as `.md`, `.tex` and `.csv` into a folder; returns the paths."""
    paths = []
    for table in tables:
        for suffix, text in (("md", markdown(table)), ("tex", latex(table)), ("csv", as_csv(table))):
            path = storage.join(folder, f"{table.name}.{suffix}")
            storage.write_bytes(path, text.encode())
            paths.append(path)
    return paths


def markdown(table: ResultTable) -> str:
    """Return a table in Markdown: `value [interval] (difference)`, a star where the difference is significant."""
    heads = ["", "Protocol", *(head.name for head in table.heads)]
    aligned = ["---", "---", *("---:" if head.number else "---" for head in table.heads)]
    label = f"**{table.label.strip()}** " if table.label else ""
    lines = [f"{label}{markdown_text(table.title)}", ""]
    lines.append("| " + " | ".join(markdown_text(head) for head in heads) + " |")
    lines.append("| " + " | ".join(aligned) + " |")
    for row in table.rows:
        cells = [
            markdown_text(_who(row)),
            markdown_text(row.protocol),
            *(_one_line(cell) for cell in row.cells),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    notes = [*table.notes, *dict.fromkeys(f"{row.run}: {row.note}" for row in table.rows if row.note)]
    lines += ["", *(f"- {markdown_text(note)}" for note in notes)]
    return "\n".join(lines).rstrip() + "\n"


def latex(table: ResultTable) -> str:
    """Return a table in LaTeX (booktabs); compiles as it is inside a document that loads booktabs."""
    columns = "ll" + "".join("r" if head.number else "l" for head in table.heads)
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        r"\small",
        f"\\caption{{{latex_text(table.title)}.}}",
        f"\\label{{tab:{table.name.replace('_', '-')}}}",
        f"\\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        *_latex_groups(table),
        " & ".join(latex_text(title) for title in ["", "Protocol", *(head.title for head in table.heads)]) + r" \\",
        r"\midrule",
    ]
    before = None
    for row in table.rows:
        if before is not None and (row.origin == "published") != (before == "published") and row.origin != "ours":
            lines.append(r"\midrule")
        before = row.origin
        cells = [latex_text(_who(row)), latex_text(row.protocol), *(_tex_cell(cell) for cell in row.cells)]
        lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    notes = [*table.notes, *dict.fromkeys(f"{row.run}: {row.note}" for row in table.rows if row.note)]
    if notes:
        lines.append(
            r"\par\smallskip\parbox{\linewidth}{\footnotesize " + " ".join(latex_text(n) + "." for n in notes) + "}"
        )
    return "\n".join([*lines, r"\end{table}", ""])


def _latex_groups(table: ResultTable) -> list[str]:
    """Return the line of grouped heads with the rules below them, nothing where no column has a group."""
    if not table.groups:
        return []
    cells, rules, at = ["", ""], [], 3
    for group, size in table.groups:
        cells.append(f"\\multicolumn{{{size}}}{{c}}{{{latex_text(group)}}}")
        if group:
            rules.append(f"\\cmidrule(lr){{{at}-{at + size - 1}}}")
        at += size
    return [" & ".join(cells) + r" \\", " ".join(rules)]


def as_csv(table: ResultTable) -> str:
    """Return a table as CSV: a score has columns of its own for interval, difference and significance."""
    heads = ["origin", "run", "protocol"]
    for head in table.heads:
        heads.append(head.name)
        if head.score:
            heads += [f"{head.name} {part}" for part in ("low", "high", "difference", "significant")]
    lines = []
    for row in table.rows:
        values: list[str] = [row.origin, row.run, row.protocol]
        for head, cell in zip(table.heads, row.cells, strict=True):
            values.append(cell.text if cell.value is None else _exact(cell.value))
            if head.score:
                values += [_exact(cell.low), _exact(cell.high), _exact(cell.difference)]
                values.append("" if cell.verdict is None else ("no" if cell.verdict == "same" else "yes"))
        lines.append([*values, row.note])
    return csv_text([*heads, "note"], lines)


def _who(row: Row) -> str:
    return row.run if row.origin == "ours" and row.run else _ORIGIN[row.origin]


def _one_line(cell: Cell) -> str:
    change = f"({cell.change}{_SIGNIFICANT if cell.verdict in ('above', 'below') else ''})" if cell.change else ""
    if cell.value is None:
        return markdown_text(cell.text) + ("?" if cell.doubt else "")
    return " ".join(part for part in (cell.number + ("?" if cell.doubt else ""), cell.interval, change) if part)


def _tex_cell(cell: Cell) -> str:
    parts = [latex_text(cell.number + ("?" if cell.doubt else ""))]
    if cell.interval:
        parts.append(r"{\scriptsize " + cell.interval.replace("−", "$-$") + "}")
    if cell.change:
        star = r"$^{\ast}$" if cell.verdict in ("above", "below") else ""
        parts.append(r"{\scriptsize (" + latex_text(cell.change) + star + ")}")
    return " ".join(part for part in parts if part)


def _exact(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
