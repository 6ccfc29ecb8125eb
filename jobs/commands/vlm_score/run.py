"""The run folder of `microg vlm score`: its tables, its document, and comparison with other such runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from microg import storage
from microg.jobs.commands.scoring import comparable_document
from microg.jobs.commands.vlm_score.settings import VlmScoreRun
from microg.metrics.published import PublishedTextRow
from microg.metrics.text import tables
from microg.metrics.text.intervals import compare_texts
from microg.metrics.text.registry import title
from microg.metrics.text.report import TextReport, types_of
from microg.runs import Run
from microg.texts.pairs import pairs_table

COMMAND = "vlm score"


def default_folder(run_config: VlmScoreRun) -> str:
    """Return a run folder named after the predictions, different for other contents or settings."""
    name = PurePosixPath(run_config.predictions.rstrip("/")).name.split(".")[0] or "predictions"
    return f"runs/vlm_score/{name}-{run_config.digest()[:8]}"


def result_document(
    reports: Sequence[TextReport], run_config: VlmScoreRun, published: PublishedTextRow | None, found: Mapping[str, Any]
) -> dict[str, Any]:
    """Return everything that was found, as plain values; undefined scores are None."""
    tasks: dict[str, dict[str, Any]] = {}
    for report in reports:
        tasks.setdefault(report.pairs.task, {})[report.protocol] = tables.document(report)
    document: dict[str, Any] = {
        "predictions": run_config.predictions,
        "references": run_config.references,
        "coverage": {report.pairs.task: report.pairs.coverage() for report in reports},
        "extra": {report.pairs.task: list(report.pairs.extra) for report in reports if report.pairs.extra},
        "tasks": tasks,
        "examples": {report.pairs.task: tables.examples(report) for report in reversed(reports)},
        **found,
    }
    paper = [report for report in reports if report.protocol == "paper"]
    if published is not None and paper:
        document["published"] = {
            "row": published.name,
            "title": published.title,
            "frames": published.frames,
            "tasks": {report.pairs.task: tables.beside_published(report, published) for report in paper},
        }
    return document


def start_run(folder: str, run_config: VlmScoreRun) -> Run:
    """Open the run folder. Raises `RunConflictError` when it is another run's."""
    return Run.start(
        folder, COMMAND, run_config, dataset=run_config.references_digest, protocol=run_config.score.protocol
    )


def write_run(
    run: Run, reports: Sequence[TextReport], document: dict[str, Any], judgements: pa.Table | None, plots: bool
) -> list[str]:
    """Write tables, plots and `metrics.json`; returns the paths."""
    one_each = {report.pairs.task: report.pairs for report in reports}
    by_name = {
        "text_pairs": pairs_table(one_each.values(), types_of),
        "text_scores": tables.scores_table(reports),
        "text_items": tables.items_table(reports),
        "text_bootstrap": tables.bootstrap_table(reports),
    }
    if judgements is not None:
        by_name["text_judgements"] = judgements
    written = [run.write_table(name, table) for name, table in by_name.items()]
    if plots:
        from microg.reports.plots.vlm import vlm_plots

        scores, pairs = by_name["text_scores"].to_pandas(), by_name["text_pairs"].to_pandas()
        for plot in vlm_plots(scores, pairs, {name: title(name) for name in scores["metric"].unique()}):
            written += plot.save(run.path("plots"))
    run.finish(document)
    return [*written, run.path("metrics.json")]


def compare_runs(
    reports: Sequence[TextReport], run_config: VlmScoreRun, others: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Compare with other runs (from `comparable`): a row a (run, task, protocol, metric), with the paired bootstrap.

    Scores of different encoders are not compared.
    """
    rows: list[dict[str, Any]] = []
    for other, theirs in others.items():
        stored = storage.read_parquet(storage.join(other, "tables", "text_bootstrap.parquet"))
        drawn = tables.read_distributions(stored, run_config.score.seed)
        for report in reports:
            task, protocol = report.pairs.task, report.protocol
            there = theirs["tasks"].get(task, {}).get(protocol)
            if there is None:
                continue
            signatures = tables.signatures(report)
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


def comparable(others: Sequence[str], run_config: VlmScoreRun) -> dict[str, dict[str, Any]]:
    """Return the documents of other runs.

    Raises `MetricError` when a run is none of this command, or was scored on other references or with other settings.
    """
    same = {"digest": "references_digest", "truth": "references", "settings": ("seed", "resamples")}
    return {other: comparable_document(other, COMMAND, run_config, **same) for other in others}
