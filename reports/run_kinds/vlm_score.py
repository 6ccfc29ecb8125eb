"""Runs of `microg vlm score`: captions and answers side by side, plots of scores, Tables 4 and 5, boards."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from microg.metrics.text.registry import title as score_title
from microg.reports.clips.texts import clip_texts
from microg.reports.html import Section, picture, section
from microg.reports.plots.vlm import vlm_plots
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
from microg.reports.tables.text_tables import (
    ANSWER_BOARD,
    CAPTION_BOARD,
    NOUNS,
    PROTOCOLS,
    columns,
    scores_of,
    text_table,
)
from microg.texts.items import Task

_MEANINGS = {
    "missing": "have no prediction and score 0",
    "failed": "failed when they were generated and score 0",
    "empty": "are answered with nothing and score 0",
    "extra": "are predicted without a reference",
}
_WRAPPED = "hold more than an answer"
# Plots as the scorer names them, in reading order, and what they show.
_PLOTS = {
    "vlm_scores_caption": "Caption scores with intervals",
    "vlm_lengths_caption": "Lengths of captions",
    "vlm_scores_vqa": "Answer scores with intervals",
    "vlm_answer_slices": "Answers by kind",
    "vlm_lengths_vqa": "Lengths of answers",
}


def _headlines(run: RunFolder) -> list[Headline]:
    result = []
    for task, noun in NOUNS.items():
        scored = ((protocol, scores_of(run, task, protocol)) for protocol in PROTOCOLS)
        protocol, cells = next(((protocol, cells) for protocol, cells in scored if cells), ("", {}))
        title = next((column for column in (columns(task)[4], "ROUGE-L", "CIDEr") if column in cells), "")
        if title and cells[title].value is not None:
            result.append(Headline(f"{title} %, {noun}, {protocol}", cells[title].number, cells[title].interval))
    rule, wrapped = _rule_of_answers(run)
    return [*result, Headline("answers scored", rule, f"{wrapped:,} {_WRAPPED}" if wrapped else "")]


def _rule_of_answers(run: RunFolder) -> tuple[str, int]:
    """Return the rule by which answers were read, and how many are more than an answer; older runs are raw."""
    found = run.metrics.get("answers") or {}
    return str(found.get("rule", "raw")), int(found.get("wrapped") or 0)


def _remarks(run: RunFolder) -> list[Remark]:
    found = []
    for task, counts in run.metrics.get("coverage", {}).items():
        for what, meaning in _MEANINGS.items():
            if counts.get(what):
                message = f"{counts[what]:,} of {counts.get('items', 0):,} items {meaning}"
                found.append(Remark(run.name, f"{what}-{task}", message))
    for task, by_protocol in run.metrics.get("tasks", {}).items():
        for protocol, part in by_protocol.items():
            for metric, number in (part.get("over_length") or {}).items():
                if number:
                    message = f"{metric} ({protocol}) cut {number:,} texts at its encoder's length"
                    found.append(Remark(run.name, f"cut-{task}", message))
    rule, wrapped = _rule_of_answers(run)
    if wrapped:
        done = "which was left out" if rule == "clean" else "all of which was scored (--answers raw)"
        found.append(Remark(run.name, "answers", f"{wrapped:,} texts {_WRAPPED}, {done}"))
    for name, why in (run.metrics.get("skipped") or {}).items():
        found.append(Remark(run.name, "not-computed", f"{name}: {why}"))
    return found


_FIGURES: dict[Task, str] = {"caption": "Figure 5", "vqa": "Figure 6"}


def _texts(runs: Sequence[RunFolder], inputs: SectionInputs, *, task: Task) -> Section | None:
    """Show captions with marked details (Figure 5), or answers of several models side by side (Figure 6)."""
    clips = []
    for same in group_by_truth([run for run in runs if task in run.metrics.get("tasks", {})], "references_digest"):
        dataset = dataset_of(same[0], inputs.datasets[0] if inputs.datasets else None)
        clips += clip_texts(same, task, dataset, inputs.options.max_clips, inputs.options.picture)
    name = NOUNS[task]
    return section(name, name.capitalize(), name, _FIGURES[task], clips=clips) if clips else None


def _score_plots(runs: Sequence[RunFolder], _: SectionInputs) -> Section | None:
    """Plot the scores of captions and answers, their parts and lengths: a block a run."""
    blocks = []
    for run in runs:
        plots = stored_plots(run, ("plots",), _PLOTS)
        if not plots:
            scores, pairs = run.table("text_scores").to_pandas(), run.table("text_pairs").to_pandas()
            plots = vlm_plots(scores, pairs, {name: score_title(name) for name in scores["metric"].unique()})
        if plots:
            blocks.append(ScorePlots(run.name, "", tuple(picture(plot) for plot in plots)))
    return section("text-scores", "Scores of texts", "classes", together=[], blocks=blocks) if blocks else None


KIND = RunKind(
    command="vlm score",
    tables=("text_pairs", "text_scores", "text_items", "text_bootstrap", "text_judgements"),
    headlines=_headlines,
    remarks=_remarks,
    sections=(
        ReportSection(name="captions", make=partial(_texts, task="caption"), tables=("text_pairs",)),
        ReportSection(name="answers", make=partial(_texts, task="vqa"), tables=("text_pairs",)),
        ReportSection(name="text scores", make=_score_plots, tables=("text_scores",)),
    ),
    paper_tables=lambda runs: [text_table(runs, "caption"), text_table(runs, "vqa")],
    boards=(CAPTION_BOARD, ANSWER_BOARD),
)
