"""The sections of a report, each from the runs that have something to show in it, or None."""

# pandas annotates `frame[...]` as DataFrame | Series | Any, which makes nearly every chained call an error.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportReturnType=false

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from microg import storage
from microg.data.dataset import Dataset
from microg.errors import MicrogError
from microg.metrics.published import har_row
from microg.metrics.text.titles import title as score_title
from microg.reports.clips.panels import ActionPanel, action_panels
from microg.reports.clips.pictures import data_uri
from microg.reports.clips.texts import clip_texts
from microg.reports.defects.har import defects
from microg.reports.pages.sections import HtmlTable, Section, html_table, section
from microg.reports.plots import Plot
from microg.reports.plots.har import ap_bars, har_plots
from microg.reports.plots.sweep import parallel_coordinates
from microg.reports.plots.training import learning_curves, training_curves
from microg.reports.plots.vlm import vlm_plots
from microg.reports.run_folders.remarks import Remark, remarks
from microg.reports.run_folders.run_cards import costs, provenance, run_cards
from microg.reports.run_folders.runs import RunFolder
from microg.reports.run_folders.sources import dataset_of
from microg.reports.tables.har_tables import describe_data
from microg.reports.tables.result_table import ResultTable
from microg.texts.items import Task

if TYPE_CHECKING:
    from microg.reports.pages.report import ReportOptions

_MODELS_A_PANEL = 4
# Plots as the scorers name them, in reading order, and what they show.
_HAR_PLOTS = {
    "har_ap": "Average precision by class",
    "har_precision_recall": "Precision-recall curves by action group",
    "har_support": "Average precision over the number of labels",
}
_TEXT_PLOTS = {
    "vlm_scores_caption": "Caption scores with intervals",
    "vlm_lengths_caption": "Lengths of captions",
    "vlm_scores_vqa": "Answer scores with intervals",
    "vlm_answer_slices": "Answers by kind",
    "vlm_lengths_vqa": "Lengths of answers",
}


def picture(plot: Plot) -> tuple[Plot, str]:
    """Return a plot with its data URI: the smaller of SVG and PNG, and the PNG where the SVG needs fonts."""
    if plot.fonts_needed or len(plot.png) < len(plot.svg):
        return plot, data_uri("image/png", plot.png)
    return plot, data_uri("image/svg+xml", plot.svg)


def overview(runs: Sequence[RunFolder]) -> Section:
    """Show every run with its state and headline numbers."""
    found = remarks(runs)
    warned = {name: sum(item.run == name for item in found) for name in {item.run for item in found}}
    return section("overview", "Runs", "runs", cards=run_cards(runs), warned=warned)


def tables(items: Sequence[ResultTable], folder: str) -> Section:
    """Show the paper's tables."""
    return section("tables", "The paper's tables", "result_tables", tables=items, folder=folder)


def classes(runs: Sequence[RunFolder]) -> Section | None:
    """Plot average precision by class (Figures 7 and 8), precision and recall, support: a block a run."""
    scored = [run for run in runs if run.command == "har score" and run.finished and run.has("har_classes")]
    blocks: list[dict[str, Any]] = []
    for run in scored:
        protocol = "corrected" if "corrected" in run.metrics["protocols"] else "paper"
        plots = _stored(run, ("plots", protocol), _HAR_PLOTS)
        if not plots:
            frame, curves = (_of(run, name, protocol) for name in ("har_classes", "har_curves"))
            plots = har_plots(frame, curves)
        if plots:
            about = f"{protocol} protocol, {describe_data(run)}"
            blocks.append({"run": run.name, "about": about, "plots": [picture(plot) for plot in plots]})
    if not blocks:
        return None
    together = [(*picture(plot), about) for plot, about in _together(scored)]
    return section("classes", "Classes", "classes", together=together, blocks=blocks)


