"""Plots of HAR scores, from the tables `har_classes` and `har_curves` of a run folder."""

# pandas annotates `frame[...]` as DataFrame | Series | Any, which makes nearly every chained call an error.
# pyright: reportReturnType=false, reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from microg.reports.plots.style import (
    GROUP_COLOURS,
    NEUTRAL,
    NO_GROUPS,
    Plot,
    figure,
    finish,
    group_colours,
    legend_below,
    plain_logarithm,
    styled,
)

# Curves drawn in colour in each group's panel; the rest is grey.
_NAMED_CURVES = 6
_LEAST_CURVE_SUPPORT = 5
_CURVE_PANELS = 3  # side by side
_MARKERS = "oD^sv<>P"
_THRESHOLD_PANELS = 12
_F1_COLOUR, _CHOSEN_COLOUR = "#1f6f8b", "#c8553d"


def har_plots(
    classes: pd.DataFrame, curves: pd.DataFrame, others: Mapping[str, pd.DataFrame] | None = None
) -> list[Plot]:
    """Return the plots of one protocol: AP bars, precision-recall curves, support against AP.

    `classes` and `curves` hold the rows of that protocol; `others` the `har_classes` rows of runs compared with.
    """
    candidates = [ap_bars(classes, others), precision_recall_curves(classes, curves), support_against_ap(classes)]
    return [plot for plot in candidates if plot is not None]


def ap_bars(classes: pd.DataFrame, others: Mapping[str, pd.DataFrame] | None = None) -> Plot | None:
    """Bars of AP per class by group (the paper's Figures 7 and 8); published values and compared runs as marks."""
    known = _known(classes)
    if known.empty:
        return None
    known = known.sort_values(["order", "ap"], ascending=[True, False], kind="stable")
    with styled():
        result, axes = figure(max(7.0, 2.2 + 0.3 * len(known)), 5.6)
        places = np.arange(len(known))
        axes.bar(places, known["ap"], color=known["colour"], width=0.78)
        handles: list[Patch | Line2D] = [Patch(color=colour, label=name) for name, colour in _colours(known).items()]
        if known["ap_published"].notna().any():
            axes.scatter(places, known["ap_published"], marker="_", s=140, color="black", linewidths=1.8, zorder=3)
            handles.append(Line2D([], [], color="black", marker="_", linestyle="", markersize=12, label="published"))
        for (name, frame), marker in zip((others or {}).items(), _MARKERS, strict=False):
            ap = known["action_id"].map(frame.set_index("action_id")["ap"])
            axes.scatter(places, ap, marker=marker, s=22, facecolor="white", edgecolor=NEUTRAL, zorder=4)
            handles.append(
                Line2D([], [], color=NEUTRAL, marker=marker, markerfacecolor="white", linestyle="", label=name)
            )
        mean = float(known["ap"].mean())
        axes.axhline(mean, color=NEUTRAL, linewidth=1, linestyle="--")
        handles.append(Line2D([], [], color=NEUTRAL, linewidth=1, linestyle="--", label=f"mean {mean:.3f}"))
        labels = [f"{name} ({count})" for name, count in zip(known["short"], known["support"], strict=True)]
        axes.set_xticks(places, labels, rotation=55, ha="right", rotation_mode="anchor", fontsize=9)
        axes.set(xlim=(-0.7, len(known) - 0.3), ylim=(0, 1.02))
        axes.grid(visible=False, axis="x")
        axes.set(ylabel="average precision", title=f"Average precision of {len(known)} classes (labels in brackets)")
        result.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), fontsize=10)
        top = known.sort_values("ap", ascending=False).head(3)
        text = ", ".join(f"{name} {ap:.2f}" for name, ap in zip(top["action"], top["ap"], strict=True))
        return finish(result, "har_ap", f"Bar chart of average precision per class, mean {mean:.3f}; best: {text}.")


