"""Scores of texts as tables of a run folder (`microg.data.schema.RUN_TABLES`) and as a plain document."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from microg.data import schema
from microg.metrics.bootstrap import Distribution, distributions_table, resampled_values
from microg.metrics.published import PublishedTextRow
from microg.metrics.text import registry
from microg.metrics.text.report import Slice, TextReport

_EXAMPLES = 5


def scores_table(reports: Iterable[TextReport]) -> pa.Table:
    """Return the table `text_scores`."""
    rows: list[dict[str, Any]] = []
    for report in reports:
        whole = Slice(report.scores, len(report.pairs.items), report.clips())
        rows += _score_rows(report, whole, intervals=True)
        if report.valid is not None:
            rows += _score_rows(report, report.valid, coverage="valid")
        for (kind, name), part in report.slices.items():
            rows += _score_rows(report, part, slice_kind=kind, slice=name)
        for system, scores in report.baselines.items():
            rows += _score_rows(report, Slice(scores, whole.items, whole.clips), system=system)
    return schema.from_rows("text_scores", rows)


def _score_rows(report: TextReport, part: Slice, *, intervals: bool = False, **where: str) -> list[dict[str, Any]]:
    made_by, (corpus, number) = signatures(report), report.corpus
    same = {
        "protocol": report.protocol,
        "task": report.pairs.task,
        "system": "model",
        "coverage": "all",
        "slice_kind": "all",
        "slice": "all",
        "corpus": corpus,
        "corpus_items": number,
        "items": part.items,
        "clips": part.clips,
        **where,
    }
    rows = []
    for metric, value in part.scores.items():
        low, high = report.intervals.get(metric, (None, None)) if intervals else (None, None)
        signature = made_by.get(metric, "")
        rows.append(
            {**same, "metric": metric, "value": _plain(value), "low": low, "high": high, "signature": signature}
        )
    return rows


def items_table(reports: Iterable[TextReport]) -> pa.Table:
    """Return the table `text_items`."""
    tables = [schema.empty("text_items")]
    for report in reports:
        values = report.per_item()
        keys = [item.key for item in report.pairs.items for _ in values[item.key.id]]
        pairs = [pair for item in report.pairs.items for pair in values[item.key.id].items()]
        columns = {
            "protocol": [report.protocol] * len(keys),
            "task": [key.task for key in keys],
            "clip_id": [key.clip_id for key in keys],
            "qa_index": pa.array([key.qa_index for key in keys], pa.int32()),
            "metric": [name for name, _ in pairs],
            "value": pa.array([value for _, value in pairs], pa.float64()),
        }
        tables.append(schema.conform("text_items", pa.table(columns)))
    return pa.concat_tables(tables)


def bootstrap_table(reports: Iterable[TextReport]) -> pa.Table:
    """Return the table `text_bootstrap`."""
    rows = (({"protocol": each.protocol, "task": each.pairs.task}, each.distribution) for each in reports)
    return distributions_table("text_bootstrap", ((keys, drawn) for keys, drawn in rows if drawn is not None))


def read_distributions(table: pa.Table, seed: int) -> dict[tuple[str, str], Distribution]:
    """Return the distributions stored in a table `text_bootstrap`, by (task, protocol)."""
    frame = table.to_pandas()
    result = {}
    for keys, part in frame.groupby(["task", "protocol"], sort=False):
        task, protocol = map(str, keys)
        drawn_from = str(part["drawn_from"].iloc[0])
        result[task, protocol] = Distribution("clip", 0, seed, drawn_from, resampled_values(part))
    return result


def document(report: TextReport) -> dict[str, Any]:
    """Return the scores of a report as plain values; undefined ones are None."""
    plain = {name: _plain(value) for name, value in report.scores.items()}
    corpus, number = report.corpus
    return {
        "scores": plain,
        "intervals": {name: {"low": low, "high": high} for name, (low, high) in report.intervals.items()},
        "valid": None if report.valid is None else _slice(report.valid),
        "slices": {f"{kind}/{name}": _slice(part) for (kind, name), part in report.slices.items()},
        "baselines": {
            system: {name: _plain(value) for name, value in scores.items()}
            for system, scores in report.baselines.items()
        },
        "lengths": dict(report.lengths),
        "corpus": {"hash": corpus, "items": number},
        "signatures": signatures(report),
        "over_length": dict(report.over_length),
    }


def beside_published(report: TextReport, published: PublishedTextRow) -> list[dict[str, Any]]:
    """Return a row a published column, in percent: published, ours (None where not computed), difference, doubt.

    A score made with another encoder than the paper's is not ours in its column.
    """
    task = report.pairs.task
    columns = {registry.column(name, task): value for name, value in report.scores.items()}
    rows = []
    for column, theirs in published.scores.get(task, {}).items():
        ours = _plain(columns.get(column, math.nan) * registry.PERCENT)
        difference = None if ours is None else ours - theirs
        doubt = published.doubts.get(task, {}).get(column)
        rows.append({"column": column, "published": theirs, "ours": ours, "difference": difference, "doubt": doubt})
    return rows


def examples(report: TextReport) -> dict[str, Any]:
    """Return the best and worst answered items by the first score of the task that there is."""
    values = report.per_item()
    available = {name for row in values.values() for name in row}
    by = next((name for name in registry.ranking(report.pairs.task) if name in available), None)
    if by is None:
        return {"by": None, "best": [], "worst": []}
    answered = [item for item in report.pairs.items if item.text is not None]
    ranked = sorted(answered, key=lambda item: (-values[item.key.id].get(by, 0.0), item.key.id))
    rows = [
        {
            "item": item.key.id,
            "question": item.question,
            "reference": item.references[0],
            "text": item.text,
            "scores": {name: round(value, 6) for name, value in values[item.key.id].items()},
        }
        for item in ranked
    ]
    return {"by": by, "best": rows[:_EXAMPLES], "worst": rows[: -_EXAMPLES - 1 : -1]}


def signatures(report: TextReport) -> dict[str, str]:
    """Return by score what made it, where that is more than the protocol."""
    return {
        score: report.signatures[name]
        for name, state in report.states.items()
        if name in report.signatures
        for score in state.values
    }


def _slice(part: Slice) -> dict[str, Any]:
    scores = {name: _plain(value) for name, value in part.scores.items()}
    return {"scores": scores, "items": part.items, "clips": part.clips}


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
