"""The run folder of `microg har score`, its document, and comparison with other such runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from microg import storage
from microg.actions.transfer import Coverage
from microg.arrow import pc
from microg.jobs.commands.har_score.settings import HarScoreRun
from microg.jobs.commands.har_score.thresholds import Thresholds
from microg.jobs.commands.scoring import comparable_document
from microg.metrics.bootstrap import compare
from microg.metrics.har import tables as results
from microg.metrics.har.registry import resampled
from microg.metrics.har.scoring import Report
from microg.metrics.published import PublishedRow
from microg.runs import Run

COMMAND = "har score"


@dataclass(frozen=True, kw_only=True)
class HarScoreResult:
    """What scoring found, and what the run folder says of it.

    Attributes:
        coverage: Which classes were scored, where they were brought to another label space.
        thresholds: Those of single classes, chosen here and elsewhere.
        notes: What was noticed in the files.
    """

    report: Report
    config: HarScoreRun
    published: PublishedRow | None
    coverage: Coverage | None
    thresholds: Thresholds
    notes: list[str]


def result_document(result: HarScoreResult, comparisons: list[dict[str, Any]]) -> dict[str, Any]:
    """Return everything that was found, as plain values.

    Where classes were left out (`coverage`), published averages over all of them are none to compare with; the mean of
    the published average precisions of the classes scored is.
    """
    report, published, coverage = result.report, result.published, result.coverage
    arrays = report.arrays
    document: dict[str, Any] = {
        "counts": {
            "clips": len(set(arrays.key_clip[arrays.truth.key].tolist())),
            "key_frames": len(set(arrays.truth.key.tolist())),
            "true_boxes": len(arrays.truth.key),
            "labels": len(arrays.truth.label),
            "predicted_boxes": len(arrays.boxes.key),
        },
        "scores": result.config.score_kind,
        "label_space": result.config.label_space,
        "findings": [asdict(finding) for finding in report.findings],
        "notes": result.notes,
        "protocols": {name: results.document(scores, report.intervals) for name, scores in report.results.items()},
    }
    document["thresholds"] = result.thresholds.document(report)
    if published is not None and "paper" in report.results:
        beside = published if coverage is None else results.published_subset(report.results["paper"], published)
        rows = results.beside_published(report.results["paper"], beside)
        if not rows:
            document["notes"] = [*result.notes, f"row {published.name} tells nothing for just the classes scored here"]
        document["published"] = {"row": published.name, "title": published.title, "metrics": rows}
    if coverage is not None:
        document["transfer"] = coverage.to_dict()
    if comparisons:
        document["comparisons"] = comparisons
    return document


def write_run(
    result: HarScoreResult, folder: str, others: list[str], *, plots: bool, on_scores: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Compare with other runs, write tables and `metrics.json`, then plots, and return the document.

    `on_scores` is called with the document before plots are drawn, which takes longer than scoring. Raises
    `RunConflictError` for another run's folder, and what `compare_runs` raises before anything is written, so
    that a bad `--compare` leaves no half-made run.
    """
    report, config = result.report, result.config
    comparisons, other_classes = compare_runs(report, config, others)
    document = result_document(result, comparisons)
    run = Run.start(folder, COMMAND, config, dataset=config.truth_digest, protocol=config.score.protocol)
    everything = list(report.results.values())
    tables = {
        "har_scores": results.scores_table(everything, report.intervals),
        "har_classes": results.classes_table(everything, result.published),
        "har_curves": results.curves_table(everything),
        "har_thresholds": results.thresholds_table(everything, result.thresholds.found, result.thresholds.applied),
        "har_f1_curves": results.f1_curves_table(everything),
        "har_bootstrap": results.bootstrap_table(report.distributions),
    }
    written = [run.write_table(name, table) for name, table in tables.items()]
    run.finish(document)
    on_scores({"run": folder, **document})
    if plots:
        from microg.reports.plots.har import f1_against_threshold, har_plots

        for protocol in report.results:
            classes, curves = (_of(tables[name], protocol).to_pandas() for name in ("har_classes", "har_curves"))
            compared = {name: _of(table, protocol).to_pandas() for name, table in other_classes.items()}
            thresholds, f1 = (_of(tables[name], protocol).to_pandas() for name in ("har_thresholds", "har_f1_curves"))
            sweeps = f1_against_threshold(thresholds, f1)
            written += sweeps.save(run.path("plots", protocol)) if sweeps is not None else []
            for plot in har_plots(classes, curves, {name: frame for name, frame in compared.items() if len(frame)}):
                written += plot.save(run.path("plots", protocol))
    return {"run": folder, **document, "files": [*written, run.path("metrics.json")]}


def compare_runs(
    report: Report, run_config: HarScoreRun, others: list[str]
) -> tuple[list[dict[str, Any]], dict[str, pa.Table]]:
    """Compare with other runs: differences of macro scores, and paired bootstrap where both are corrected.

    Returns a row a (run, protocol, metric), and each run's `har_classes`. Raises `MetricError` when a run is none of
    this command, or scored on other truth or with other settings.
    """
    rows: list[dict[str, Any]] = []
    classes: dict[str, pa.Table] = {}
    same = {"digest": "truth_digest", "truth": "truth", "settings": ("seed", "resamples", "match_order")}
    for other in others:
        theirs = comparable_document(other, COMMAND, run_config, **same)
        name = PurePosixPath(other.rstrip("/")).name
        classes[name] = storage.read_parquet(storage.join(other, "tables", "har_classes.parquet"))
        table = storage.read_parquet(storage.join(other, "tables", "har_bootstrap.parquet"))
        drawn = results.read_distributions(table, 0, run_config.score.seed)
        for protocol, result in report.results.items():
            scores = theirs["protocols"].get(protocol)
            if scores is None:
                continue
            for metric, (found, average) in resampled().items():
                there = scores.get(found.name, {}).get(average)  # a run may be older than the metric
                here = result.overall.values[found.name][average]
                if there is None or here != here:
                    continue
                row = {"run": other, "protocol": protocol, "metric": metric, "here": here, "there": there}
                row["difference"] = here - there
                if protocol == "corrected":
                    for mine in report.distributions:
                        if mine.unit in drawn:
                            compared = compare(mine, drawn[mine.unit], (here, there), metric)
                            keys = ("low", "high", "p_worse", "p_worse_shifted")
                            row[mine.unit] = {key: getattr(compared, key) for key in keys}
                rows.append(row)
    return rows, classes


def _of(table: pa.Table, protocol: str) -> pa.Table:
    return table.filter(pc.equal(table["protocol"], protocol))