def _stored(run: RunFolder, folder: tuple[str, ...], names: Mapping[str, str]) -> list[Plot]:
    """Return the plots that the scorer drew; `names` says what each shows. Empty where it drew none."""
    found = []
    for name, description in names.items():
        paths = [storage.join(run.root, *folder, f"{name}.{suffix}") for suffix in ("png", "svg")]
        if all(storage.exists(path) for path in paths):
            png, svg = (storage.read_bytes(path) for path in paths)
            found.append(Plot(name, f"{description}, run {run.name}", png, svg))
    return found


def _of(run: RunFolder, table: str, protocol: str) -> pd.DataFrame:
    frame = run.table(table).to_pandas()
    return frame[frame["protocol"] == protocol]


def _together(runs: Sequence[RunFolder]) -> list[tuple[Plot, str]]:
    """Return one plot of all models, and what it shows, for each set of truth that several were scored on."""
    plots = []
    for same in _by_truth(runs, "truth_digest").values():
        protocol = "corrected" if all("corrected" in run.metrics["protocols"] for run in same) else "paper"
        frames = {run.name: frame for run in same if len(frame := _of(run, "har_classes", protocol))}
        if len(frames) > 1:
            (best, first), *rest = sorted(frames.items(), key=lambda item: -float(item[1]["ap"].mean()))
            plot = ap_bars(first, dict(rest))
            if plot is not None:
                plots.append((plot, f"{len(frames)} models, {protocol} protocol: bars are {best}, marks the others."))
    return plots


def _by_truth(runs: Sequence[RunFolder], key: str) -> dict[Any, list[RunFolder]]:
    groups: dict[Any, list[RunFolder]] = {}
    for run in runs:
        groups.setdefault((run.config.get(key), run.config.get("label_space")), []).append(run)
    return groups


def actions(
    runs: Sequence[RunFolder], given: Sequence[Dataset], options: ReportOptions, notes: list[str]
) -> Section | None:
    """Show key frames with boxes, true actions and what each model says (Figures 3 and 4)."""
    scored = [run for run in runs if run.command == "har score" and run.finished]
    groups: list[tuple[str, list[ActionPanel]]] = []
    for same in _by_truth(scored, "truth_digest").values():
        dataset = dataset_of(same[0], given[0] if given else None)
        if dataset is None:
            notes.append(f"{same[0].name}: the videos it was scored on are not to be found (--dataset says where)")
            continue
        panels, why = action_panels(same[:_MODELS_A_PANEL], dataset, options.max_clips, options.picture)
        notes += why
        if len(same) > _MODELS_A_PANEL:
            notes.append(f"pictures of actions show the first {_MODELS_A_PANEL} of {len(same)} runs")
        if panels:
            groups.append((", ".join(run.name for run in same[:_MODELS_A_PANEL]), panels))
    return section("actions", "What was seen", "actions", groups=groups) if groups else None


def texts(runs: Sequence[RunFolder], task: Task, given: Sequence[Dataset], options: ReportOptions) -> Section | None:
    """Show captions with marked details (Figure 5), or answers of several models side by side (Figure 6)."""
    scored = [run for run in runs if run.command == "vlm score" and task in run.metrics.get("tasks", {})]
    clips = []
    for same in _by_truth(scored, "references_digest").values():
        same = [run for run in same if run.has("text_pairs")]
        if same:
            dataset = dataset_of(same[0], given[0] if given else None)
            clips += clip_texts(same, task, dataset, options.max_clips, options.picture)
    if not clips:
        return None
    if task == "caption":
        return section("captions", "Captions", "captions", clips=clips)
    return section("answers", "Answers", "answers", clips=clips)


