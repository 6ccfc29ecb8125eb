"""Action recognition in tables and on leaderboards: published rows, and `har score` runs with their intervals."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from microg.metrics.bootstrap import Distribution, compare
from microg.metrics.har.registry import published_columns
from microg.metrics.published import PublishedRow, har_row, har_rows
from microg.reports.run_folders import RunFolder, model_name
from microg.reports.tables.leaderboard_rows import PUBLISHED_DATA, Board, Difference, Entry, read_resamples
from microg.reports.tables.result_table import Cell, Head, ResultTable, Row, beside, percent

PROTOCOLS = ("paper", "corrected")
# What the published test and validation sets hold; a run on other data is not compared with published rows.
PUBLISHED_SETS = {
    "test": {"clips": 953, "key_frames": 1091, "true_boxes": 1136, "labels": 2656},
    "val": {"clips": 475, "key_frames": 542, "true_boxes": 570, "labels": 1329},
}
# The paper's order of rows.
_ORDER = (
    "C2D_8x8_R50 C2D_NLN_8x8_R50 I3D_8x8_R50 I3D_NLN_8x8_R50 SLOWONLY_8x8_R50 SLOWONLY_4x16_R50 SLOWFAST_8x8_R50 "
    "SLOWFAST_4x16_R50 MVIT_B_16x4 MVITv2_S_16x4 X3D_S X3D_L ZEROSHOT_SLOW_8x8_R50_K400 "
    "ZEROSHOT_SLOWFAST_32x2_R101_K600"
)
_TITLE = re.compile(r"(?P<arch>.+?)[ -](?P<backbone>R50|R101|B|S|L) (?P<frames>\d+)x(?P<rate>\d+)")
_BACKBONES = {"B": "B-CONV"}  # as the paper prints it
_PUBLISHED_TITLE = "the published test set"


def har_table(runs: Sequence[RunFolder], *, fine_tuned: bool) -> ResultTable:
    """Return Table 2 (models fine-tuned on the 50 classes) or Table 3 (AVA models as they are)."""
    heads = (
        Head("Arch", number=False),
        Head("TC", number=False),
        Head("Backbone", number=False),
        Head("Params (M)"),
        *(Head(f"{title} (%)", score=True) for title in published_columns().values()),
    )
    rows = []
    mine = [run for run in runs if run.metrics.get("protocols") and is_fine_tuned(run) == fine_tuned]
    order = {name: place for place, name in enumerate(_ORDER.split())}
    for name in sorted(har_rows(), key=lambda name: order.get(name, len(order))):
        row = har_row(name)
        if (row.label_space == "microg50") != fine_tuned:
            continue
        scores = [Cell(percent(row.scores.get(metric))) for metric in published_columns()]
        rows.append(Row("published", (*_about(row), *scores), run=name, protocol="paper"))
        for run in mine:
            if _model_of_row(run) == name:
                rows += _rows_of(run, row)
    for run in mine:
        if _model_of_row(run) not in har_rows():
            rows += _rows_of(run, None)
    title = "Action recognition, fine-tuned" if fine_tuned else "Action recognition, zero-shot from AVA"
    return ResultTable(2 if fine_tuned else 3, title, heads, tuple(rows), _notes(fine_tuned))


def is_fine_tuned(run: RunFolder) -> bool:
    """Tell whether a run scored models of the 50 classes, not those of another label space."""
    return run.metrics.get("label_space") == "microg50" and "transfer" not in run.metrics


def on_published_data(run: RunFolder) -> bool:
    """Tell whether a run was scored on the published test (or, for a validation row, val) set, by what it holds."""
    counts = run.metrics.get("counts", {})
    split = "val" if "/val/" in (run.row or "") else "test"
    return all(counts.get(name) == number for name, number in PUBLISHED_SETS[split].items())


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


def _rows_of(run: RunFolder, row: PublishedRow | None) -> list[Row]:
    about = _about(row) if row is not None else [Cell(text=model_name(run) or ""), Cell(), Cell(), Cell()]
    compared = {item["metric"]: item for item in run.metrics.get("published", {}).get("metrics", [])}
    rows = []
    for protocol in PROTOCOLS:
        cells = scores_of(run, protocol)
        if not cells:
            continue
        if protocol == "paper" and compared and on_published_data(run):
            printed = {metric: percent(item["published"]) for metric, item in compared.items()}
            cells = {metric: beside(cell, printed.get(metric)) for metric, cell in cells.items()}
        note = _note(run, row, compared) if protocol == "paper" or len(run.metrics["protocols"]) == 1 else ""
        rows.append(Row("ours", (*about, *cells.values()), run=run.name, protocol=protocol, note=note))
    return rows


def _note(run: RunFolder, row: PublishedRow | None, compared: Mapping[str, Mapping[str, Any]]) -> str:
    parts = []
    if not on_published_data(run):
        parts.append(f"other data than the published test set ({describe_data(run)}): not compared with published rows")
    elif row is not None and compared and all(item["inside"] for item in compared.values()):
        parts.append("re-derives the published row: every value lies in the bracket that ties and rounding allow")
    if "/val/" in (run.row or ""):
        parts.append(f"compared with {run.row}, not with the test row above")
    if "transfer" in run.metrics:
        parts.append(f"scored on the classes shared with {run.metrics['transfer'].get('onto', 'another label space')}")
    return "; ".join(parts)


def _model_of_row(run: RunFolder) -> str:
    return (run.row or "").partition("/")[0]


def _about(row: PublishedRow) -> list[Cell]:
    """Return architecture, frames x rate, backbone and millions of parameters."""
    found = _TITLE.match(row.title)
    if found is None:
        return [Cell(text=row.title), Cell(), Cell(), Cell(row.params / 1e6)]
    backbone = _BACKBONES.get(found["backbone"], found["backbone"])
    frames = f"{found['frames']}×{found['rate']}"
    return [Cell(text=found["arch"]), Cell(text=frames), Cell(text=backbone), Cell(row.params / 1e6)]


def _notes(fine_tuned: bool) -> tuple[str, ...]:
    notes = [
        "macro averages in percent; paper: the published scoring to the letter, corrected: truth by box, ties grouped, "
        "p >= 0.5, classes with truth only",
        "[95% interval over clips]; for paper the interval of corrected moved to the paper's value",
        "(difference to the published value; * where the interval excludes it)",
    ]
    if not fine_tuned:
        notes.append("published F1 and recall are averages over 80 AVA classes, not comparable with Table 2's over 50")
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
    published = on_published_data(run) and "/val/" not in (run.row or "")
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
