"""The HTML page of a dataset."""

# pandas annotates `frame[...]` as DataFrame | Series | Any, which makes nearly every chained call an error.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

import pandas as pd

from microg import storage
from microg.annotations.apply import in_short
from microg.arrow import pc
from microg.data.dataset import Dataset
from microg.data.statistics import Tables, all_tables, cell_text, missing
from microg.reports.clips.cards import ClipCard, clip_cards, gallery_cards, spread
from microg.reports.clips.pictures import data_uri
from microg.reports.html import Section, html_table, render_page, section
from microg.reports.plots.dataset import dataset_plots
from microg.reports.plots.style import Plot
from microg.validation import ValidationReport, validate

_REJECTED_PICTURES = 12


def write_dataset_page(
    dataset: Dataset,
    out_html: str,
    *,
    run_summary: dict[str, Any] | None = None,
    report: ValidationReport | None = None,
    max_clips: int = 24,
) -> None:
    """Write the page of a dataset: summary, clips, rejected clips, plots, validation, tables.

    `run_summary` is shown as it is (nested mappings become dotted keys). `report` is a validation done before; without
    one the tables are checked here and the videos are not opened for it. At most `max_clips` clips get a card, spread
    over the dataset, and at most twelve rejected clips a picture. A picture that cannot be made says why.
    """
    tables = Tables.load(dataset)
    parts = [
        _summary(tables, run_summary, in_short(dataset)),
        _gallery(gallery_cards(dataset, max_clips), len(tables.kept)),
        _rejected(dataset, tables, min(max_clips, _REJECTED_PICTURES)),
        _plots(dataset_plots(tables)),
        _validation(report if report is not None else validate(dataset, videos=False)),
        _statistics_tables(tables),
    ]
    name = str(dataset.info.get("name", "dataset"))
    text = render_page(name, f"Dataset fingerprint {dataset.fingerprint()}", parts)
    storage.write_bytes(out_html, text.encode())


def _summary(tables: Tables, run_summary: dict[str, Any] | None, accepted: list[str]) -> Section:
    """Say how many clips were kept, rejected and failed, for which reasons, what people did, what the run reported."""
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
        accepted=accepted,
        notes=missing(tables),
    )


def _problems(frame: pd.DataFrame, key: str) -> pd.DataFrame:
    failed = frame[frame["status"] == "error"]
    return pd.DataFrame({"name": failed[key], "error": failed["error"]}).astype("object")


def _gallery(cards: list[ClipCard], total: int) -> Section | None:
    """Show clips with their key frame, people, caption and questions."""
    if not cards:
        return None
    return section("clips", "Clips", "gallery", cards=cards, total=total)


def _rejected(dataset: Dataset, tables: Tables, limit: int) -> Section | None:
    """List rejected clips with the reason, the score and the threshold it was held against; `limit` with a picture."""
    ids = tables.clips.loc[tables.clips["status"] == "rejected", "clip_id"]
    against = tables.decisions["keep"] == False  # noqa: E712 (a nullable column)
    decisions = tables.decisions[against & tables.decisions["clip_id"].isin(ids)]
    if decisions.empty:
        return None
    clips = dataset.table("clips")
    rows = clips.filter(pc.equal(clips["status"], "rejected")).sort_by("clip_id").to_pylist()
    cards = [card for card in clip_cards(dataset, spread(rows, limit)) if card.picture is not None]
    columns = ["clip_id", "stage", "reason", "score", "threshold"]
    table = html_table("", decisions.sort_values(["clip_id", "stage"])[columns])
    reasons: dict[str, list[str]] = {}
    for row in decisions[columns].to_dict("records"):
        text = (
            f"{row['reason'] or row['stage']}: score {cell_text(row['score'])}, threshold {cell_text(row['threshold'])}"
        )
        reasons.setdefault(str(row["clip_id"]), []).append(text)
    return section("rejected", "Rejected clips", "rejected", table=table, cards=cards, reasons=reasons)


def _plots(items: list[Plot]) -> Section | None:
    """Show the plots."""
    if not items:
        return None
    figures = [
        (plot, data_uri("image/png", plot.png) if plot.fonts_needed else data_uri("image/svg+xml", plot.svg))
        for plot in items
    ]
    return section("plots", "Plots", "plots", figures=figures)


def _validation(report: ValidationReport) -> Section:
    """Show the findings of validation, grouped by check."""
    return section("validation", "Validation", "validation", report=report, summaries=report.summaries())


def _statistics_tables(tables: Tables) -> Section:
    """Show the statistics tables, those without rows left out."""
    filled = [html_table(name.replace("_", " "), frame) for name, frame in all_tables(tables).items() if len(frame)]
    return section("tables", "Tables", "tables", tables=filled)


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
