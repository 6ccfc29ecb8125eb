"""Texts that attack whoever shows them, folders full of them, and readers that tell whether they got through."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import cycle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from markdown_it import MarkdownIt

HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)> ' onmouseover=alert(1) x='",
    "</section></style></title><svg onload=alert(1)>",
    "{{ 7 * 7 }} {% raw %} ${7*7} $(touch x) `touch x`",
    "javascript:alert(1) [a](javascript:alert(1)) ![a](//host/a.png) <https://host/a>",
    "\\input{/etc/passwd} \\write18{ls} %\\end{table} ^^5c & # _ ~ $x$ $\\frac{1}$",
    '=HYPERLINK("http://host/"&A1,"x")',
    "+cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "\t=1+1",
    "\r=1+1",
    "a;=1+1;\n=2+2",
    "| a | b |\n|---|---|\n\n# c",
    "*[1cm] -- > - x",
    "[red]x[/] [link=http://host/]x[/link] [/nothing] :smile: \\",
    "\x1b[2J\x1b]8;;http://host/\x1b\\x\x1b]8;;\x1b\\ \x1b]0;x\x07",
    "\x9b31m \x9d0;x\x9c \x7f\x08\x08 \x00",
    "\u202egpj.exe\u202c \u2066x \u200b\ufeff\u2028x",
    "ok\nerror: all is lost\r",
)
# Names of columns and keys whose values come from closed sets or are checked ids: these texts cannot stand there.
CLOSED = frozenset(
    [
        "clip_id",
        "source_id",
        "sample_id",
        "split",
        "scheme",
        "status",
        "task",
        "protocol",
        "metric",
        "slice_kind",
        "coverage",
        "system",
        "origin",
        "stage",
        "unit",
        "score_kind",
        "label_space",
        "scores",
        "command",
        "group",
        "severity",
        "predictions",
        "groundtruth",
        "references",
        "dataset",
        "truth_digest",
        "references_digest",
        "settings",
        "by",
        "row",
        "transfer",
        "config",
        "run",
        "onto",
        "code",
        "uri",
        "against",
        "format",
        "trial_id",
        "average",
    ]
)


def poisoned_document(value: Any, hostile: Callable[[str], str], key: str = "") -> Any:
    """Return a JSON value with `hostile` applied to every text but those of `CLOSED` keys."""
    if isinstance(value, dict):
        return {name: poisoned_document(part, hostile, name) for name, part in value.items()}
    if isinstance(value, list):
        return [poisoned_document(part, hostile, key) for part in value]
    return hostile(value) if isinstance(value, str) and key not in CLOSED else value


def poison(root: Path) -> None:
    """Put a hostile text before each text in documents and tables of a folder, wherever any text may stand.

    Equal texts stay equal, and different ones different.
    """
    turn = cycle(HOSTILE)
    texts: dict[str, str] = {}

    def hostile(text: str) -> str:
        return texts.setdefault(text, next(turn) + text)

    for path in sorted(root.rglob("*")):
        if path.name in ("run.json", "metrics.json", "dataset.json"):
            document = poisoned_document(json.loads(path.read_text()), hostile)
            if path.name == "metrics.json":
                document["notes"] = list(HOSTILE)
            path.write_text(json.dumps(document))
        elif path.suffix == ".parquet":
            table = pq.read_table(io.BytesIO(path.read_bytes()))
            for number, field in enumerate(table.schema):
                if field.name not in CLOSED and pa.types.is_string(field.type):
                    values = [None if value is None else hostile(value) for value in table[field.name].to_pylist()]
                    table = table.set_column(number, field, pa.array(values, field.type))
            with path.open("wb") as file:
                pq.write_table(table, file)


class Page(HTMLParser):
    """What a browser makes of a page: its elements, their attributes and its text. Asserts that elements nest."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


# Where data may stand in an attribute; in all others stand our own words.
_FREE = frozenset({"alt", "title", "value", "data-protocol", "data-data"})
_OWN = re.compile(r"[\w .,%#:/()'=;-]*", re.ASCII)
_ELEMENTS = frozenset(
    [
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "header",
        "nav",
        "main",
        "section",
        "h1",
        "h2",
        "h3",
        "p",
        "a",
        "div",
        "span",
        "article",
        "details",
        "summary",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "ul",
        "li",
        "dl",
        "dt",
        "dd",
        "br",
        "strong",
        "b",
        "i",
        "code",
        "mark",
        "abbr",
        "img",
        "figure",
        "form",
        "label",
        "input",
        "fieldset",
        "legend",
        "select",
        "option",
        "output",
        "script",
    ]
)


