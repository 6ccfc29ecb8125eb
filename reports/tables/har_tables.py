"""Action recognition in tables and on leaderboards: published rows, and `har score` runs with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from microg.metrics.bootstrap import Distribution, compare
from microg.metrics.har.registry import published_columns
from microg.metrics.published import har_row, har_rows
from microg.metrics.published.paper import PrintedHarRow, Split, contradictions, har_printed
from microg.reports.run_folders import RunFolder, model_name, predictions_run
from microg.reports.tables.leaderboard_rows import PUBLISHED_DATA, Board, Difference, Entry, read_resamples
from microg.reports.tables.result_table import Cell, Head, ResultTable, Row, beside, percent

PROTOCOLS = ("paper", "corrected")
# What the published test and validation sets hold; a run on other data is not compared with published rows.
PUBLISHED_SETS = {
    "test": {"clips": 953, "key_frames": 1091, "true_boxes": 1136, "labels": 2656},
    "val": {"clips": 475, "key_frames": 542, "true_boxes": 570, "labels": 1329},
}
_SPLITS: dict[Split, str] = {"val": "Validation", "test": "Test"}
_PUBLISHED_TITLE = "the published test set"


def har_table(runs: Sequence[RunFolder], *, fine_tuned: bool) -> ResultTable:
    """Return Table 1 (models fine-tuned on the 50 classes) or Table 2 (AVA models as they are).

    Runs that scored the same model on val and on test share a row.
    """
    splits: tuple[Split, ...] = ("val", "test") if fine_tuned else ("test",)
    heads = (
        Head("Arch", number=False),
        Head("TC", number=False),
        Head("Backbone", number=False),
        *([Head("#Params (M)")] if fine_tuned else []),
        *([] if fine_tuned else [Head("Pretrain", number=False), Head("Fine-tune", number=False)]),
        *(
            Head(f"{title} (%)", score=True, group=_SPLITS[split])
            for split in splits
            for title in published_columns().values()
        ),
    )
    mine = [run for run in runs if run.metrics.get("protocols") and is_fine_tuned(run) == fine_tuned]
    models = _by_model(mine)
    rows: list[Row] = []
    for printed in har_printed(1 if fine_tuned else 2):
        scores = [_printed_cell(printed, split, metric) for split in splits for metric in published_columns()]
        rows.append(Row("published", (*_about(printed, fine_tuned), *scores), run=printed.name, protocol="paper"))
        for model in models:
            if model.row == printed.name:
                rows += _rows_of(model, printed, splits, fine_tuned)
    known = {printed.name for printed in har_printed(1 if fine_tuned else 2)}
    for model in models:
        if model.row not in known:
            rows += _rows_of(model, None, splits, fine_tuned)
    title = "Action recognition, fine-tuned" if fine_tuned else "Action recognition, zero-shot from AVA"
    return ResultTable(1 if fine_tuned else 2, title, heads, tuple(rows), _notes(fine_tuned))


def split_of(run: RunFolder) -> Split:
    """Return which split's columns a run's scores stand in: those of val where it scored val, else those of test."""
    score = run.config.get("score")
    asked = score.get("split") if isinstance(score, dict) else None
    return "val" if asked == "val" or "/val/" in (run.row or "") else "test"


@dataclass(frozen=True)
class _Model:
    """Runs that scored one model, at most one a split; `row` is the published row that they are compared with."""

    row: str
    runs: Mapping[Split, RunFolder]


def _by_model(runs: Sequence[RunFolder]) -> list[_Model]:
    """Pair each run on val with the run on test of the same weights; every other run stands alone."""
    by_weights: dict[tuple[str, str], dict[Split, list[RunFolder]]] = {}
    for run in runs:
        made = predictions_run(run)
        weights = "" if made is None else str(made.metrics.get("weights_digest") or "")
        key = (_row_of(run), weights or f"alone/{run.root}")
        by_weights.setdefault(key, {}).setdefault(split_of(run), []).append(run)
    models = []
    for (row, _), found in by_weights.items():
        if all(len(each) == 1 for each in found.values()):
            models.append(_Model(row, {split: each[0] for split, each in found.items()}))
        else:
            models += [_Model(row, {split: run}) for split, each in found.items() for run in each]
    return models


def is_fine_tuned(run: RunFolder) -> bool:
    """Tell whether a run scored models of the 50 classes, not those of another label space."""
    return run.metrics.get("label_space") == "microg50" and "transfer" not in run.metrics


def on_published_data(run: RunFolder) -> bool:
    """Tell whether a run was scored on the published test (or, for a validation row, val) set, by what it holds."""
    counts = run.metrics.get("counts", {})
    return all(counts.get(name) == number for name, number in PUBLISHED_SETS[split_of(run)].items())


def scores_of(run: RunFolder, protocol: str) -> dict[str, Cell]:
    """Return the macro scores of a run under a protocol, in percent, by metric; empty where it was not scored so.

    The scorer stores intervals of the corrected protocol. Those of `paper` are the same ones moved to the paper's
    value: the same boxes and clips, ranked and thresholded a little differently.
    """
    found = run.metrics.get("protocols", {}).get(protocol)
    if not isinstance(found, dict):
        return {}
    corrected = run.metrics["protocols"].get("corrected", {})
    cells = {}
    for metric in published_columns():
        value = percent((found.get(metric) or {}).get("macro"))
        limits = corrected.get("intervals", {}).get(f"{metric}_macro", {}).get("clip", {})
        low, high = percent(limits.get("low")), percent(limits.get("high"))
        own = percent((corrected.get(metric) or {}).get("macro"))
        if value is None or low is None or high is None or own is None:
            cells[metric] = Cell(value)
        else:
            cells[metric] = Cell(value, low=max(value + low - own, 0.0), high=min(value + high - own, 100.0))
    return cells


def describe_data(run: RunFolder) -> str:
    """Say what a run was scored on."""
    counts = run.metrics.get("counts", {})
    return (
        f"{counts.get('clips', 0):,} clips, {counts.get('true_boxes', 0):,} boxes, {counts.get('labels', 0):,} labels"
    )


def _rows_of(model: _Model, printed: PrintedHarRow | None, splits: Sequence[Split], fine_tuned: bool) -> list[Row]:
    runs = list(model.runs.values())
    about = _about(printed, fine_tuned) if printed is not None else [Cell(text=model_name(runs[0]) or "")]
    about += [Cell()] * ((4 if fine_tuned else 5) - len(about))
    rows = []
    for protocol in PROTOCOLS:
        by_split = {split: _compared_cells(run, protocol) for split, run in model.runs.items()}
        if not any(by_split.values()):
            continue
        cells = [by_split.get(split, {}).get(metric, Cell()) for split in splits for metric in published_columns()]
        first = protocol == "paper" or all(len(run.metrics["protocols"]) == 1 for run in runs)
        note = "; ".join(dict.fromkeys(text for run in runs for text in _note(run, printed))) if first else ""
        names = " + ".join(run.name for run in runs)
        rows.append(Row("ours", (*about, *cells), run=names, protocol=protocol, note=note))
    return rows


def _compared_cells(run: RunFolder, protocol: str) -> dict[str, Cell]:
    """Return the cells of a run, beside the published ones where it was scored on their data by their protocol."""
    cells, compared = scores_of(run, protocol), _compared(run)
    if protocol == "paper" and compared and on_published_data(run):
        published = {metric: percent(item["published"]) for metric, item in compared.items()}
        return {metric: beside(cell, published.get(metric)) for metric, cell in cells.items()}
    return cells


def _compared(run: RunFolder) -> dict[str, Mapping[str, Any]]:
    return {item["metric"]: item for item in run.metrics.get("published", {}).get("metrics", [])}


def _note(run: RunFolder, printed: PrintedHarRow | None) -> list[str]:
    parts, compared = [], _compared(run)
    if not on_published_data(run):
        parts.append(
            f"other data than the published {split_of(run)} set ({describe_data(run)}): not compared with published "
            "rows"
        )
    elif printed is not None and compared and all(item["inside"] for item in compared.values()):
        parts.append("re-derives the published row: every value lies in the bracket that ties and rounding allow")
    if "/val/" in (run.row or ""):
        parts.append(f"validation is compared with the published run {run.row}")
    if "transfer" in run.metrics:
        parts.append(f"scored on the classes shared with {run.metrics['transfer'].get('onto', 'another label space')}")
    return parts


def _row_of(run: RunFolder) -> str:
    return (run.row or "").partition("/")[0]


def _about(printed: PrintedHarRow, fine_tuned: bool) -> list[Cell]:
    """Return what identifies a published model, as the paper prints it."""
    cells = [
        Cell(text=printed.arch, doubt=printed.doubts.get("arch")),
        Cell(text=printed.frames),
        Cell(text=printed.backbone),
    ]
    if fine_tuned:
        return [*cells, Cell(printed.params)]
    return [*cells, Cell(text=printed.pretrain), Cell(text=printed.fine_tune)]


def _printed_cell(printed: PrintedHarRow, split: Split, metric: str) -> Cell:
    return Cell(printed.scores.get(split, {}).get(metric), doubt=printed.doubts.get(f"{split}.{metric}"))


def _notes(fine_tuned: bool) -> tuple[str, ...]:
    number = 1 if fine_tuned else 2
    notes = [
        "macro averages in percent; paper: the published scoring to the letter, corrected: truth by box, ties grouped, "
        "p >= 0.5, classes with truth only",
        "[95% interval over clips]; for paper the interval of corrected moved to the paper's value",
        "(difference to the published value; * where the interval excludes it)",
    ]
    if fine_tuned:
        notes.append("published validation is that of the epoch that was tested")
    else:
        notes.append("published F1 and recall are averages over 80 AVA classes, not comparable with Table 1's over 50")
    notes += [f"the paper contradicts itself: {item.text}" for item in contradictions() if number in item.tables]
    return tuple(notes)


def _board_rows(runs: Sequence[RunFolder], *, fine_tuned: bool) -> list[Entry]:
    mine = [run for run in runs if run.metrics.get("protocols") and is_fine_tuned(run) == fine_tuned]
    if not mine:
        return []
    rows = []
    for row in map(har_row, har_rows()):
        if (row.label_space == "microg50") == fine_tuned:
            cells = {metric: Cell(percent(row.scores.get(metric))) for metric in published_columns()}
            cells["params"] = Cell(row.params / 1e6)
            about = f"epoch {row.epoch}" if row.epoch else row.label_space
            rows.append(
                Entry(
                    name=row.title,
                    origin="published",
                    protocol="paper",
                    data=PUBLISHED_DATA,
                    data_title=_PUBLISHED_TITLE,
                    cells=cells,
                    about=about,
                )
            )
    return rows + [entry for run in mine for entry in _run_entries(run)]


def _run_entries(run: RunFolder) -> list[Entry]:
    published = on_published_data(run) and split_of(run) == "test"
    space = str(run.metrics.get("label_space", ""))
    same = published and "transfer" not in run.metrics
    title = _PUBLISHED_TITLE if published else describe_data(run)
    if "transfer" in run.metrics:
        title += f", classes shared with {run.metrics['transfer'].get('onto', space)}"
    warnings = len(run.metrics.get("findings", []))
    return [
        Entry(
            name=run.name,
            origin="ours",
            protocol=protocol,
            data=PUBLISHED_DATA if same else f"{run.config.get('truth_digest')}-{space}",
            data_title=title,
            cells=cells,
            run=run.name,
            about=model_name(run) or "",
            note=f"{warnings} warning{'s' if warnings != 1 else ''}" if warnings else "",
        )
        for protocol in PROTOCOLS
        if (cells := scores_of(run, protocol))
    ]


def _resamples(run: RunFolder, protocol: str) -> Distribution | None:
    """Return the resampled mAP: the scorer stores that of the corrected protocol only."""
    return read_resamples(run, "har_bootstrap", "map", unit="clip") if protocol == "corrected" else None


def _compare(first: Distribution, second: Distribution, scores: tuple[float, float]) -> Difference:
    found = compare(first, second, scores, "map")
    return Difference(found.difference, found.low, found.high)


BOARD = Board(
    key="har",
    title="Action recognition",
    columns={**published_columns(), "params": "Params (M)"},
    main="map",
    protocols=PROTOCOLS,
    entries=partial(_board_rows, fine_tuned=True),
    resamples=_resamples,
    compare=_compare,
)
ZERO_SHOT_BOARD = replace(
    BOARD,
    key="zero-shot",
    title="Action recognition, other label spaces",
    entries=partial(_board_rows, fine_tuned=False),
)
