"""Tables 1 to 5 in the paper's shape: published rows, our runs beside them, and what tells them apart.

1 the data, 2 fine-tuned action recognition, 3 action recognition without fine-tuning, 4 captioning, 5 questions.
"""

from __future__ import annotations

from collections.abc import Sequence

from microg.data.dataset import Dataset
from microg.data.statistics import Tables, overview
from microg.reports.run_folders.runs import RunFolder
from microg.reports.tables.har_tables import har_table
from microg.reports.tables.result_table import Cell, Head, ResultTable, Row
from microg.reports.tables.text_tables import text_table

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


def paper_tables(runs: Sequence[RunFolder], datasets: Sequence[Dataset] = ()) -> list[ResultTable]:
    """Return the five tables; those that no run adds to hold the published rows only."""
    scored = [run for run in runs if run.command == "har score"]
    texts = [run for run in runs if run.command == "vlm score"]
    return [
        data_table(datasets),
        har_table(scored, fine_tuned=True),
        har_table(scored, fine_tuned=False),
        text_table(texts, "caption"),
        text_table(texts, "vqa"),
    ]


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
