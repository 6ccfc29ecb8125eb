"""The paper's tables of data, the published dataset beside each of ours: Tables 6 to 10, and what the data hold."""

# pandas annotates `frame[...]` as DataFrame | Series | Any, which makes nearly every chained call an error.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from microg.data import statistics
from microg.data.dataset import Dataset
from microg.data.label_space import MICROG_50
from microg.data.statistics import Tables
from microg.metrics.published.paper import (
    contradictions,
    counts_printed,
    qa_datasets_printed,
    splits_printed,
)
from microg.reports.tables.result_table import Cell, Head, ResultTable, Row, beside

_PUBLISHED = "MicroG-4M"
# What the published dataset holds; only a dataset of as many clips is compared with it number by number.
_PUBLISHED_CLIPS = splits_printed()[-1].clips
# The published dataset as its authors count it: how many clips, actions, labels, boxes, captions and questions.
_PUBLISHED_DATA = {
    "clips": _PUBLISHED_CLIPS,
    "actions used": 50,
    "action labels": 13261,
    "boxes": 390_000,
    "captions": 1238,
    "question-answer pairs": 7428,
}
_OVERVIEW_HEADS = {
    "clips": "Clips",
    "minutes": "Minutes",
    "sources": "Sources",
    "actions used": "Actions",
    "people": "People",
    "action labels": "Labels",
    "boxes": "Boxes",
    "captions": "Captions",
    "question-answer pairs": "QA pairs",
}
_ORIGINS = {"all": "All Videos", "movie": "Movies", "real": "Real Videos"}
_TITLES = {"val": "Val", "train": "Train", "test": "Test"}


@dataclass(frozen=True)
class NamedTables:
    """The tables of one of our datasets, with the name and fingerprint that its rows carry."""

    name: str
    fingerprint: str
    tables: Tables

    @classmethod
    def load(cls, dataset: Dataset) -> NamedTables:
        """Read a dataset."""
        return cls(str(dataset.info.get("name", "dataset")), dataset.fingerprint(), Tables.load(dataset))

    @cached_property
    def is_published(self) -> bool:
        """Whether it has as many clips as the published dataset."""
        return len(self.tables.kept) == _PUBLISHED_CLIPS

    def count(self, value: float, printed: float | None, digits: int = 0) -> Cell:
        """Return a number of this dataset, with its difference to the published one where it is that dataset."""
        cell = Cell(float(value), digits=digits)
        return beside(cell, printed) if self.is_published else cell


def dataset_tables(datasets: Sequence[Dataset]) -> list[ResultTable]:
    """Return what the data hold, then Tables 6 to 10: published rows, and those of each dataset below.

    Datasets of other actions than MicroG-4M's, such as JHMDB, have no rows there, but a table of their own each.
    """
    ours = [NamedTables.load(dataset) for dataset in datasets if dataset.label_space == MICROG_50]
    makers: tuple[Callable[[Sequence[NamedTables]], ResultTable], ...] = (
        overview_table,
        split_table,
        label_type_table,
        people_table,
        action_table,
        qa_dataset_table,
    )
    others = [NamedTables.load(dataset) for dataset in datasets if dataset.label_space != MICROG_50]
    own = [own_action_table(each, number) for number, each in enumerate(others, 1)]
    return [*(make(ours) for make in makers), *own]


def overview_table(ours: Sequence[NamedTables]) -> ResultTable:
    """Return how much the published dataset and each of these hold; the paper has no such table."""
    heads = (Head("Dataset", number=False), *(Head(title) for title in _OVERVIEW_HEADS.values()))
    published = [_count(_PUBLISHED_DATA.get(name)) for name in _OVERVIEW_HEADS]
    rows = [Row("published", (Cell(text=_PUBLISHED), *published))]
    for each in ours:
        frame = statistics.overview(each.tables)
        held = dict(zip(frame["statistic"].tolist(), frame["all"].tolist(), strict=True))
        cells = [_count(float(held[name]), digits=1 if name == "minutes" else 0) for name in _OVERVIEW_HEADS]
        note = f"fingerprint {each.fingerprint}"
        rows.append(Row("ours", (Cell(text=each.name), *cells), run=each.name, note=note))
    notes = ("published counts are the authors' own, boxes rounded by them; empty is what they do not state",)
    return ResultTable(None, "Dataset overview", heads, tuple(rows), notes)