def precision_recall_curves(classes: pd.DataFrame, curves: pd.DataFrame) -> Plot | None:
    """Precision-recall curves in one panel a group; the most frequent classes in colour."""
    known = _known(classes)
    known = known[known["support"] >= _LEAST_CURVE_SUPPORT]
    if known.empty:
        return None
    present = known["group"].unique().tolist()
    groups = [group for group in _colours(known) if group in present and group not in NO_GROUPS] or present
    by_class = dict(tuple(curves.groupby("action_id")))
    columns = min(len(groups), _CURVE_PANELS)
    rows = -(-len(groups) // columns)
    with styled():
        result, panels = figure(1.2 + 4.1 * columns, 5.4 * rows, rows=rows, columns=columns, sharey=True)
        panels = np.atleast_1d(panels).ravel()
        for panel in panels[len(groups) :]:
            panel.set_visible(False)
        for panel, group in zip(panels, groups, strict=False):
            part = known[known["group"] == group].sort_values("support", ascending=False, kind="stable")
            for place, row in enumerate(part.to_dict("records")):
                curve = by_class.get(row["action_id"])
                recall, precision = _steps(curve)
                if place < _NAMED_CURVES:
                    label = f"{row['short']} ({row['support']}), AP {row['ap']:.2f}"
                    style = {"color": colormaps["tab10"](place), "linewidth": 1.8, "label": label, "zorder": 3}
                else:
                    style = {"color": "#c4c4c4", "linewidth": 0.9}
                panel.plot(recall, precision, **style)
            panel.set(xlim=(0, 1.01), ylim=(0, 1.02), xlabel="recall", title=group[0].upper() + group[1:])
            panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=9)
        for panel in panels[::columns]:
            panel.set_ylabel("precision (interpolated)")
        text = f"Precision-recall curves of the {len(known)} classes with at least {_LEAST_CURVE_SUPPORT} labels"
        return finish(result, "har_precision_recall", f"{text}, by action group.")


def support_against_ap(classes: pd.DataFrame) -> Plot | None:
    """Points of AP over the number of labels, a class each."""
    known = _known(classes)
    if known.empty:
        return None
    with styled():
        result, axes = figure(8, 5.2)
        for group, colour in _colours(known).items():
            part = known[known["group"] == group]
            if len(part):
                axes.scatter(part["support"], part["ap"], color=colour, s=46, alpha=0.85, label=group, linewidths=0)
        axes.set_xscale("log")
        plain_logarithm(axes.xaxis)
        top = max(int(known["support"].max()), 10)
        axes.set(xlim=(0.8, top * 1.8), ylim=(-0.02, 1.05))
        # names where there is room: the rest would lie on top of each other
        taken: list[tuple[float, float]] = []
        for row in known.sort_values("support", ascending=False, kind="stable").to_dict("records"):
            place = float(np.log10(row["support"])) / max(np.log10(top * 1.8), 1), float(row["ap"])
            if all(abs(place[0] - x) > 0.17 or abs(place[1] - y) > 0.045 for x, y in taken):
                taken.append(place)
                axes.annotate(row["short"], (row["support"], row["ap"]), (5, 5), textcoords="offset points", fontsize=8)
        for edge in (5, 50):
            axes.axvline(edge, color=NEUTRAL, linewidth=0.9, linestyle=":")
        axes.set(
            xlabel="labels in the test set (log scale)",
            ylabel="average precision",
            title="Class support against average precision",
        )
        legend_below(result, axes)
        rho = known["support"].rank().corr(known["ap"].rank()) if len(known) > 2 else float("nan")
        text = f"Scatter plot of average precision over labels for {len(known)} classes; rank correlation {rho:.2f}."
        return finish(result, "har_support", text)


