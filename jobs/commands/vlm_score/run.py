"""The run folder of `microg vlm score`: its tables, its document, and comparison with other such runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from microg import storage
from microg.data import schema
from microg.jobs.commands.compare import comparable_document
from microg.jobs.commands.vlm_score.settings import VlmScoreRun
from microg.metrics.bootstrap import Distribution
from microg.metrics.published import PublishedTextRow
from microg.metrics.text import registry
from microg.metrics.text.intervals import compare_texts
from microg.metrics.text.report import Slice, TextReport, types_of
from microg.metrics.text.titles import title
from microg.runs import Run
from microg.texts.pairs import pairs_table

COMMAND = "vlm score"
_EXAMPLES = 5
# By which score examples are best or worst: the first one that there is.
_RANKED_BY = {"caption": ("sbert", "rouge_l", "cider"), "vqa": ("token_f1",)}


def default_folder(asked: VlmScoreRun) -> str:
    """Return a run folder named after the predictions, different for other contents or settings."""
    name = PurePosixPath(asked.predictions.rstrip("/")).name.split(".")[0] or "predictions"
    return f"runs/vlm_score/{name}-{asked.digest()[:8]}"


def result_document(
    reports: Sequence[TextReport], asked: VlmScoreRun, published: PublishedTextRow | None, found: Mapping[str, Any]
) -> dict[str, Any]:
    """Return everything that was found, as plain values; undefined scores are None."""
    tasks: dict[str, dict[str, Any]] = {}
    for report in reports:
        tasks.setdefault(report.pairs.task, {})[report.protocol] = _scores_document(report)
    document: dict[str, Any] = {
        "predictions": asked.predictions,
        "references": asked.references,
        "coverage": {report.pairs.task: report.pairs.coverage() for report in reports},
        "extra": {report.pairs.task: list(report.pairs.extra) for report in reports if report.pairs.extra},
        "tasks": tasks,
        "examples": {report.pairs.task: examples(report) for report in reversed(reports)},
        **found,
    }
    paper = [report for report in reports if report.protocol == "paper"]
    if published is not None and paper:
        document["published"] = {
            "row": published.name,
            "title": published.title,
            "frames": published.frames,
            "tasks": {report.pairs.task: beside_published(report, published) for report in paper},
        }
    return document


def beside_published(report: TextReport, published: PublishedTextRow) -> list[dict[str, Any]]:
    """Return a row a published column, in percent: published, ours (None where not computed), difference, doubt.

    A score made with another encoder than the paper's is not ours in its column.
    """
    task = report.pairs.task
    columns = {registry.column(name, task): value for name, value in report.scores.items()}
    rows = []
    for column, said in published.scores.get(task, {}).items():
        ours = _plain(columns.get(column, math.nan) * registry.PERCENT)
        difference = None if ours is None else ours - said
        doubt = published.doubts.get(task, {}).get(column)
        rows.append({"column": column, "published": said, "ours": ours, "difference": difference, "doubt": doubt})
    return rows


def examples(report: TextReport) -> dict[str, Any]:
    """Return the best and worst answered items by the first score of the task that there is."""
    values = report.per_item()
    by = next((name for name in _RANKED_BY[report.pairs.task] if any(name in row for row in values.values())), None)
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


def start_run(folder: str, asked: VlmScoreRun) -> Run:
    """Open the run folder. Raises `RunConflictError` when it is another run's."""
    return Run.start(folder, COMMAND, asked, dataset=asked.references_digest, protocol=asked.score.protocol)