def check_html(source: str) -> None:
    """Assert that no element, attribute, script or link of a page comes from data, and that its policy forbids any."""
    page = Page(source)
    policy = next(value for _, value in page.elements if value.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy["content"].split(";"))
    assert (rules["default-src"], rules["base-uri"], rules["form-action"]) == ("'none'",) * 3
    assert "unsafe" not in policy["content"]
    assert "http" not in policy["content"]
    for tag, attributes in page.elements:
        assert tag in _ELEMENTS, tag
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name not in ("style", "srcset", "action", "formaction", "ping", "target"), (tag, name)
            if name == "href":
                assert value.startswith("#")
            elif name == "src":
                assert value.startswith("data:image/")
            elif name not in _FREE and name != "content":
                assert _OWN.fullmatch(value), (tag, name, value)
    scripts = [tag for tag, attributes in page.elements if tag == "script"]
    assert len(scripts) == len(re.findall("sha256-", rules.get("script-src", "")))
    check_plain(source)


def check_plain(text: str) -> None:
    """Assert that nothing in a text steers a terminal or turns what stands there round."""
    found = {letter for letter in text if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert found <= set("\n\t\u200c\u200d"), found


def check_csv(text: str) -> None:
    """Assert that no spreadsheet finds a formula: in cells, nor where it splits lines by other characters."""
    check_plain(text)
    rows = list(csv.reader(io.StringIO(text)))
    assert len({len(row) for row in rows}) == 1
    for cell in (cell for row in rows for cell in row):
        for part in re.split(r"[;\t\n]", cell):
            if part.lstrip().startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠")):
                float(part)


def check_markdown(text: str) -> None:
    """Assert that a table in Markdown makes no link, picture, code, heading or HTML of the texts."""
    check_plain(text)
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    kinds = {part.type for token in tokens for part in [token, *(token.children or [])]}
    table = {f"{name}_{end}" for name in ("table", "thead", "tbody", "tr", "th", "td") for end in ("open", "close")}
    notes = {f"{name}_{end}" for name in ("paragraph", "bullet_list", "list_item") for end in ("open", "close")}
    assert kinds <= table | notes | {"inline", "text", "text_special", "strong_open", "strong_close"}, kinds
    assert [token.type for token in tokens].count("table_open") == 1


_LATEX_WORDS = r"""
    \begin{table}[t] \end{table} \begin{tabular}{COLUMNS} \end{tabular} \centering \small \caption{ \label{tab:NAME}
    \toprule \midrule \bottomrule \par\smallskip\parbox{\linewidth}{\footnotesize {\scriptsize $^{\ast}$
    \textbackslash{} \textasciitilde{} \textasciicircum{} \textless{} \textgreater{} \& \% \$ \# \_ \{ \}
    $\times$ $-$ $\pm$ {}
"""


def check_latex(text: str) -> None:
    """Assert that a table in LaTeX has no command and no character with a meaning but our own."""
    check_plain(text)
    text = re.sub(r"\\begin\{tabular\}\{[lr]+\}", r"\\begin{tabular}{COLUMNS}", text)
    text = re.sub(r"\\multicolumn\{\d+\}\{c\}\{([^{}\\]*)\}", r"\1", text)
    text = re.sub(r"(\\cmidrule\(lr\)\{\d+-\d+\} ?)+", "", text)
    text = re.sub(r"\\label\{tab:[\w-]+\}", r"\\label{tab:NAME}", text)
    for line in text.splitlines():
        rest = re.sub(r" \\\\$", "", line)
        assert not rest.startswith(("[", "*")), line  # the line before ends in \\, which would take it
        for word in sorted(_LATEX_WORDS.split(), key=len, reverse=True):
            rest = rest.replace(word, "")
        separators = len(re.findall(" & ", rest))
        assert rest.count("&") == separators, line
        assert not re.search(r"[\\{$%#_^~]", rest), (line, rest)


def check_svg(text: str) -> None:
    """Assert that a picture has no script or link, and fetches nothing."""
    check_plain(text)
    assert not re.search(r"@import|url\((?!#)", text)
    for element in ET.fromstring(text).iter():
        assert str(element.tag).rpartition("}")[2] not in ("script", "a", "foreignObject")
        for name, value in element.attrib.items():
            assert not name.lower().startswith("on")
            assert not name.endswith("href") or value.startswith(("#", "data:image/png;base64,"))


def check_json(text: str) -> None:
    """Assert that a document is JSON that can be printed."""
    check_plain(text)
    json.loads(text)


CHECKS: dict[str, Callable[[str], None]] = {
    ".html": check_html,
    ".csv": check_csv,
    ".md": check_markdown,
    ".tex": check_latex,
    ".svg": check_svg,
    ".json": check_json,
}
