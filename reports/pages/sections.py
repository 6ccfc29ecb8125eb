"""Sections of a page. Each is a function from data to a `Section`, or None when it has nothing to show.

A new section is a function here (or elsewhere) and a template in `templates/sections/`.
"""

# pandas annotates `frame[...]` as DataFrame | Series | Any, which makes nearly every chained call an error.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from microg.data.statistics import Tables
from microg.data.summary import all_tables, cell_text, missing
from microg.reports.clips.cards import ClipCard
from microg.reports.clips.pictures import data_uri
from microg.reports.plots import Plot
from microg.validation import ValidationReport

_MAX_ROWS = 100

# autoescape: whatever comes from data is text, never markup.
environment = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Section:
    """A part of a page: the anchor, the heading and the finished HTML under it."""

    anchor: str
    title: str
    html: Markup


@dataclass(frozen=True)
class HtmlTable:
    """A table as text: heads, which columns are numbers, rows of cells, and how many rows were left out."""

    title: str
    heads: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    more: int = 0


def section(anchor: str, title: str, template: str, **values: Any) -> Section:
    """Render `templates/sections/{template}.html.j2` into a section."""
    text = environment.get_template(f"sections/{template}.html.j2").render(**values)
    return Section(anchor, title, Markup(text))


def html_table(title: str, frame: pd.DataFrame, limit: int = _MAX_ROWS) -> HtmlTable:
    """Turn a pandas frame into text cells."""
    numeric = tuple(not any(isinstance(value, str) for value in frame[column]) for column in frame.columns)
    rows = tuple(tuple(cell_text(value) for value in row) for row in frame.head(limit).itertuples(index=False))
    heads = tuple(str(column).replace("_percent", " %").replace("_", " ") for column in frame.columns)
    return HtmlTable(title, heads, numeric, rows, max(len(frame) - limit, 0))


def summary(tables: Tables, run_summary: dict[str, Any] | None) -> Section:
    """Say how many clips were kept, rejected and failed, for which reasons, and what the run reported."""
    status = tables.clips["status"].value_counts()
    decided = all_tables(tables)["decisions"]
    problems = pd.concat(
        [_problems(tables.sources, "source_id"), _problems(tables.clips, "clip_id")], ignore_index=True
    )
    return section(
        "summary",
        "Summary",
        "summary",
        counts=[
            (label, int(status.get(key, 0)), key)
            for label, key in (("kept", "ok"), ("rejected", "rejected"), ("failed", "error"))
        ],
        reasons=html_table("Turned down at", decided) if len(decided) else None,
        problems=html_table("Could not be processed", problems) if len(problems) else None,
        run=[(key, value) for key, value in flatten(run_summary or {})],
        notes=missing(tables),
    )


def _problems(frame: pd.DataFrame, key: str) -> pd.DataFrame:
    failed = frame[frame["status"] == "error"]
    return pd.DataFrame({"name": failed[key], "error": failed["error"]}).astype("object")


def gallery(cards: list[ClipCard], total: int) -> Section | None:
    """Show clips with their key frame, people, caption and questions."""
    if not cards:
        return None
    return section("clips", "Clips", "gallery", cards=cards, total=total)


def rejected(tables: Tables, cards: list[ClipCard]) -> Section | None:
    """List rejected clips with the reason, the score and the threshold it was held against; some with a picture."""
    ids = tables.clips.loc[tables.clips["status"] == "rejected", "clip_id"]
    against = tables.decisions["keep"] == False  # noqa: E712 (a nullable column)
    turned_down = tables.decisions[against & tables.decisions["clip_id"].isin(ids)]
    if turned_down.empty:
        return None
    columns = ["clip_id", "stage", "reason", "score", "threshold"]
    table = html_table("", turned_down.sort_values(["clip_id", "stage"])[columns])
    reasons: dict[str, list[str]] = {}
    for row in turned_down[columns].to_dict("records"):
        text = (
            f"{row['reason'] or row['stage']}: score {cell_text(row['score'])}, threshold {cell_text(row['threshold'])}"
        )
        reasons.setdefault(str(row["clip_id"]), []).append(text)
    return section("rejected", "Rejected clips", "rejected", table=table, cards=cards, reasons=reasons)


def plots(items: list[Plot]) -> Section | None:
    """Show the plots."""
    if not items:
        return None
    figures = [
        (plot, data_uri("image/png", plot.png) if plot.fonts_needed else data_uri("image/svg+xml", plot.svg))
        for plot in items
    ]
    return section("plots", "Plots", "plots", figures=figures)


def validation(report: ValidationReport) -> Section:
    """Show the findings of validation, grouped by check."""
    return section("validation", "Validation", "validation", report=report, summaries=report.summaries())


def statistics_tables(tables: Tables) -> Section:
    """Show the statistics tables, those without rows left out."""
    shown = [html_table(name.replace("_", " "), frame) for name, frame in all_tables(tables).items() if len(frame)]
    return section("tables", "Tables", "tables", tables=shown)


def flatten(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return (key, text) of a nested mapping, keys joined by dots."""
    result: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            result += flatten(value, f"{name}.")
        elif isinstance(value, list | tuple):
            result.append((name, ", ".join(str(item) for item in value)))
        elif isinstance(value, int | float) or value is None:
            result.append((name, cell_text(value)))
        else:
            result.append((name, str(value)))
    return result
