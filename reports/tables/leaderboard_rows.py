"""Rows of the leaderboard: every scored run and published row under every protocol, with the data it was scored on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from microg.metrics.published import har_row, har_rows, text_row, text_rows
from microg.reports.run_folders.runs import RunFolder
from microg.reports.run_folders.sources import model_name
from microg.reports.tables import har_tables as har
from microg.reports.tables import text_tables as text
from microg.reports.tables.result_table import Cell, Origin, percent
from microg.texts.items import Task

_PUBLISHED = "published"


@dataclass(frozen=True)
class Board:
    """One board: its anchor, title, columns by key, the one that ranks, and protocols in order."""

    key: str
    title: str
    columns: dict[str, str]
    main: str
    protocols: tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """One row: a system under a protocol on some data.

    `data` tells rows that may be ranked together; `against` is how it stands to the best of them, as
    {difference, low, high, best}, None where resamples are not paired; `is_best` tells the best run among them.
    """

    name: str
    origin: Origin
    protocol: str
    data: str
    data_title: str
    cells: dict[str, Cell]
    run: str = ""
    about: str = ""
    note: str = ""
    rank: int = 0
    against: dict[str, Any] | None = None
    is_best: bool = False


HAR = Board("har", "Action recognition", {**har.METRICS, "params": "Params (M)"}, "map", har.PROTOCOLS)
ZERO_SHOT = Board("zero-shot", "Action recognition, other label spaces", HAR.columns, "map", har.PROTOCOLS)
CAPTIONS = Board("captions", "Captioning", {key: key for key in text.columns("caption")}, "S-BERT", text.PROTOCOLS)
ANSWERS = Board("answers", "Question answering", {key: key for key in text.columns("vqa")}, "S-VQA", text.PROTOCOLS)
BOARDS = (HAR, ZERO_SHOT, CAPTIONS, ANSWERS)


def entries(board: Board, runs: Sequence[RunFolder]) -> list[Entry]:
    """Return the rows of a board, empty when no run has a place on it."""
    if board in (HAR, ZERO_SHOT):
        mine = [run for run in runs if run.command == "har score" and run.metrics.get("protocols")]
        mine = [run for run in mine if har.is_fine_tuned(run) == (board is HAR)]
        return [*_published_har(board), *(entry for run in mine for entry in _har(run))] if mine else []
    task: Task = "caption" if board is CAPTIONS else "vqa"
    mine = [run for run in runs if run.command == "vlm score" and task in run.metrics.get("tasks", {})]
    if not mine:
        return []
    return [*_published_texts(task), *(entry for run in mine for entry in _texts(run, task)), *_baselines(mine, task)]


def _published_har(board: Board) -> list[Entry]:
    found = []
    for name in har_rows():
        row = har_row(name)
        if (row.label_space == "microg50") != (board is HAR):
            continue
        cells = {metric: Cell(percent(row.scores.get(metric))) for metric in har.METRICS}
        cells["params"] = Cell(row.params / 1e6)
        about = f"epoch {row.epoch}" if row.epoch else row.label_space
        found.append(Entry(row.title, "published", "paper", _PUBLISHED, _title("test set"), cells, about=about))
    return found


def _har(run: RunFolder) -> list[Entry]:
    published = har.on_published_data(run) and "/val/" not in (run.row or "")
    space = str(run.metrics.get("label_space", ""))
    data = _PUBLISHED if published and "transfer" not in run.metrics else f"{run.config.get('truth_digest')}-{space}"
    title = _title("test set") if published else har.describe_data(run)
    if "transfer" in run.metrics:
        title += f", classes shared with {run.metrics['transfer'].get('onto', space)}"
    rows = []
    for protocol in har.PROTOCOLS:
        cells = har.scores_of(run, protocol)
        if cells:
            rows.append(
                Entry(
                    run.name,
                    "ours",
                    protocol,
                    data,
                    title,
                    cells,
                    run.name,
                    model_name(run) or "",
                    _warnings(len(run.metrics.get("findings", []))),
                )
            )
    return rows


def _published_texts(task: Task) -> list[Entry]:
    found = []
    for name in text_rows():
        row = text_row(name)
        if task not in row.scores:
            continue
        doubts = row.doubts.get(task, {})
        cells = {key: Cell(row.scores[task].get(key), doubt=doubts.get(key)) for key in text.columns(task)}
        about = f"{row.frames} frames"
        found.append(Entry(row.title, "published", "paper", _PUBLISHED, _title("references"), cells, about=about))
    return found


def _texts(run: RunFolder, task: Task) -> list[Entry]:
    data, title = _text_data(run, task)
    counts = run.metrics.get("coverage", {}).get(task, {})
    bad = sum(int(counts.get(what) or 0) for what in ("missing", "failed", "empty"))
    note = f"{bad:,} of {counts.get('items', 0):,} without a text" if bad else ""
    rows = []
    for protocol in text.PROTOCOLS:
        found = text.scores_of(run, task, protocol)
        if found:
            cells = {key: found.get(key, Cell()) for key in text.columns(task)}
            about = str(run.metrics.get("model") or model_name(run) or "")
            rows.append(Entry(run.name, "ours", protocol, data, title, cells, run.name, about, note))
    return rows


def _text_data(run: RunFolder, task: Task) -> tuple[str, str]:
    if text.on_published_data(run, task):
        return _PUBLISHED, _title("references")
    noun = "captions" if task == "caption" else "answers"
    return str(run.config.get("references_digest")), f"{text.items_of(run, task):,} {noun}"


def _baselines(runs: Sequence[RunFolder], task: Task) -> list[Entry]:
    rows: dict[tuple[str, str, str], Entry] = {}
    for run in runs:
        data, title = _text_data(run, task)
        for protocol in text.PROTOCOLS:
            for system, cells in text.baselines_of(run, task, protocol).items():
                about = text.baseline_about(system, task)
                rows.setdefault(
                    (data, protocol, system), Entry(system, "baseline", protocol, data, title, cells, about=about)
                )
    return list(rows.values())


def _title(what: str) -> str:
    return f"the published {what}"


def _warnings(number: int) -> str:
    return f"{number} warning{'s' if number != 1 else ''}" if number else ""
