"""The HTML page of a dataset: one file, nothing fetched from anywhere, readable on a phone, in light and dark."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from microg import storage
from microg.arrow import pc
from microg.data.dataset import Dataset
from microg.data.statistics import Tables
from microg.reports.clips.cards import clip_cards, gallery_cards, spread
from microg.reports.pages import sections
from microg.reports.pages.sections import Section, environment
from microg.reports.plots import dataset_plots
from microg.validation import ValidationReport, validate

_REJECTED_PICTURES = 12


def render_page(title: str, subtitle: str, parts: Sequence[Section | None], script: str | None = None) -> str:
    """Return a complete HTML document of the sections, None left out, with a table of contents.

    `script` is our own JavaScript; the page names its hash, so that nothing else can run.
    """
    shown = [part for part in parts if part is not None]
    code, digest = None, None
    if script is not None:
        code = Markup(f"\n{script}")
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return environment.get_template("page.html.j2").render(
        title=title, subtitle=subtitle, sections=shown, script=code, digest=digest
    )


def dataset_sections(
    dataset: Dataset,
    *,
    run_summary: dict[str, Any] | None = None,
    report: ValidationReport | None = None,
    max_clips: int = 24,
) -> list[Section | None]:
    """Return the sections of a dataset's page; see `write_dataset_page`."""
    tables = Tables.load(dataset)
    clips = dataset.table("clips")
    turned_down = clips.filter(pc.equal(clips["status"], "rejected")).to_pylist()
    pictured = spread(sorted(turned_down, key=lambda row: row["clip_id"]), min(max_clips, _REJECTED_PICTURES))
    pictured_cards = [card for card in clip_cards(dataset, pictured) if card.picture is not None]
    return [
        sections.summary(tables, run_summary),
        sections.gallery(gallery_cards(dataset, max_clips), len(tables.kept)),
        sections.rejected(tables, pictured_cards),
        sections.plots(dataset_plots(tables)),
        sections.validation(report if report is not None else validate(dataset, videos=False)),
        sections.statistics_tables(tables),
    ]


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
    parts = dataset_sections(dataset, run_summary=run_summary, report=report, max_clips=max_clips)
    name = str(dataset.info.get("name", "dataset"))
    text = render_page(name, f"Dataset fingerprint {dataset.fingerprint()}", parts)
    storage.write_bytes(out_html, text.encode())