def split_table(ours: Sequence[NamedTables]) -> ResultTable:
    """Return Table 6: samples (labels) and clips of each split."""
    heads = (
        Head("Split", number=False),
        Head("#", group="Samples"),
        Head("%", group="Samples"),
        Head("#", group="Video Clips"),
        Head("%", group="Video Clips"),
    )
    printed = {row.split: row for row in splits_printed()}
    rows = [
        Row(
            "published",
            (
                Cell(text=row.split),
                _count(row.samples),
                Cell(row.samples_percent),
                _count(row.clips),
                Cell(row.clips_percent),
            ),
        )
        for row in printed.values()
    ]
    for each in ours:
        for scheme, part in statistics.split_sizes(each.tables).groupby("scheme", sort=False):
            sums = part[["labels", "clips"]].sum()
            sizes = [*part[["split", "labels", "clips"]].itertuples(index=False, name=None)]
            sizes.append(("Total", sums["labels"], sums["clips"]))
            for split, labels, clips in sizes:
                title = _TITLES.get(split, split)
                beside_row = printed.get(title) if scheme == "published" else None
                cells = (
                    Cell(text=title),
                    each.count(labels, beside_row and beside_row.samples),
                    Cell(_share(labels, sums["labels"])),
                    each.count(clips, beside_row and beside_row.clips),
                    Cell(_share(clips, sums["clips"])),
                )
                rows.append(Row("ours", cells, run=each.name, protocol=f"{scheme} split"))
    return ResultTable(6, "Samples and clips of each split", heads, tuple(rows), _notes(6, ours))


def label_type_table(ours: Sequence[NamedTables]) -> ResultTable:
    """Return Table 7: labels of the three groups of actions, by origin of the clip."""
    rows = _published_counts(7)
    for each in ours:
        frame = statistics.label_groups(each.tables).set_index("group")
        if int(frame["all"].sum()):
            counts = {row.title: _by_origin(frame, [row.title.lower()]) for row in counts_printed(7)}
            rows += _our_counts(each, 7, counts)
    return ResultTable(7, "Label types by origin", _count_heads("Label Type"), tuple(rows), _notes(7, ours))


def people_table(ours: Sequence[NamedTables]) -> ResultTable:
    """Return Table 8: clips by the number of people in them, by origin of the clip."""
    rows = _published_counts(8)
    for each in ours:
        frame = statistics.people_per_clip(each.tables).set_index("people")
        titles = [row.title for row in counts_printed(8)]
        counts = {title: _by_origin(frame, [number]) for title, number in zip(titles, (1, 2), strict=False)}
        counts[titles[2]] = _by_origin(frame, [number for number in frame.index if number >= 3])
        nobody = _by_origin(frame, [0])
        if nobody["all"]:
            counts["No Person (0)"] = nobody
        if len(frame):
            rows += _our_counts(each, 8, counts)
    heads = _count_heads("Persons per Video")
    return ResultTable(8, "People per clip by origin", heads, tuple(rows), _notes(8, ours))


def action_table(ours: Sequence[NamedTables]) -> ResultTable:
    """Return Table 9: labels of each of the 50 actions, by origin of the clip; ours below each published row."""
    heads = (Head("ID"), Head("Action Name", number=False), *(Head(title) for title in _ORIGINS.values()))
    counted = [(each, statistics.labels_per_action(each.tables).set_index("action_id")) for each in ours]
    rows = []
    for printed in counts_printed(9):
        about = (Cell(text=str(printed.action_id)), Cell(text=printed.title))
        rows.append(Row("published", (*about, *(_count(printed.counts[origin]) for origin in _ORIGINS))))
        for each, frame in counted:
            if int(frame["all"].sum()):
                own = _by_origin(frame, [printed.action_id])
                cells = (each.count(own[origin], printed.counts[origin]) for origin in _ORIGINS)
                rows.append(Row("ours", (*about, *cells), run=each.name))
    return ResultTable(9, "Labels of each action by origin", heads, tuple(rows), _notes(9, ours))


