"""A leaderboard of many runs and the published rows: one page with boards of action recognition, captions, answers.

Only runs on the same data under the same protocol are ranked together. Without JavaScript the boards are plain tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from microg import storage
from microg.errors import DatasetError
from microg.escaping import csv_text, json_text
from microg.locks import exclusive_file
from microg.reports.html import environment, render_page, section
from microg.reports.pages.report import WrittenPage, page_and_tables, written_page
from microg.reports.run_folders import RunFolder, find_runs
from microg.reports.run_kinds.registry import of_kind, run_kinds
from microg.reports.tables.leaderboard_rows import Board, Entry


@dataclass(frozen=True)
class _OrderedBoard:
    """A board as the page has it: its entries in order, and the choices of its switches."""

    board: Board
    entries: tuple[Entry, ...]
    protocols: tuple[str, ...]
    data: tuple[tuple[str, str], ...]


def build_leaderboard(paths: Sequence[str], out: str = "leaderboard.html", *, title: str | None = None) -> WrittenPage:
    """Write the leaderboard of all scored runs in these folders; returns what was written and read.

    `out` is a page (`.html`) or a folder; the rows lie beside it as CSV and JSON. Raises `DatasetError` when a folder
    holds no run, or no run has scores.
    """
    page, _ = page_and_tables(out)
    if not out.endswith((".html", ".htm")):
        page = storage.join(out, "leaderboard.html")
    runs = find_runs(paths)
    with exclusive_file(page):
        return _write(runs, page, title)


def _write(runs: Sequence[RunFolder], page: str, title: str | None) -> WrittenPage:
    boards = [
        _ordered(board, entries)
        for kind in run_kinds()
        for board in kind.boards
        if (entries := board.ranked(of_kind(runs, kind)))
    ]
    if not boards:
        raise DatasetError(
            f"none of the {len(runs)} runs there has scores", "score them first: 'microg har score', 'microg vlm score'"
        )
    stem = page.rpartition(".")[0]
    sections = [section(one.board.key, one.board.title, "board", **vars(one)) for one in boards]
    scored = {entry.run for one in boards for entry in one.entries if entry.run}
    left = [run.name for run in runs if run.name not in scored]
    sections.append(section("about", "About", "board_about", runs=len(scored), left=left))
    subtitle = f"{len(scored)} scored run{'s' if len(scored) != 1 else ''} beside the published rows"
    script = environment.get_template("leaderboard.js").render()
    text = render_page(title or "MicroG-Bench leaderboard", subtitle, sections, script=script)
    files = {
        page: text,
        f"{stem}.csv": _csv(boards),
        f"{stem}.json": json_text([_plain(one) for one in boards]) + "\n",
    }
    for path, content in files.items():
        storage.write_bytes(path, content.encode())
    notes = [f"without scores to rank: {', '.join(left)}"] if left else []
    return written_page(page, text, list(files), notes, runs)


def _ordered(board: Board, entries: Sequence[Entry]) -> _OrderedBoard:
    """Order the entries: by data, the most runs first, then by protocol, then by falling main score."""
    count = {entry.data: sum(other.data == entry.data and other.run != "" for other in entries) for entry in entries}
    data = sorted({entry.data: entry.data_title for entry in entries}.items(), key=lambda one: (-count[one[0]], one))
    protocols = [name for name in board.protocols if any(entry.protocol == name for entry in entries)]
    place = {name: number for number, (name, _) in enumerate(data)}

    def order(entry: Entry) -> tuple[int, int, float, str]:
        value = board.score(entry)
        low = float("inf") if value is None else -value
        return place[entry.data], protocols.index(entry.protocol), low, entry.name

    ranked: list[Entry] = []
    ranks: dict[tuple[str, str], int] = {}
    for entry in sorted(entries, key=order):
        group = (entry.data, entry.protocol)
        ranks[group] = ranks.get(group, 0) + 1
        ranked.append(replace(entry, rank=ranks[group]))
    return _OrderedBoard(board, tuple(ranked), tuple(protocols), tuple(data))


def _plain(ordered: _OrderedBoard) -> dict[str, Any]:
    rows = [
        {
            "rank": entry.rank,
            "name": entry.name,
            "origin": entry.origin,
            "run": entry.run,
            "data": entry.data_title,
            "protocol": entry.protocol,
            "scores": {
                key: {name: getattr(cell, name) for name in ("value", "low", "high", "doubt")}
                for key, cell in entry.cells.items()
            },
            "against_best": None if entry.against is None else asdict(entry.against),
        }
        for entry in ordered.entries
    ]
    return {"board": ordered.board.title, "rows": rows}


def _csv(boards: Sequence[_OrderedBoard]) -> str:
    heads = ("board", "data", "protocol", "rank", "origin", "name", "run", "metric", "value", "low", "high")
    rows = []
    for ordered in boards:
        for entry in ordered.entries:
            about = (ordered.board.title, entry.data_title, entry.protocol, entry.rank, entry.origin)
            for key, cell in entry.cells.items():
                if cell.value is not None:
                    values = ["" if value is None else f"{value:.6g}" for value in (cell.value, cell.low, cell.high)]
                    rows.append((*about, entry.name, entry.run, key, *values))
    return csv_text(heads, rows)
