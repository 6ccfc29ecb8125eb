"""Runs of `microg har score`: plots of classes, key frames with what each model answers, Tables 1 and 2, boards."""

# pandas annotates `frame[...]` as DataFrame | Series | Any, which makes nearly every chained call an error.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportReturnType=false

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from microg.metrics.har.registry import METRICS
from microg.reports.clips.panels import ActionPanel, action_panels
from microg.reports.html import Section, html_table, picture, section
from microg.reports.plots.har import ap_bars, f1_against_threshold, har_plots
from microg.reports.plots.style import Plot
from microg.reports.run_folders import RunFolder, dataset_of, group_by_truth
from microg.reports.run_kinds.kind import (
    Headline,
    Remark,
    ReportSection,
    RunKind,
    ScorePlots,
    SectionInputs,
    stored_plots,
)
from microg.reports.tables.har_tables import BOARD, ZERO_SHOT_BOARD, describe_data, har_table, scores_of

_MODELS_A_PANEL = 4
# Plots as the scorer names them, in reading order, and what they show.
_PLOTS = {
    "har_ap": "Average precision by class",
    "har_precision_recall": "Precision-recall curves by action group",
    "har_support": "Average precision over the number of labels",
    "har_f1_thresholds": "F1 against the threshold",
}


def _headlines(run: RunFolder) -> list[Headline]:
    protocol = "corrected" if "corrected" in run.metrics.get("protocols", {}) else "paper"
    cells = scores_of(run, protocol)
    return [
        Headline(f"{METRICS[name].title} %, {protocol}", cells[name].number, cells[name].interval)
        for name in ("map", "f1")
        if name in cells and cells[name].value is not None
    ]


def _remarks(run: RunFolder) -> list[Remark]:
    found = [
        Remark(run.name, str(item["code"]), str(item["message"]), tuple(map(str, item.get("examples") or ())))
        for item in run.metrics.get("findings", [])
    ]
    for item in run.metrics.get("published", {}).get("metrics", []):
        if not item["inside"]:
            message = (
                f"the published {item['metric']} {100 * item['published']:.2f} lies outside "
                f"{100 * item['bracket_low']:.2f} to {100 * item['bracket_high']:.2f}, which ties and rounding allow "
                "these predictions"
            )
            found.append(Remark(run.name, "not-the-published-run", message))
    return found


def _classes(runs: Sequence[RunFolder], _: SectionInputs) -> Section | None:
    """Plot average precision by class (Figures 7 and 8), precision and recall, support: a block a run."""
    blocks: list[ScorePlots] = []
    for run in runs:
        protocol = "corrected" if "corrected" in run.metrics["protocols"] else "paper"
        plots = stored_plots(run, ("plots", protocol), _PLOTS)
        if not plots:
            plots = har_plots(_rows(run, "har_classes", protocol), _rows(run, "har_curves", protocol))
            if run.has("har_thresholds") and run.has("har_f1_curves"):  # which older runs have not
                plot = f1_against_threshold(
                    *(_rows(run, name, protocol) for name in ("har_thresholds", "har_f1_curves"))
                )
                plots += [plot] if plot is not None else []
        if plots:
            about = f"{protocol} protocol, {describe_data(run)}"
            blocks.append(ScorePlots(run.name, about, tuple(picture(plot) for plot in plots)))
    if not blocks:
        return None
    together = [(*picture(plot), about) for plot, about in _models_together(runs)]
    return section("classes", "Classes", "classes", "Figures 7 and 8", together=together, blocks=blocks)


def _thresholds(runs: Sequence[RunFolder], _: SectionInputs) -> Section | None:
    """Show the thresholds of classes that were chosen on other data, with F1 before and after: a table a run."""
    tables = []
    for run in runs:
        protocol = "corrected" if "corrected" in run.metrics["protocols"] else "paper"
        rows = _rows(run, "har_thresholds", protocol)
        rows = rows[rows["chosen"].notna() & (rows["support"] > 0)].sort_values(
            "support", ascending=False, kind="stable"
        )
        if not len(rows):
            continue
        frame = pd.DataFrame(
            {"action": rows["action"], "labels": rows["support"], "threshold": rows["chosen"].round(3)}
        )
        frame["F1 before %"], frame["F1 after %"] = ((100 * rows[name]).round(2) for name in ("f1", "f1_chosen"))
        found = (run.metrics.get("thresholds") or {}).get("protocols", {}).get(protocol, {})
        means = [f"{100 * found[name]:.2f}" for name in ("f1", "f1_chosen") if found.get(name) is not None]
        title = f"{run.name}, {protocol} protocol" + (f": macro F1 {' -> '.join(means)} %" if len(means) == 2 else "")
        tables.append(html_table(title, frame, limit=len(frame)))
    return section("thresholds", "Thresholds of classes", "tables", tables=tables) if tables else None


def _rows(run: RunFolder, table: str, protocol: str) -> pd.DataFrame:
    frame = run.table(table).to_pandas()
    return frame[frame["protocol"] == protocol]


def _models_together(runs: Sequence[RunFolder]) -> list[tuple[Plot, str]]:
    """Return one plot of all models, and what it shows, for each set of truth that several were scored on."""
    plots = []
    for same in group_by_truth(runs, "truth_digest"):
        protocol = "corrected" if all("corrected" in run.metrics["protocols"] for run in same) else "paper"
        frames = {run.name: frame for run in same if len(frame := _rows(run, "har_classes", protocol))}
        if len(frames) > 1:
            (best, first), *rest = sorted(frames.items(), key=lambda item: -float(item[1]["ap"].mean()))
            plot = ap_bars(first, dict(rest))
            if plot is not None:
                plots.append((plot, f"{len(frames)} models, {protocol} protocol: bars are {best}, marks the others."))
    return plots


def _actions(runs: Sequence[RunFolder], inputs: SectionInputs) -> Section | None:
    """Show key frames with boxes, true actions and what each model answers (Figures 3 and 4)."""
    groups: list[tuple[str, list[ActionPanel]]] = []
    for same in group_by_truth(runs, "truth_digest"):
        dataset = dataset_of(same[0], inputs.datasets[0] if inputs.datasets else None)
        if dataset is None:
            inputs.notes.append(
                f"{same[0].name}: the videos it was scored on are not to be found (--dataset says where)"
            )
            continue
        compared = same[:_MODELS_A_PANEL]
        panels, notes = action_panels(compared, dataset, inputs.options.max_clips, inputs.options.picture)
        inputs.notes.extend(notes)
        if len(same) > _MODELS_A_PANEL:
            inputs.notes.append(f"pictures of actions show the first {_MODELS_A_PANEL} of {len(same)} runs")
        if panels:
            groups.append((", ".join(run.name for run in compared), panels))
    return section("actions", "What was seen", "actions", "Figures 3 and 4", groups=groups) if groups else None


KIND = RunKind(
    command="har score",
    tables=("har_scores", "har_classes", "har_curves", "har_thresholds", "har_f1_curves", "har_bootstrap"),
    headlines=_headlines,
    remarks=_remarks,
    sections=(
        ReportSection(name="classes", make=_classes, tables=("har_classes",)),
        ReportSection(name="thresholds", make=_thresholds, tables=("har_thresholds",)),
        ReportSection(name="actions", make=_actions),
    ),
    paper_tables=lambda runs: [har_table(runs, fine_tuned=True), har_table(runs, fine_tuned=False)],
    boards=(BOARD, ZERO_SHOT_BOARD),
)
