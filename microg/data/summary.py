"""All statistics of a dataset at once, and what cannot be computed because the dataset lacks it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from microg.data import statistics, text_statistics
from microg.data.statistics import Tables


def all_tables(tables: Tables) -> dict[str, pd.DataFrame]:
    """Return every table of the dataset by file name, in reading order."""
    return {
        "overview": statistics.overview(tables),
        "action_groups": statistics.label_groups(tables),
        "people_per_clip": statistics.people_per_clip(tables),
        "labels_per_person": statistics.labels_per_person(tables),
        "labels_per_action": statistics.labels_per_action(tables),
        "text_lengths": text_statistics.text_lengths(tables),
        "question_types": text_statistics.question_types(tables),
        "splits": statistics.split_sizes(tables),
        "sources": statistics.sources(tables),
        "decisions": statistics.decisions(tables),
    }


def missing(tables: Tables) -> list[str]:
    """Say which annotations the dataset lacks, and what is left out for that reason."""
    lacks = {
        "kept clips": (tables.kept, "nothing can be counted"),
        "boxes": (tables.boxes, "people are counted by labels only"),
        "action labels": (tables.actions, "no action tables; people are counted by boxes"),
        "captions": (tables.captions, "no caption lengths and words"),
        "questions": (tables.qa, "no question types, lengths and words"),
        "splits": (tables.splits, "no split sizes"),
    }
    return [f"no {what}: {consequence}" for what, (frame, consequence) in lacks.items() if frame.empty]


def cell_text(value: Any) -> str:
    """Return a table's value as people read it: `-` for nothing, `1,234`, `12.50`."""
    if value is None or value != value:  # NaN
        return "-"
    if isinstance(value, (str, bool)):
        return str(value)
    return f"{int(value):,}" if float(value).is_integer() else f"{value:,.2f}"
