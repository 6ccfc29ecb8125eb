"""Captions and answers in tables and on leaderboards: published rows, `vlm score` runs, and baselines."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from microg.arrow import pc
from microg.metrics.bootstrap import Distribution
from microg.metrics.published import PublishedTextRow, text_row, text_rows
from microg.metrics.text import registry
from microg.metrics.text.intervals import compare_texts
from microg.models.vlm.cards import successor_note
from microg.reports.run_folders import RunFolder, model_name, predictions_run
from microg.reports.tables.leaderboard_rows import PUBLISHED_DATA, Board, Difference, Entry, read_resamples
from microg.reports.tables.result_table import Cell, Head, ResultTable, Row, beside
from microg.texts.items import Task

PROTOCOLS = ("paper", "standard")
PUBLISHED_ITEMS = {"caption": 1238, "vqa": 7428}
_RANKING = "sbert"  # the score that boards are sorted by
NOUNS: dict[Task, str] = {"caption": "captions", "vqa": "answers"}
_PUBLISHED_TITLE = "the published references"
_BASELINES = {
    ("constant", "caption"): "one caption for every clip",
    ("constant", "vqa"): "one answer to every question",
    ("blind", "caption"): "another clip's reference",
    ("blind", "vqa"): "the likeliest answer to the question",
    ("shuffled", "caption"): "the model's caption of another clip",
    ("shuffled", "vqa"): "its answer to another clip",
}


def columns(task: Task) -> tuple[str, ...]:
    """Return the score columns of the paper's table in its order, then those of metrics that it does not have.

    >>> columns("vqa")[4]
    'S-VQA'
    """
    printed = next(row.scores[task] for row in map(text_row, text_rows()) if task in row.scores)
    return tuple(dict.fromkeys([*printed, *registry.columns(task)]))


def text_table(runs: Sequence[RunFolder], task: Task) -> ResultTable:
    """Return Table 4 (captioning) or Table 5 (questions)."""
    heads = (
        Head("Model", number=False),
        Head("#f"),
        *(Head(f"{title} (%)", score=True) for title in columns(task)),
    )
    rows: list[Row] = []
    mine = [run for run in runs if task in run.metrics.get("tasks", {})]
    known = [name for name in text_rows() if task in text_row(name).scores]
    for name in known:
        row = text_row(name)
        rows.append(_published(row, task))
        for run in mine:
            if (run.row or "").lower() == name:
                rows += _rows_of(run, task, row)
    for run in mine:
        if (run.row or "").lower() not in known:
            rows += _rows_of(run, task, None)
    rows += _baseline_rows(mine, task)
    title = "Captioning" if task == "caption" else "Question answering"
    return ResultTable(4 if task == "caption" else 5, title, heads, tuple(rows), _notes())


def baseline_about(system: str, task: Task) -> str:
    """Say what a system that sees no video does.

    >>> baseline_about("blind", "vqa")
    'the likeliest answer to the question'
    """
    return _BASELINES.get((system, task), "sees no video")


def items_of(run: RunFolder, task: Task) -> int:
    """Return how many captions or answers a run scored."""
    return int(run.metrics.get("coverage", {}).get(task, {}).get("items", 0))


def on_published_data(run: RunFolder, task: Task) -> bool:
    """Tell whether a run scored as many items as the published dataset has."""
    return items_of(run, task) == PUBLISHED_ITEMS[task]


def scores_of(run: RunFolder, task: Task, protocol: str) -> dict[str, Cell]:
    """Return the paper's columns of a run, in percent, with intervals over clips; empty where not scored so.

    A score made by another encoder than the paper's is in no column.
    """
    found = run.metrics.get("tasks", {}).get(task, {}).get(protocol)
    if not isinstance(found, dict):
        return {}
    cells = {}
    for name, value in found.get("scores", {}).items():
        column = registry.column(name, task)
        if column is None or value is None:
            continue
        limits = found.get("intervals", {}).get(name) or {}
        low, high = (limits.get(end) for end in ("low", "high"))
        cells[column] = Cell(
            value * registry.PERCENT,
            low=None if low is None else low * registry.PERCENT,
            high=None if high is None else high * registry.PERCENT,
        )
    return cells


def _published(row: PublishedTextRow, task: Task) -> Row:
    doubts = row.doubts.get(task, {})
    cells = [Cell(row.scores[task].get(title), doubt=doubts.get(title)) for title in columns(task)]
    notes = [successor_note(row.title), *(f"{title} is doubtful: {why}" for title, why in doubts.items())]
    note = "; ".join(filter(None, notes))
    about = (Cell(text=row.title), Cell(float(row.frames), digits=0))
    return Row("published", (*about, *cells), run=row.name, protocol="paper", note=note)


def _rows_of(run: RunFolder, task: Task, row: PublishedTextRow | None) -> list[Row]:
    same = on_published_data(run, task)
    name = run.metrics.get("model") or model_name(run) or ""
    frames = _frames_of(run)
    rows = []
    for protocol in PROTOCOLS:
        found = scores_of(run, task, protocol)
        if not found:
            continue
        cells = [found.get(title, Cell()) for title in columns(task)]
        if protocol == "paper" and row is not None and same:
            published = row.scores[task]
            cells = [beside(cell, published.get(title)) for title, cell in zip(columns(task), cells, strict=True)]
        notes = _on_rule(run)
        if protocol == "paper" and not same:
            notes.append(
                f"{items_of(run, task):,} items, not the published {PUBLISHED_ITEMS[task]:,}: "
                "not compared with published rows"
            )
        about = (Cell(text=name), frames)
        rows.append(Row("ours", (*about, *cells), run=run.name, protocol=protocol, note="; ".join(notes)))
    return rows


def _on_rule(run: RunFolder) -> list[str]:
    """Return a note where answers were not scored as the model wrote them."""
    clean = (run.metrics.get("answers") or {}).get("rule") == "clean"
    return ["only the answers in what the model wrote (--answers clean)"] if clean else []


def _frames_of(run: RunFolder) -> Cell:
    """Return how many frames the answers were made from, empty where that is not known."""
    made = predictions_run(run)
    if made is None or not made.has("generations"):
        return Cell()
    lengths = pc.list_value_length(made.table("generations")["frame_indices"]).drop_null()
    return Cell(float(pc.mode(lengths)[0]["mode"].as_py()), digits=0) if len(lengths) else Cell()


def baselines_of(run: RunFolder, task: Task, protocol: str) -> dict[str, dict[str, Cell]]:
    """Return the paper's columns, in percent, of each system that sees no video; empty where none was scored."""
    found = run.metrics.get("tasks", {}).get(task, {}).get(protocol) or {}
    result = {}
    for system, scores in (found.get("baselines") or {}).items():
        by_column = {registry.column(name, task): value for name, value in scores.items()}
        values = {title: by_column.get(title) for title in columns(task)}
        result[system] = {
            title: Cell() if value is None else Cell(value * registry.PERCENT) for title, value in values.items()
        }
    return result


