"""Plots of caption and answer scores, from the tables `text_scores` and `text_pairs` of a run folder."""

# pandas annotates `frame[...]` as DataFrame | Series | Any, which makes nearly every chained call an error.
# pyright: reportReturnType=false, reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from microg.reports.plots.style import NEUTRAL, TEXT_COLOURS, Plot, figure, finish, legend_below, styled

_PROTOCOLS = {"paper": ("#0072B2", "o"), "standard": ("#D55E00", "s")}
_SYSTEMS = {"constant": "|", "blind": "x", "shuffled": "+"}
_SLICED = {"exact_match": "#0072B2", "token_f1": "#E69F00", "rouge_l": "#009E73"}
_KINDS = {"answer_type": "answer type", "question_type": "question", "qa_kind": "kind", "origin": "origin"}
_CIDER = "cider"


def _broken(name: str) -> str:
    """Break a long name of a part in two lines, for the space that a bar has.

    >>> _broken("foreground action").splitlines(), _broken("is/are")
    (['foreground', 'action'], 'is/are')
    """
    return re.sub(r"(?<=\w{4})([ /])(?=\w{4})", lambda gap: gap[1].strip() + "\n", name)


def vlm_plots(scores: pd.DataFrame, pairs: pd.DataFrame, titles: Mapping[str, str]) -> list[Plot]:
    """Return the plots of all tasks: scores with intervals beside baselines, parts of the answers, lengths.

    `titles` says what to call the scores.
    """
    candidates = []
    for task in scores["task"].unique():
        candidates.append(score_points(scores[scores["task"] == task], task, titles))
        candidates.append(lengths(pairs[pairs["task"] == task], task))
    candidates.append(answer_slices(scores[scores["task"] == "vqa"], titles))
    return [plot for plot in candidates if plot is not None]


def score_points(scores: pd.DataFrame, task: str, titles: Mapping[str, str]) -> Plot | None:
    """Each score with its 95% interval, protocols in colour, baselines in grey; CIDEr-D on a scale of its own."""
    whole = scores[(scores["slice_kind"] == "all") & (scores["coverage"] == "all") & scores["value"].notna()]
    names = list(dict.fromkeys(whole["metric"]))
    if not names:
        return None
    rest = [name for name in names if name != _CIDER]
    groups = [group for group in ([_CIDER] if _CIDER in names else [], rest) if group]
    with styled():
        ratios = [len(group) + 0.6 for group in groups]
        result, panels = figure(9, 1.4 + 0.8 * len(groups) + 0.42 * len(names), len(groups), height_ratios=ratios)
        panels = np.atleast_1d(panels)
        for panel, group in zip(panels, groups, strict=True):
            for place, name in enumerate(group):
                _points(panel, whole[whole["metric"] == name], place)
            panel.set_yticks(range(len(group)), [titles.get(name, name) for name in group])
            panel.set_ylim(len(group) - 0.4, -0.6)
            high = 100 * float(whole[whole["metric"].isin(group)][["value", "high"]].max().max())
            panel.set_xlim(min(0, 100 * float(whole[whole["metric"].isin(group)]["value"].min())), max(high, 1) * 1.06)
        panels[0].set_title(f"{task.upper() if task == 'vqa' else task.capitalize()} scores x 100, 95% over clips")
        there = set(whole[whole["system"] == "model"]["protocol"])
        handles = [
            Line2D([], [], color=colour, marker=marker, linestyle="", label=f"{name} protocol")
            for name, (colour, marker) in _PROTOCOLS.items()
            if name in there
        ]
        systems = set(whole["system"])
        handles += [
            Line2D([], [], color=NEUTRAL, marker=marker, linestyle="", markersize=8, label=name)
            for name, marker in _SYSTEMS.items()
            if name in systems
        ]
        result.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=10)
        shown = whole[(whole["system"] == "model") & (whole["protocol"] == whole["protocol"].iloc[0])]
        text = ", ".join(
            f"{titles.get(name, name)} {100 * value:.1f}"
            for name, value in zip(shown["metric"], shown["value"], strict=True)
        )
        return finish(result, f"vlm_scores_{task}", f"Points of {task} scores with intervals and baselines: {text}.")


