"""How texts from data are written into what people read: one function for each kind of output.

HTML is escaped by the templates of `reports/html.py`.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterable

# They shape letters of many scripts, and emoji; every other format character can hide text or turn it round.
_JOINERS = "\u200c\u200d"
_UNSAFE_CATEGORIES = ("Cc", "Cf", "Cs", "Zl", "Zp")
_NOT_ASCII = re.compile(r"[^\n -~]")
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
_MARKDOWN = re.compile(r"([\\`*_\[\]#|<>~$&]|^[-+=])")
# What a spreadsheet would run: at the start of a cell, and after what some take for the end of one.
_FORMULA = re.compile(r"(^|[;\t\n])(?=[^\S\t\n]*[=+\-@＝＋－＠])")


def visible(text: str) -> str:
    r"""Return a text with characters that steer a terminal or turn writing round spelt out; line ends and tabs stay.

    >>> print(visible("a\x1b[31mb\u202ec\r"))
    a\x1b[31mb\u202ec\r
    """
    if text.isprintable():
        return text
    return "".join(letter if _is_visible(letter) else letter.encode("unicode_escape").decode() for letter in text)


def well_formed(text: str) -> str:
    r"""Return a text with U+FFFD for each half of a character (a lone surrogate), which no file can hold.

    >>> well_formed("half an emoji: \ud83d")
    'half an emoji: \ufffd'
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def visible_line(text: str) -> str:
    r"""Return `visible` text on one line, so that data cannot begin a line of their own.

    >>> print(visible_line("a name\nerror: forged"))
    a name\nerror: forged
    """
    return visible(text).replace("\n", r"\n")


def json_text(value: object) -> str:
    r"""Return JSON for people and programs: letters as they are, what `visible` spells out as JSON's escapes.

    >>> print(json_text("é\x9b\u202e"))
    "é\u009b\u202e"
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return _NOT_ASCII.sub(lambda found: found[0] if _is_visible(found[0]) else _json_escape(found[0]), text)


def markdown_text(text: str) -> str:
    r"""Return a text as one line of Markdown that shows it as it stands.

    >>> print(markdown_text("a | b\n[c](d) $e$"))
    a \| b \[c\](d) \$e\$
    """
    return _MARKDOWN.sub(r"\\\1", visible(" ".join(text.split())))


def latex_text(text: str) -> str:
    r"""Return a text as one line of LaTeX that prints it as it stands.

    >>> print(latex_text(r"50% \input{x}"))
    50\% \textbackslash{}input\{x\}
    """
    line = "".join(_LATEX.get(letter, letter) for letter in visible(" ".join(text.split())))
    return "{}" + line if line.startswith(("[", "*")) else line  # after a line's \\ they would be its arguments


def csv_text(heads: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    r"""Return CSV whose texts no spreadsheet takes for formulas: an apostrophe keeps them texts. None is empty.

    >>> csv_text(["name"], [["=1+1"], [-2.5], ["-2.5"]])
    "name\n'=1+1\n-2.5\n-2.5\n"
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")  # noqa: TID251
    for row in (heads, *rows):
        writer.writerow([_cell(value) if isinstance(value, str) else value for value in row])
    return buffer.getvalue()


def _cell(text: str) -> str:
    try:
        float(text)
    except ValueError:
        return _FORMULA.sub(r"\1'", visible(text))
    return text


def _is_visible(letter: str) -> bool:
    return letter in "\n\t" or letter in _JOINERS or unicodedata.category(letter) not in _UNSAFE_CATEGORIES


def _json_escape(letter: str) -> str:
    return "\\u007f" if letter == "\x7f" else json.dumps(letter)[1:-1]  # ASCII to JSON, though no terminal prints it
