"""Table 3: models of AVA's actions on JHMDB, people on Earth, beside the same models on people in weightlessness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from microg.metrics.published.paper import PrintedTransfer, har_printed, transfer_printed
from microg.reports.run_folders import RunFolder
from microg.reports.tables.har_tables import PUBLISHED_SETS
from microg.reports.tables.result_table import Cell, Head, ResultTable, Row, beside, percent

_METRICS = ("map", "auroc")
# Of `microg har transfer`: the test sets, and on which classes both are scored.
_SETS = {"jhmdb": "JHMDB", "microg": "MicroG-4M"}
# Clips of the published test sets; scores on others are not compared with printed ones.
_CLIPS = {"jhmdb": 268, "microg": PUBLISHED_SETS["test"]["clips"]}
_SELECTIONS = {
    "published": "ids as they stand",
    "mapped": "every class of the map",
    "matched": "the classes that both test sets have",
}


def transfer_table(runs: Sequence[RunFolder]) -> ResultTable:
    """Return Table 3; below the published rows of a model those of each `har transfer` run, with the drop."""
    heads = (
        Head("Model", number=False),
        Head("TC", number=False),
        Head("Backbone", number=False),
        Head("Test Set", number=False),
        Head("mAP (%)", score=True),
        Head("AUROC (%)", score=True),
    )
    names = {(row.arch, row.frames, row.backbone): row.name for row in har_printed(2)}
    mine = [run for run in runs if run.metrics.get("sets")]
    rows: list[Row] = []
    placed: set[str] = set()
    models = dict.fromkeys((row.arch, row.frames, row.backbone) for row in transfer_printed())
    for about in models:
        printed = [row for row in transfer_printed() if (row.arch, row.frames, row.backbone) == about]
        for row in printed:
            cells = (*(Cell(text=text) for text in (*about, row.test_set)), Cell(row.map), Cell(row.auroc))
            rows.append(Row("published", cells, run=names.get(about, ""), protocol="paper"))
        for run in mine:
            if run.metrics.get("row") == names.get(about):
                placed.add(run.root)
                rows += _rows_of(run, about, printed)
    for run in mine:
        if run.root not in placed:
            rows += _rows_of(run, (str(run.metrics.get("model") or ""), "", ""), [])
    return ResultTable(3, "Transfer of AVA models to Earth and to weightlessness", heads, tuple(rows), _notes(mine))


def _rows_of(run: RunFolder, about: Sequence[str], printed: Sequence[PrintedTransfer]) -> list[Row]:
    published = {row.test_set: row for row in printed}
    rows = []
    for name, title in _SETS.items():
        counts = run.metrics["sets"].get(name, {}).get("counts", {})
        published_data = counts.get("clips") == _CLIPS[name]
        for selection, classes in _SELECTIONS.items():
            scores = run.metrics["sets"].get(name, {}).get("scores", {}).get(selection) or {}
            for protocol, values in (scores.get("protocols") or {}).items():
                cells = [_cell(values.get(metric) or {}) for metric in _METRICS]
                comparable = "published" if name == "microg" else "mapped"
                if published_data and title in published and protocol == "paper" and selection == comparable:
                    cells = [
                        beside(cell, getattr(published[title], metric))
                        for cell, metric in zip(cells, _METRICS, strict=True)
                    ]
                test_set = f"{title}, {classes} ({scores.get('with_truth', 0)})"
                texts = (Cell(text=text) for text in (*about, test_set))
                rows.append(Row("ours", (*texts, *cells), run=run.name, protocol=protocol))
    for selection, values in (run.metrics.get("drop") or {}).items():
        for protocol, drop in values.items():
            texts = (Cell(text=text) for text in (*about, f"drop from JHMDB to MicroG-4M, {_SELECTIONS[selection]}"))
            cells = (_cell(drop.get(metric) or {}) for metric in _METRICS)
            rows.append(Row("ours", (*texts, *cells), run=run.name, protocol=protocol))
    return rows


def _cell(found: Mapping[str, Any]) -> Cell:
    return Cell(percent(found.get("value")), low=percent(found.get("low")), high=percent(found.get("high")))


def _notes(runs: Sequence[RunFolder]) -> tuple[str, ...]:
    notes = [
        "macro averages in percent, [95% interval over clips]; in brackets after a test set the classes with truth",
        "(difference to the printed value, where a whole published test set was scored)",
        "JHMDB's classes are matched to AVA's by a map of ours; the paper does not print its own",
    ]
    for run in runs:
        left = [str(item.get("name")) for item in run.metrics.get("unmatched") or []]
        if left:
            notes.append(f"{run.name}: not in both test sets: {', '.join(left)}")
    return tuple(notes)