def f1_against_threshold(thresholds: pd.DataFrame, curves: pd.DataFrame) -> Plot | None:
    """F1 against the threshold, a panel each for the most frequent classes; what was best here, and what was chosen.

    `thresholds` and `curves` hold the rows of `har_thresholds` and `har_f1_curves` of one protocol.
    """
    known = thresholds[thresholds["support"] > 0].sort_values("support", ascending=False, kind="stable")
    known = known.assign(short=_short_names(known["action"])).head(_THRESHOLD_PANELS)
    by_class = dict(tuple(curves.groupby("action_id")))
    if known.empty or curves.empty:
        return None
    columns = min(4, len(known))
    rows = -(-len(known) // columns)
    with styled():
        result, panels = figure(3.0 * columns, 2.5 * rows + 0.8, rows=rows, columns=columns, sharey=True)
        panels = np.atleast_1d(panels).ravel()
        for panel, row in zip(panels, known.to_dict("records"), strict=False):
            curve = by_class.get(row["action_id"])
            if curve is not None:
                panel.plot(curve["threshold"], curve["f1"], color=_F1_COLOUR, linewidth=1.6)
            panel.plot([row["best"]], [row["f1_best"]], "o", color=_F1_COLOUR, markersize=5)
            if not np.isnan(row["chosen"]):
                panel.axvline(row["chosen"], color=_CHOSEN_COLOUR, linewidth=1.4, linestyle="--")
                panel.plot([row["chosen"]], [row["f1_chosen"]], "s", color=_CHOSEN_COLOUR, markersize=5)
            panel.set(ylim=(0, 1.02), title=f"{row['short']} ({row['support']})")
        for place, panel in enumerate(panels):
            panel.set_visible(place < len(known))
            if len(known) - columns <= place:
                panel.set_xlabel("threshold")
        for panel in panels[::columns]:
            panel.set_ylabel("F1")
        handles = [
            Line2D([], [], color=_F1_COLOUR, marker="o", label="F1 where the score of a label is the threshold; best")
        ]
        if known["chosen"].notna().any():
            label = "the threshold chosen on other data"
            handles.append(Line2D([], [], color=_CHOSEN_COLOUR, marker="s", linestyle="--", label=label))
        result.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=10)
        text = f"F1 against the threshold for the {len(known)} most frequent classes"
        return finish(result, "har_f1_thresholds", f"{text}; macro over all is in the table.")


def _known(classes: pd.DataFrame) -> pd.DataFrame:
    """Keep classes with truth; add a short name, and each group's place and colour."""
    known = classes[classes["support"] > 0].copy()
    known["short"] = _short_names(known["action"])
    known["group"] = known["group"].fillna("other")
    colours = _colours(known)
    order = {name: place for place, name in enumerate(colours)}
    known["order"] = known["group"].map(order)
    known["colour"] = known["group"].map(colours)
    return known


def _colours(known: pd.DataFrame) -> dict[str, str]:
    """Return the colours of groups, in order: the published groups, unless all classes are of others, what else
    there is by the first of its classes, and last what has no group."""
    found = [str(group) for group in known.sort_values("action_id")["group"].unique()]
    published = list(GROUP_COLOURS) if set(found) & set(GROUP_COLOURS) else []
    others = [group for group in found if group not in (*GROUP_COLOURS, *NO_GROUPS)]
    rest = [group for group in found if group in NO_GROUPS]
    return group_colours([*published, *others, *rest])


def _steps(curve: pd.DataFrame | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the interpolated curve from recall 0 to where it ends, then down to 0."""
    if curve is None or curve.empty:
        return np.zeros(0), np.zeros(0)
    recall, precision = curve["recall"].to_numpy(), curve["precision"].to_numpy()
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.concatenate([[0.0], recall])
    # a step holds the precision of its right end
    x = np.repeat(at, 2)[1:]
    y = np.append(np.repeat(highest, 2), 0.0)
    return x, y


def _short_names(actions: pd.Series) -> pd.Series:
    short = actions.map(_short)
    # two classes may differ only in what stands in brackets
    return short.where(~short.duplicated(keep=False), actions.str.split("/any").str[0])


def _short(name: str) -> str:
    return name.split(" (")[0]
