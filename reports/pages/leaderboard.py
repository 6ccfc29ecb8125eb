"""A leaderboard of many runs and the published rows: one page with boards of action recognition, captions, answers.

Only runs on the same data under the same protocol are ranked together. Without JavaScript the boards are plain tables.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from microg import storage
from microg.errors import DatasetError
from microg.reports.pages.dataset_page import render_page
from microg.reports.pages.report import places
from microg.reports.pages.sections import Section, environment, section
from microg.reports.run_folders.runs import find_runs
from microg.reports.tables import standings
from microg.reports.tables.leaderboard_rows import BOARDS, Board, Entry, entries


@dataclass(frozen=True)
class _Shown:
    """A board as the page has it: its entries in order, and the choices of its switches."""

    board: Board
    entries: tuple[Entry, ...]
    protocols: tuple[str, ...]
    data: tuple[tuple[str, str], ...]


def build_leaderboard(
    paths: Sequence[str], out: str = "leaderboard.html", *, title: str | None = None
) -> dict[str, Any]:
    """Write the leaderboard of all scored runs in these folders; returns what was written and read.

    `out` is a page (`.html`) or a folder; the rows lie beside it as CSV and JSON. Raises `DatasetError` when a folder
    holds no run, or no run has scores.
    """
    runs = find_runs(paths)
    boards = []
    for board in BOARDS:
        found = standings.against_best(entries(board, runs), runs, board)
        if found:
            boards.append(_shown(board, found))
    if not boards:
        raise DatasetError(
            f"none of the {len(runs)} runs there has scores", "score them first: 'microg har score', 'microg vlm score'"
        )
    page, _ = places(out)
    if not out.endswith((".html", ".htm")):
        page = storage.join(out, "leaderboard.html")
    stem = page.rpartition(".")[0]
    sections = [_section(shown) for shown in boards]
    scored = {entry.run for shown in boards for entry in shown.entries if entry.run}
    left = [run.name for run in runs if run.name not in scored]
    sections.append(section("about", "About", "board_about", runs=len(scored), left=left))
    script = environment.get_template("leaderboard.js").render()
    text = render_page(title or "MicroG-Bench leaderboard", _subtitle(len(scored)), sections, script=script)
    files = {
        page: text,
        f"{stem}.csv": _csv(boards),
        f"{stem}.json": json.dumps([_plain(shown) for shown in boards], indent=2, ensure_ascii=False) + "\n",
    }
    for path, content in files.items():
        storage.write_bytes(path, content.encode("utf-8", "replace"))
    notes = [f"{name}: has no scores to rank" for name in left]
    return {
        "page": page,
        "bytes": len(text.encode("utf-8", "replace")),
        "files": list(files),
        "notes": notes,
        "runs": [{"run": run.root, "command": run.command, "finished": run.finished} for run in runs],
    }


def _subtitle(count: int) -> str:
    return f"{count} scored run{'s' if count != 1 else ''} beside the published rows"


def _shown(board: Board, found: Sequence[Entry]) -> _Shown:
    """Order the entries: by data, the most runs first, then by protocol, then by falling main score."""
    count = {entry.data: sum(other.data == entry.data and other.run != "" for other in found) for entry in found}
    data = sorted({entry.data: entry.data_title for entry in found}.items(), key=lambda item: (-count[item[0]], item))
    protocols = [name for name in board.protocols if any(entry.protocol == name for entry in found)]
    place = {name: number for number, (name, _) in enumerate(data)}

    def order(entry: Entry) -> tuple[int, int, float, str]:
        value = entry.cells[board.main].value if board.main in entry.cells else None
        low = float("inf") if value is None else -value
        return place[entry.data], protocols.index(entry.protocol), low, entry.name

    ranked: list[Entry] = []
    rank, group = 0, None
    for entry in sorted(found, key=order):
        here = (entry.data, entry.protocol)
        rank = rank + 1 if here == group else 1
        group = here
        ranked.append(replace(entry, rank=rank))
    return _Shown(board, tuple(ranked), tuple(protocols), tuple(data))


def _section(shown: _Shown) -> Section:
    return section(
        shown.board.key,
        shown.board.title,
        "board",
        board=shown.board,
        entries=shown.entries,
        protocols=shown.protocols,
        data=shown.data,
    )


def _plain(shown: _Shown) -> dict[str, Any]:
    rows = []
    for entry in shown.entries:
        scores = {
            key: {name: value for name, value in asdict(cell).items() if name in ("value", "low", "high", "doubt")}
            for key, cell in entry.cells.items()
        }
        rows.append(
            {
                "rank": entry.rank,
                "name": entry.name,
                "origin": entry.origin,
                "run": entry.run,
                "data": entry.data_title,
                "protocol": entry.protocol,
                "scores": scores,
                "against_best": entry.against,
            }
        )
    return {"board": shown.board.title, "rows": rows}


def _csv(boards: Sequence[_Shown]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["board", "data", "protocol", "rank", "origin", "name", "run", "metric", "value", "low", "high"])
    for shown in boards:
        for entry in shown.entries:
            about = (shown.board.title, entry.data_title, entry.protocol, entry.rank, entry.origin)
            names = ["'" + text if text.startswith(("=", "+", "-", "@")) else text for text in (entry.name, entry.run)]
            for key, cell in entry.cells.items():
                if cell.value is not None:
                    values = ["" if value is None else f"{value:.6g}" for value in (cell.value, cell.low, cell.high)]
                    writer.writerow([*about, *names, key, *values])
    return buffer.getvalue()