def own_action_table(each: NamedTables, number: int) -> ResultTable:
    """Return the labels of each action of a dataset whose actions are not MicroG-4M's, and what else it holds.

    `number` tells its table from those of other such datasets.
    """
    heads = (
        Head("ID"),
        Head("Action Name", number=False),
        Head("Group", number=False),
        *(Head(title) for title in _ORIGINS.values()),
        Head("%"),
    )
    frame = statistics.labels_per_action(each.tables)
    rows = [
        Row(
            "ours",
            (
                Cell(text=str(found["action_id"])),
                Cell(text=str(found["action"])),
                Cell(text=str(found["group"])),
                *(_count(float(found[origin])) for origin in _ORIGINS),
                Cell(float(found["all_percent"])),
            ),
            run=each.name,
        )
        for found in frame.to_dict("records")
    ]
    held = statistics.overview(each.tables)
    counts = zip(held["statistic"], held["all"], strict=True)
    notes = (
        f"actions of {each.tables.vocabulary.space.name}; fingerprint {each.fingerprint}",
        ", ".join(f"{statistics.cell_text(count)} {name}" for name, count in counts),
    )
    return ResultTable(None, f"Own actions {number}: labels of {each.name}", heads, tuple(rows), notes)


def qa_dataset_table(ours: Sequence[NamedTables]) -> ResultTable:
    """Return Table 10: how many questions datasets ask, of how much video, and of which kinds."""
    heads = (
        Head("Dataset", number=False),
        Head("Clips"),
        Head("QA pairs"),
        Head("Avg. QA/Clip"),
        Head("Clip Len. (s)"),
        Head("QA/sec"),
        Head("QA Types", number=False),
    )
    rows = []
    for row in qa_datasets_printed():
        rate = Cell(row.pairs_per_second, digits=3 if row.pairs_per_second < 0.01 else 2)
        cells = (
            Cell(text=row.name),
            _count(row.clips),
            _count(row.pairs),
            Cell(row.pairs_per_clip),
            _count(row.clip_seconds),
            rate,
            Cell(text=row.kinds),
        )
        rows.append(Row("published", cells))
    for each in ours:
        qa = each.tables.qa
        if qa.empty:
            continue
        asked = each.tables.kept[each.tables.kept["clip_id"].isin(qa["clip_id"])]
        seconds = float(statistics.durations(asked).mean())
        rate = len(qa) / len(asked)
        kinds = statistics.qa_kinds(each.tables)
        used = [str(name) for name, number in zip(kinds["kind"], kinds["questions"], strict=True) if number]
        cells = (
            Cell(text=each.name),
            _count(len(asked)),
            _count(len(qa)),
            Cell(rate),
            Cell(seconds, digits=1),
            Cell(rate / seconds if seconds else None),
            Cell(text=", ".join(used)),
        )
        rows.append(Row("ours", cells, run=each.name))
    return ResultTable(10, "Video question answering datasets", heads, tuple(rows), _notes(10, ours))


def _count_heads(first: str) -> tuple[Head, ...]:
    pairs = (Head(title, group=group) for group in _ORIGINS.values() for title in ("#", "%"))
    return (Head(first, number=False), *pairs)


def _published_counts(table: int) -> list[Row]:
    rows = []
    for row in counts_printed(table):  # pyright: ignore[reportArgumentType]
        pairs = (cell for origin in _ORIGINS for cell in (_count(row.counts[origin]), Cell(row.percents[origin])))
        rows.append(Row("published", (Cell(text=row.title), *pairs)))
    return rows


def _our_counts(each: NamedTables, table: int, counts: Mapping[str, Mapping[str, int]]) -> list[Row]:
    printed = {row.title: row.counts for row in counts_printed(table)}  # pyright: ignore[reportArgumentType]
    totals = {origin: sum(own[origin] for own in counts.values()) for origin in _ORIGINS}
    rows = []
    for title, own in counts.items():
        cells = [Cell(text=title)]
        for origin in _ORIGINS:
            cells.append(each.count(own[origin], printed.get(title, {}).get(origin)))
            cells.append(Cell(_share(own[origin], totals[origin])))
        rows.append(Row("ours", tuple(cells), run=each.name))
    return rows


def _by_origin(frame: pd.DataFrame, index: Sequence[object]) -> dict[str, int]:
    """Return the sums of some rows of a table of `statistics`, by origin; those that it lacks count zero."""
    part = frame[frame.index.isin(list(index))]
    return {origin: int(part[origin].sum()) for origin in _ORIGINS}


def _share(part: float, total: float) -> float | None:
    return 100 * float(part) / float(total) if total else None


def _count(value: float | None, digits: int = 0) -> Cell:
    return Cell() if value is None else Cell(float(value), digits=digits)


def _notes(table: int, ours: Sequence[NamedTables]) -> tuple[str, ...]:
    notes = [f"the paper contradicts itself: {item.text}" for item in contradictions() if table in item.tables]
    if any(each.is_published for each in ours):
        notes.append("(difference to the published number)")
    return tuple(notes)