def text_plots(runs: Sequence[RunFolder]) -> Section | None:
    """Plot the scores of captions and answers, their parts and lengths: a block a run."""
    blocks = []
    for run in runs:
        if run.command == "vlm score" and run.finished and run.has("text_scores"):
            plots = _stored(run, ("plots",), _TEXT_PLOTS)
            if not plots:
                scores, pairs = run.table("text_scores").to_pandas(), run.table("text_pairs").to_pandas()
                plots = vlm_plots(scores, pairs, {name: score_title(name) for name in scores["metric"].unique()})
            if plots:
                blocks.append({"run": run.name, "about": "", "plots": [picture(plot) for plot in plots]})
    if not blocks:
        return None
    return section("text-scores", "Scores of texts", "classes", together=[], blocks=blocks)


def training(runs: Sequence[RunFolder]) -> Section | None:
    """Plot training curves."""
    figures = []
    for run in runs:
        if run.command == "har train" and run.has("har_train"):
            plot = training_curves(run.table("har_train").to_pandas(), run.name, _published_epochs(run))
            figures += [(run.name, *picture(plot))] if plot is not None else []
    return section("training", "Training", "curves", figures=figures, tables=[]) if figures else None


def _published_epochs(run: RunFolder) -> dict[int, dict[str, float]]:
    """Return the published validation scores of the row that a training run is compared with."""
    if run.row is None:
        return {}
    found = {}
    for epoch in range(1, 201):
        try:
            found[epoch] = dict(har_row(f"{run.row.partition('/')[0]}/val/{epoch}").scores)
        except MicrogError:
            continue
    return found


def sweeps(runs: Sequence[RunFolder]) -> Section | None:
    """Plot sweeps: settings against the score, curves of all trials, and the trials as a table."""
    figures, shown = [], []
    for run in runs:
        if run.command != "har sweep" or not run.has("har_sweep"):
            continue
        rows = run.table("har_sweep").to_pylist()
        if not rows:
            continue
        metric = str(rows[0]["metric"])
        score = metric.replace("_", " ").replace("map", "mAP")
        settings = [json.loads(row["settings"] or "{}") for row in rows]
        keys = list(dict.fromkeys(key for values in settings for key in values))
        drawn = [
            {**dict.fromkeys(keys, ""), **values, "recipe": row["recipe"], "status": row["status"], score: row["best"]}
            for row, values in zip(rows, settings, strict=True)
        ]
        plots = [
            parallel_coordinates(drawn, ["recipe", *keys], score, f"Sweep of {len(rows)} trials"),
            learning_curves(_histories(run, rows), metric, f"Trials of {run.name}"),
        ]
        figures += [(run.name, *picture(plot)) for plot in plots if plot is not None]
        shown.append(_trials(run, rows, settings, score))
    if not shown:
        return None
    return section("sweeps", "Sweeps", "curves", figures=figures, tables=shown)


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


def costs_section(runs: Sequence[RunFolder]) -> Section | None:
    """List what each run took: time, rate, bottleneck, tokens, money."""
    frame = costs(runs)
    if frame.empty:
        return None
    return section("costs", "Cost and speed", "tables", tables=[html_table("", frame)])


def remarks_section(runs: Sequence[RunFolder], notes: Sequence[str]) -> Section | None:
    """List the warnings of the runs, and what this report could not show."""
    found = [*remarks(runs), *(Remark("report", "not-shown", note) for note in dict.fromkeys(notes))]
    return section("warnings", "Warnings", "remarks", remarks=found) if found else None


def defects_section(runs: Sequence[RunFolder], datasets: Sequence[Dataset]) -> Section:
    """Demonstrate the known defects of the published runs."""
    items = [
        {
            "defect": defect,
            "plots": [picture(plot) for plot in defect.plots],
            "tables": [html_table(title, frame) for title, frame in defect.tables],
        }
        for defect in defects(runs, datasets)
    ]
    return section("defects", "Known defects", "defects", items=items)


def provenance_section(runs: Sequence[RunFolder]) -> Section:
    """Say how each run was made."""
    return section("provenance", "How it was made", "tables", tables=[html_table("", provenance(runs))])
