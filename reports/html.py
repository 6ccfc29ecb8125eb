"""HTML pages: one file, nothing fetched from anywhere, readable on a phone, in light and dark.

A new section is a function from data to a `Section` and a template in `templates/sections/`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup  # noqa: TID251

from microg.data.statistics import cell_text
from microg.escaping import visible
from microg.reports.clips.pictures import PERSON_COLOURS, data_uri
from microg.reports.plots.style import Plot

_MAX_ROWS = 100


def _visible(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


# autoescape: whatever comes from data is text, never markup; finalize: nor does it turn the text around it round.
environment = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    finalize=_visible,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Section:
    """A part of a page: the anchor, the heading, the finished HTML under it, and which figure of the paper it is."""

    anchor: str
    title: str
    html: Markup
    of_paper: str = ""


@dataclass(frozen=True)
class HtmlTable:
    """A table as text: heads, which columns are numbers, rows of cells, and how many rows were left out."""

    title: str
    heads: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    more: int = 0


def section(anchor: str, title: str, template: str, of_paper: str = "", **values: Any) -> Section:
    """Render `templates/sections/{template}.html.j2` into a section; `of_paper` are its figures there."""
    text = environment.get_template(f"sections/{template}.html.j2").render(**values)
    return Section(anchor, title, Markup(text), of_paper)


def html_table(title: str, frame: pd.DataFrame, limit: int = _MAX_ROWS) -> HtmlTable:
    """Turn a pandas frame into text cells."""
    numeric = tuple(not any(isinstance(value, str) for value in frame[column]) for column in frame.columns)
    rows = tuple(tuple(cell_text(value) for value in row) for row in frame.head(limit).itertuples(index=False))
    heads = tuple(str(column).replace("_percent", " %").replace("_", " ") for column in frame.columns)
    return HtmlTable(title, heads, numeric, rows, max(len(frame) - limit, 0))


def picture(plot: Plot) -> tuple[Plot, str]:
    """Return a plot with its data URI: the smaller of SVG and PNG, and the PNG where the SVG needs fonts."""
    if plot.fonts_needed or len(plot.png) < len(plot.svg):
        return plot, data_uri("image/png", plot.png)
    return plot, data_uri("image/svg+xml", plot.svg)


def render_page(title: str, subtitle: str, parts: Sequence[Section | None], script: str | None = None) -> str:
    """Return a complete HTML document of the sections, None left out, with a table of contents.

    `script` is our own JavaScript; the page names its hash and that of its style, so that no others have an effect.
    """
    style = Markup(environment.get_template("style.css.j2").render(person_colours=PERSON_COLOURS))
    code = None if script is None else Markup(f"\n{script}")
    return environment.get_template("page.html.j2").render(
        title=title,
        subtitle=subtitle,
        sections=[part for part in parts if part is not None],
        style=style,
        style_digest=_digest(style),
        script=code,
        script_digest=None if code is None else _digest(code),
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
