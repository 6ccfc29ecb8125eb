"""Runs of `microg har sweep`: settings against the score, curves of all trials, and the trials as a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd

from microg import storage
from microg.reports.html import HtmlTable, Section, html_table, picture, section
from microg.reports.plots.training import learning_curves, parallel_coordinates
from microg.reports.run_folders import RunFolder
from microg.reports.run_kinds.kind import Headline, ReportSection, RunKind, SectionInputs
from microg.reports.tables.result_table import rounded


def _headlines(run: RunFolder) -> list[Headline]:
    trials = run.metrics.get("trials", [])
    best = max((row["best"] for row in trials if row.get("best") is not None), default=None)
    score = [] if best is None else [Headline(f"best {run.metrics.get('metric', '')} %", rounded(100 * best, 2))]
    return [*score, Headline("trials", str(len(trials)))]


def _sweeps(runs: Sequence[RunFolder], _: SectionInputs) -> Section | None:
    figures, tables = [], []
    for run in runs:
        rows = run.table("har_sweep").to_pylist()
        if not rows:
            continue
        metric = str(rows[0]["metric"])
        score = metric.replace("_", " ").replace("map", "mAP")
        settings = [json.loads(row["settings"] or "{}") for row in rows]
        keys = list(dict.fromkeys(key for values in settings for key in values))
        lines = [
            {**dict.fromkeys(keys, ""), **values, "recipe": row["recipe"], "status": row["status"], score: row["best"]}
            for row, values in zip(rows, settings, strict=True)
        ]
        plots = [
            parallel_coordinates(lines, ["recipe", *keys], score, f"Sweep of {len(rows)} trials"),
            learning_curves(_histories(run, rows), metric, f"Trials of {run.name}"),
        ]
        figures += [(run.name, *picture(plot)) for plot in plots if plot is not None]
        tables.append(_trials(run, rows, settings, score))
    return section("sweeps", "Sweeps", "curves", figures=figures, tables=tables) if tables else None


def _histories(run: RunFolder, rows: Sequence[dict[str, Any]]) -> dict[str, pd.DataFrame]:
    found = {}
    for row in rows:
        path = storage.join(run.root, "trials", str(row["trial_id"]), "tables", "har_train.parquet")
        if "/" not in str(row["trial_id"]) and storage.exists(path):
            found[str(row["trial_id"])] = storage.read_parquet(path).to_pandas()
    return found


def _trials(
    run: RunFolder, rows: Sequence[dict[str, Any]], settings: Sequence[dict[str, Any]], score: str
) -> HtmlTable:
    frame = pd.DataFrame(
        [
            {
                "trial": row["trial_id"],
                **{key: str(value) for key, value in values.items()},
                "status": row["status"],
                "epochs": row["epochs_done"],
                f"{score} %": None if row["best"] is None else 100 * row["best"],
                "at epoch": row["best_epoch"],
                "minutes": None if row["train_s"] is None else row["train_s"] / 60,
            }
            for row, values in zip(rows, settings, strict=True)
        ]
    )
    return html_table(f"Trials of {run.name}, best first", frame)


KIND = RunKind(
    command="har sweep",
    tables=("har_sweep",),
    headlines=_headlines,
    failed_rows=lambda run: sum(row.get("status") == "error" for row in run.metrics.get("trials", [])),
    sections=(ReportSection(name="sweeps", make=_sweeps, tables=("har_sweep",), unfinished=True),),
)