def _baseline_rows(runs: Sequence[RunFolder], task: Task) -> list[Row]:
    """Return the baselines of each set of references, once."""
    rows, seen = [], set()
    for run in runs:
        found = run.metrics["tasks"][task].get("paper") or {}
        corpus = (found.get("corpus") or {}).get("hash")
        if corpus in seen:
            continue
        seen.add(corpus)
        for system, cells in baselines_of(run, task, "paper").items():
            about = (Cell(text=f"{system}: {baseline_about(system, task)}"), Cell(0.0, digits=0))
            rows.append(Row("baseline", (*about, *cells.values()), run=run.name, protocol="paper"))
    return rows


def _notes() -> tuple[str, ...]:
    return (
        "in percent, CIDEr-D x 100; paper: raw strings, standard: COCO's tokenizer and lower case",
        "[95% interval over clips] (difference to the published value; * where the interval excludes it)",
        "baselines see no video: what they reach can be had without looking",
    )


def _board_rows(runs: Sequence[RunFolder], *, task: Task) -> list[Entry]:
    mine = [run for run in runs if task in run.metrics.get("tasks", {})]
    if not mine:
        return []
    rows = []
    for row in map(text_row, text_rows()):
        if task in row.scores:
            doubts = row.doubts.get(task, {})
            rows.append(
                Entry(
                    name=row.title,
                    origin="published",
                    protocol="paper",
                    data=PUBLISHED_DATA,
                    data_title=_PUBLISHED_TITLE,
                    cells={key: Cell(row.scores[task].get(key), doubt=doubts.get(key)) for key in columns(task)},
                    about=f"{row.frames} frames",
                )
            )
    baselines: dict[tuple[str, str, str], Entry] = {}
    for run in mine:
        rows += _run_entries(run, task)
        for entry in _baseline_entries(run, task):
            baselines.setdefault((entry.data, entry.protocol, entry.name), entry)
    return [*rows, *baselines.values()]


def _run_entries(run: RunFolder, task: Task) -> list[Entry]:
    data, title = _data(run, task)
    counts = run.metrics.get("coverage", {}).get(task, {})
    bad = sum(int(counts.get(what) or 0) for what in ("missing", "failed", "empty"))
    notes = [f"{bad:,} of {counts.get('items', 0):,} without a text"] if bad else []
    notes += _on_rule(run)
    return [
        Entry(
            name=run.name,
            origin="ours",
            protocol=protocol,
            data=data,
            data_title=title,
            cells={key: cells.get(key, Cell()) for key in columns(task)},
            run=run.name,
            about=str(run.metrics.get("model") or model_name(run) or ""),
            note="; ".join(notes),
        )
        for protocol in PROTOCOLS
        if (cells := scores_of(run, task, protocol))
    ]


def _baseline_entries(run: RunFolder, task: Task) -> list[Entry]:
    data, title = _data(run, task)
    return [
        Entry(
            name=system,
            origin="baseline",
            protocol=protocol,
            data=data,
            data_title=title,
            cells=cells,
            about=baseline_about(system, task),
        )
        for protocol in PROTOCOLS
        for system, cells in baselines_of(run, task, protocol).items()
    ]


def _data(run: RunFolder, task: Task) -> tuple[str, str]:
    """Return the key of the references that a run was scored on, and what they are in words."""
    if on_published_data(run, task):
        return PUBLISHED_DATA, _PUBLISHED_TITLE
    return str(run.config.get("references_digest")), f"{items_of(run, task):,} {NOUNS[task]}"


def _resamples(run: RunFolder, protocol: str, *, task: Task) -> Distribution | None:
    return read_resamples(run, "text_bootstrap", _RANKING, task=task, protocol=protocol)


def _compare(first: Distribution, second: Distribution, scores: tuple[float, float]) -> Difference:
    found = compare_texts(first, second, scores, _RANKING)
    return Difference(found["difference"], found["low"], found["high"])


def _board(key: str, title: str, task: Task) -> Board:
    return Board(
        key=key,
        title=title,
        columns={column: column for column in columns(task)},
        main=registry.column(_RANKING, task) or _RANKING,
        protocols=PROTOCOLS,
        entries=partial(_board_rows, task=task),
        resamples=partial(_resamples, task=task),
        compare=_compare,
    )


CAPTION_BOARD = _board("captions", "Captioning", "caption")
ANSWER_BOARD = _board("answers", "Question answering", "vqa")
