"""How rows of a board stand to the best of them: differences on the same resamples, from the scorers' bootstraps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from microg.arrow import pc
from microg.metrics.bootstrap import Distribution, compare
from microg.metrics.text.intervals import compare_texts
from microg.reports.run_folders.runs import RunFolder
from microg.reports.tables.leaderboard_rows import ANSWERS, HAR, ZERO_SHOT, Board, Entry

_COLUMN_SCORES = {"S-BERT": "sbert", "S-VQA": "sbert"}


def against_best(found: list[Entry], runs: Sequence[RunFolder], board: Board) -> list[Entry]:
    """Return the entries with `against` set where the board's main score of run and best run was resampled alike.

    HAR runs have resamples under the corrected protocol only.
    """
    by_name = {run.name: run for run in runs}
    drawn: dict[tuple[str, str], Distribution | None] = {}
    for entry in found:
        if entry.run and entry.cells.get(board.main) is not None:
            drawn[entry.run, entry.protocol] = _distribution(by_name[entry.run], entry.protocol, board)
    result = []
    for entry in found:
        rivals = [
            other
            for other in found
            if other.run
            and (other.data, other.protocol) == (entry.data, entry.protocol)
            and _value(other, board) is not None
        ]
        best = max(rivals, key=lambda other: (_value(other, board), other.name), default=None)
        stands = None if best is None else _against(entry, best, board, drawn)
        result.append(replace(entry, against=stands, is_best=best is entry and len(rivals) > 1))
    return result


def _value(entry: Entry, board: Board) -> float | None:
    cell = entry.cells.get(board.main)
    return None if cell is None else cell.value


def _against(entry: Entry, best: Entry, board: Board, drawn: dict[tuple[str, str], Distribution | None]) -> dict | None:
    value, top = _value(entry, board), _value(best, board)
    first, second = drawn.get((entry.run, entry.protocol)), drawn.get((best.run, best.protocol))
    if value is None or top is None or entry.run == best.run or first is None or second is None:
        return None
    if first.drawn_from != second.drawn_from:
        return None
    estimates = (value / 100, top / 100)
    if board in (HAR, ZERO_SHOT):
        compared = compare(first, second, estimates, "map")
        difference, low, high = compared.difference, compared.low, compared.high
    else:
        texts = compare_texts(first, second, estimates, _COLUMN_SCORES[board.main])
        difference, low, high = (texts[name] for name in ("difference", "low", "high"))
    if np.isnan([difference, low, high]).any():
        return None
    return {"difference": 100 * difference, "low": 100 * low, "high": 100 * high, "best": best.name}


def _distribution(run: RunFolder, protocol: str, board: Board) -> Distribution | None:
    """Return the resamples of the board's main score, None where the run has none."""
    if board in (HAR, ZERO_SHOT):
        if protocol != "corrected" or not run.has("har_bootstrap"):
            return None
        table = run.table("har_bootstrap")
        table = table.filter(pc.and_(pc.equal(table["unit"], "clip"), pc.equal(table["metric"], "map")))
        name = "map"
    else:
        if not run.has("text_bootstrap"):
            return None
        table = run.table("text_bootstrap")
        name = _COLUMN_SCORES[board.main]
        task = "vqa" if board is ANSWERS else "caption"
        wanted = pc.and_(pc.equal(table["task"], task), pc.equal(table["protocol"], protocol))
        table = table.filter(pc.and_(wanted, pc.equal(table["metric"], name)))
    if not table.num_rows:
        return None
    values = table.sort_by("resample")["value"].to_numpy()
    return Distribution("clip", 0, 0, str(table["drawn_from"][0].as_py()), {name: values})