def _points(panel, rows: pd.DataFrame, place: int) -> None:  # pyright: ignore[reportMissingParameterType]
    model = rows[rows["system"] == "model"]
    there = [name for name in _PROTOCOLS if name in set(model["protocol"])]
    for number, protocol in enumerate(there):
        colour, marker = _PROTOCOLS[protocol]
        for row in model[model["protocol"] == protocol].to_dict("records"):
            at = place + (number - (len(there) - 1) / 2) * 0.3
            if row["low"] == row["low"] and row["low"] is not None:
                panel.plot([100 * row["low"], 100 * row["high"]], [at, at], color=colour, linewidth=2)
            panel.plot(
                [100 * row["value"]], [at], color=colour, marker=marker, markersize=6, linestyle="", clip_on=False
            )
    first = rows[rows["protocol"] == rows["protocol"].iloc[0]]
    for system, marker in _SYSTEMS.items():
        value = 100 * first[first["system"] == system]["value"]
        style = {"color": NEUTRAL, "marker": marker, "markersize": 8, "linestyle": ""}
        (marks,) = panel.plot(value, [place] * len(value), **style, zorder=1, clip_on=False)
        marks.set_in_layout(False)  # they may stand on the edge: the layout does not make room for them


def answer_slices(scores: pd.DataFrame, titles: Mapping[str, str]) -> Plot | None:
    """Bars of exact match, token F1 and ROUGE-L by kind of answer and question, and by origin."""
    sliced = scores[(scores["slice_kind"] != "all") & scores["metric"].isin(_SLICED) & scores["value"].notna()]
    if sliced.empty:
        return None
    sliced = sliced[sliced["protocol"] == sliced["protocol"].iloc[0]]
    parts = sliced[["slice_kind", "slice", "items"]].drop_duplicates()
    parts = parts.sort_values(["slice_kind", "items"], ascending=[True, False], kind="stable").to_dict("records")
    names = [name for name in _SLICED if (sliced["metric"] == name).any()]
    with styled():
        result, axes = figure(max(7.0, 2 + 0.75 * len(parts)), 4.8)
        width = 0.8 / len(names)
        gap, places, before = 0.0, [], None
        for number, part in enumerate(parts):
            gap += 0.6 * (before is not None and part["slice_kind"] != before)
            before = part["slice_kind"]
            places.append(number + gap)
        for number, name in enumerate(names):
            found = sliced[sliced["metric"] == name].set_index(["slice_kind", "slice"])["value"]
            values = [100 * float(found[part["slice_kind"], part["slice"]]) for part in parts]
            at = [place + (number - (len(names) - 1) / 2) * width for place in places]
            axes.bar(at, values, width=width * 0.95, color=_SLICED[name], label=titles.get(name, name))
        axes.set_xticks(places, [f"{_broken(part['slice'])}\n({part['items']:,})" for part in parts], fontsize=9)
        for kind in dict.fromkeys(part["slice_kind"] for part in parts):
            members = [place for place, part in zip(places, parts, strict=True) if part["slice_kind"] == kind]
            style = {"ha": "center", "va": "top", "color": NEUTRAL, "fontsize": 10}
            axes.text(float(np.mean(members)), -0.23, _KINDS[kind], transform=axes.get_xaxis_transform(), **style)
        axes.grid(visible=False, axis="x")
        axes.set(ylim=(0, 102), ylabel="score x 100", title="Answers by kind (items in brackets)")
        legend_below(result, axes)
        text = "; ".join(f"{part['slice']}: {part['items']} items" for part in parts)
        return finish(result, "vlm_answer_slices", f"Bars of answer scores by kind of answer; {text}.")


def lengths(pairs: pd.DataFrame, task: str) -> Plot | None:
    """Words said over words in the reference, an item a point; bands where CIDEr-D keeps less than a quarter."""
    known = pairs[pairs["text"].notna()]
    if len(known) < 2:
        return None
    said = np.array([len(text.split()) for text in known["text"]])
    true = np.array([len(texts[0].split()) for texts in known["references"]])
    top = float(max(np.quantile(said, 0.995), np.quantile(true, 0.995), 5)) * 1.05
    with styled():
        result, axes = figure(6.4, 5.6)
        line = np.array([0.0, top])
        axes.fill_between(line, line - 10, line + 10, color="#e8eef5", linewidth=0, label="within 10 words")
        axes.plot(line, line, color=NEUTRAL, linewidth=1, linestyle="--", label="equal length")
        spread = np.random.default_rng(0).uniform(-0.3, 0.3, (2, len(said)))  # equal points do not hide each other
        alpha = float(np.clip(200 / len(said), 0.08, 0.7))
        colour = TEXT_COLOURS["caption" if task == "caption" else "answer"]
        # as pixels also in SVG: thousands of points
        axes.scatter(true + spread[0], said + spread[1], s=14, color=colour, alpha=alpha, linewidths=0, rasterized=True)
        axes.set(
            xlim=(0, top),
            ylim=(0, top),
            xlabel="words in the reference",
            ylabel="words said",
            title=f"Length of {'captions' if task == 'caption' else 'answers'} ({len(known):,})",
        )
        legend_below(result, axes)
        text = f"{said.mean():.1f} words said against {true.mean():.1f} on average"
        return finish(result, f"vlm_lengths_{task}", f"Scatter plot of words said over words in the reference: {text}.")