def write_run(
    run: Run, reports: Sequence[TextReport], document: dict[str, Any], judgements: pa.Table | None, plots: bool
) -> list[str]:
    """Write tables, plots and `metrics.json`; returns the paths."""
    one_each = {report.pairs.task: report.pairs for report in reports}
    tables = {
        "text_pairs": pairs_table(one_each.values(), types_of),
        "text_scores": scores_table(reports),
        "text_items": items_table(reports),
        "text_bootstrap": bootstrap_table(reports),
    }
    if judgements is not None:
        tables["text_judgements"] = judgements
    written = [run.write_table(name, table) for name, table in tables.items()]
    if plots:
        from microg.reports.plots.vlm import vlm_plots

        scores, pairs = tables["text_scores"].to_pandas(), tables["text_pairs"].to_pandas()
        for plot in vlm_plots(scores, pairs, {name: title(name) for name in scores["metric"].unique()}):
            written += plot.save(run.path("plots"))
    run.finish(document)
    return [*written, run.path("metrics.json")]


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
    signatures, (corpus, number) = _signatures(report), report.corpus
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
        signature = signatures.get(metric, "")
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
    tables = [schema.empty("text_bootstrap")]
    for report in reports:
        if report.distribution is None:
            continue
        for metric, values in report.distribution.values.items():
            number = len(values)
            columns = {
                "protocol": [report.protocol] * number,
                "task": [report.pairs.task] * number,
                "metric": [metric] * number,
                "drawn_from": [report.distribution.drawn_from] * number,
                "resample": np.arange(number),
                "value": values,
            }
            tables.append(schema.conform("text_bootstrap", pa.table(columns)))
    return pa.concat_tables(tables)


def compare_runs(
    reports: Sequence[TextReport], asked: VlmScoreRun, others: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Compare with other runs (from `comparable`): a row a (run, task, protocol, metric), with the paired bootstrap.

    Scores of different encoders are not compared.
    """
    rows: list[dict[str, Any]] = []
    for other, theirs in others.items():
        drawn = _distributions(other, asked.score.seed)
        for report in reports:
            task, protocol = report.pairs.task, report.protocol
            there = theirs["tasks"].get(task, {}).get(protocol)
            if there is None:
                continue
            signatures = _signatures(report)
            for metric, here in report.scores.items():
                value = there["scores"].get(metric)
                if value is None or here != here or there["signatures"].get(metric, "") != signatures.get(metric, ""):
                    continue
                row = {"run": other, "task": task, "protocol": protocol, "metric": metric, "here": here, "there": value}
                second = drawn.get((task, protocol))
                row["difference"] = here - value
                if report.distribution is not None and second is not None and metric in report.intervals:
                    row |= compare_texts(report.distribution, second, (here, value), metric)
                rows.append(row)
    return rows


def comparable(others: Sequence[str], asked: VlmScoreRun) -> dict[str, dict[str, Any]]:
    """Return the documents of other runs.

    Raises `MetricError` when a run is none of this command, or was scored on other references or with other settings.
    """
    same = {"digest": "references_digest", "truth": "references", "settings": ("seed", "resamples")}
    return {other: comparable_document(other, COMMAND, asked, **same) for other in others}


def _distributions(other: str, seed: int) -> dict[tuple[str, str], Distribution]:
    frame = storage.read_parquet(storage.join(other, "tables", "text_bootstrap.parquet")).to_pandas()
    result = {}
    for keys, part in frame.groupby(["task", "protocol"], sort=False):
        task, protocol = map(str, keys)
        values = {str(name): rows.sort_values("resample")["value"].to_numpy() for name, rows in part.groupby("metric")}
        result[task, protocol] = Distribution("clip", 0, seed, str(part["drawn_from"].iloc[0]), values)
    return result


def _scores_document(report: TextReport) -> dict[str, Any]:
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
        "signatures": _signatures(report),
        "over_length": dict(report.over_length),
    }


def _slice(part: Slice) -> dict[str, Any]:
    scores = {name: _plain(value) for name, value in part.scores.items()}
    return {"scores": scores, "items": part.items, "clips": part.clips}


def _signatures(report: TextReport) -> dict[str, str]:
    """Return by score what made it, where that is more than the protocol."""
    return {
        score: report.signatures[name]
        for name, state in report.states.items()
        if name in report.signatures
        for score in state.values
    }


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
