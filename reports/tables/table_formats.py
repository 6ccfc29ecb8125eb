"""Result tables as Markdown, LaTeX and CSV. Texts from data are escaped for each."""

from __future__ import annotations

import csv
import io
import re

from microg import storage
from microg.reports.tables.result_table import Cell, ResultTable, Row

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
    "−": "$-$",
    "±": r"$\pm$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
_MARKDOWN = re.compile(r"([\\`*_\[\]#|<>~])")
_SIGNIFICANT = "*"
_ORIGIN = {"published": "published", "ours": "ours", "baseline": "no video"}
# A spreadsheet would run what begins like this.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_tables(tables: list[ResultTable], folder: str) -> list[str]:
    """Write each table as `.md`, `.tex` and `.csv` into a folder; returns the paths."""
    paths = []
    for table in tables:
        for suffix, text in (("md", markdown(table)), ("tex", latex(table)), ("csv", as_csv(table))):
            path = storage.join(folder, f"{table.name}.{suffix}")
            storage.write_bytes(path, text.encode("utf-8", "replace"))
            paths.append(path)
    return paths


def markdown(table: ResultTable) -> str:
    """Return a table in Markdown: `value [interval] (difference)`, a star where the difference is significant."""
    heads = ["", "Protocol", *(head.title for head in table.heads)]
    aligned = ["---", "---", *("---:" if head.number else "---" for head in table.heads)]
    lines = [f"**Table {table.number}.** {_plain_markdown(table.title)}", ""]
    lines.append("| " + " | ".join(_plain_markdown(head) for head in heads) + " |")
    lines.append("| " + " | ".join(aligned) + " |")
    for row in table.rows:
        cells = [_plain_markdown(_who(row)), row.protocol, *(_one_line(cell) for cell in row.cells)]
        lines.append("| " + " | ".join(cells) + " |")
    notes = [*table.notes, *dict.fromkeys(f"{row.run}: {row.note}" for row in table.rows if row.note)]
    lines += ["", *(f"- {_plain_markdown(note)}" for note in notes)]
    return "\n".join(lines).rstrip() + "\n"


def latex(table: ResultTable) -> str:
    """Return a table in LaTeX (booktabs); compiles as it is inside a document that loads booktabs."""
    columns = "ll" + "".join("r" if head.number else "l" for head in table.heads)
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        r"\small",
        f"\\caption{{{_tex(table.title)}.}}",
        f"\\label{{tab:{table.name.replace('_', '-')}}}",
        f"\\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(_tex(title) for title in ["", "Protocol", *(head.title for head in table.heads)]) + r" \\",
        r"\midrule",
    ]
    before = None
    for row in table.rows:
        if before is not None and (row.origin == "published") != (before == "published") and row.origin != "ours":
            lines.append(r"\midrule")
        before = row.origin
        cells = [_tex(_who(row)), _tex(row.protocol), *(_tex_cell(cell) for cell in row.cells)]
        lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    notes = [*table.notes, *dict.fromkeys(f"{row.run}: {row.note}" for row in table.rows if row.note)]
    if notes:
        lines.append(r"\par\smallskip\parbox{\linewidth}{\footnotesize " + " ".join(_tex(n) + "." for n in notes) + "}")
    return "\n".join([*lines, r"\end{table}", ""])


def as_csv(table: ResultTable) -> str:
    """Return a table as CSV: a score has columns of its own for interval, difference and significance."""
    heads = ["origin", "run", "protocol"]
    for head in table.heads:
        heads.append(head.title)
        if head.score:
            heads += [f"{head.title} {part}" for part in ("low", "high", "difference", "significant")]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*heads, "note"])
    for row in table.rows:
        values: list[str] = [row.origin, row.run, row.protocol]
        for head, cell in zip(table.heads, row.cells, strict=True):
            values.append(cell.text if cell.value is None else _exact(cell.value))
            if head.score:
                values += [_exact(cell.low), _exact(cell.high), _exact(cell.difference)]
                values.append("" if cell.verdict is None else ("no" if cell.verdict == "same" else "yes"))
        writer.writerow([*map(_no_formula, values), _no_formula(row.note)])
    return buffer.getvalue()


def _who(row: Row) -> str:
    return row.run if row.origin == "ours" and row.run else _ORIGIN[row.origin]


def _one_line(cell: Cell) -> str:
    change = f"({cell.change}{_SIGNIFICANT if cell.verdict in ('above', 'below') else ''})" if cell.change else ""
    if cell.value is None:
        return _plain_markdown(cell.text)
    return " ".join(part for part in (cell.number + ("?" if cell.doubt else ""), cell.interval, change) if part)


def _tex_cell(cell: Cell) -> str:
    parts = [_tex(cell.number + ("?" if cell.doubt else ""))]
    if cell.interval:
        parts.append(r"{\scriptsize " + _tex(cell.interval) + "}")
    if cell.change:
        star = r"$^{\ast}$" if cell.verdict in ("above", "below") else ""
        parts.append(r"{\scriptsize (" + _tex(cell.change) + star + ")}")
    return " ".join(part for part in parts if part)


def _tex(text: str) -> str:
    clean = "".join(letter if letter.isprintable() else " " for letter in text)
    return "".join(_LATEX.get(letter, letter) for letter in clean)


def _plain_markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _exact(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _no_formula(text: str) -> str:
    """Keep a spreadsheet from taking a text for a formula; numbers stay as they are."""
    if text.startswith(_FORMULA):
        try:
            float(text)
        except ValueError:
            return "'" + text
    return text
