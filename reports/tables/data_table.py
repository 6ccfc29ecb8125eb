"""Table 1 in the paper's shape: what the published dataset and ours hold."""

from __future__ import annotations

from collections.abc import Sequence

from microg.data.dataset import Dataset
from microg.data.statistics import Tables, overview
from microg.reports.tables.result_table import Cell, Head, ResultTable, Row

# The published dataset as its authors count it: how many clips, actions, labels, boxes, captions and questions.
_PUBLISHED_DATA = {
    "clips": 4759,
    "actions used": 50,
    "action labels": 13261,
    "boxes": 390_000,
    "captions": 1238,
    "question-answer pairs": 7428,
}
_DATA_HEADS = {
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


def data_table(datasets: Sequence[Dataset]) -> ResultTable:
    """Return Table 1: how much the published dataset and each of these hold."""
    heads = (Head("Dataset", number=False), *(Head(title) for title in _DATA_HEADS.values()))
    cells = [_count(_PUBLISHED_DATA.get(name)) for name in _DATA_HEADS]
    rows = [Row("published", (Cell(text="MicroG-4M"), *cells))]
    for dataset in datasets:
        frame = overview(Tables.load(dataset))
        held = dict(zip(frame["statistic"].tolist(), frame["all"].tolist(), strict=True))
        cells = [_count(float(held[name]), digits=1 if name == "minutes" else 0) for name in _DATA_HEADS]
        name = str(dataset.info.get("name", "dataset"))
        rows.append(Row("ours", (Cell(text=name), *cells), run=name, note=f"fingerprint {dataset.fingerprint()}"))
    notes = ("published counts are the authors' own, boxes rounded by them; empty is what they do not state",)
    return ResultTable(1, "What the data hold", heads, tuple(rows), notes)


def _count(value: float | None, digits: int = 0) -> Cell:
    return Cell() if value is None else Cell(float(value), digits=digits)
