"""Plots of a dataset: `dataset_plots` makes them all; plots that have nothing to show are left out."""

# pandas annotates `frame[...]` as DataFrame | Series | Any, which makes nearly every chained call an error.
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import io
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from microg.data import statistics
from microg.data.statistics import Tables, frequent_words, words
from microg.reports.plots.style import (
    LIGHT_COLOURS,
    NEUTRAL,
    NO_GROUPS,
    ORIGIN_COLOURS,
    TEXT_COLOURS,
    Plot,
    figure,
    finish,
    group_colours,
    legend_below,
    plain_logarithm,
    styled,
)


def dataset_plots(tables: Tables) -> list[Plot]:
    """Return the plots of the paper's Figure 2 and the appendix tables for a dataset, in reading order."""
    texts = statistics.texts(tables)
    candidates = [
        action_groups(statistics.label_groups(tables)),
        people_per_clip(statistics.people_per_clip(tables)),
        labels_per_person(statistics.labels_per_person(tables)),
        label_distribution(statistics.labels_per_action(tables)),
        length_density(texts),
        question_types(statistics.question_types(tables)),
        qa_kinds(statistics.qa_kinds(tables)),
        *(word_cloud(kind, values) for kind, values in texts.items()),
    ]
    return [plot for plot in candidates if plot is not None]


def label_distribution(labels: pd.DataFrame) -> Plot | None:
    """Bars of labels per action on a log scale, coloured by group; `labels` from `statistics.labels_per_action`."""
    used = labels[labels["all"] > 0]
    if used.empty:
        return None
    unused = len(labels) - len(used)
    with styled():
        result, axes = figure(9, 1.6 + 0.26 * len(used))
        names = used["action"].tolist()
        counts = used["all"].tolist()
        colours = group_colours(labels.sort_values("action_id")["group"])
        axes.barh(names, counts, color=[colours[group] for group in used["group"]], height=0.75)
        axes.set(xscale="log", xlim=(0.8, max(counts) * 2.2))
        plain_logarithm(axes.xaxis)
        axes.invert_yaxis()
        axes.margins(y=0.01)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        for position, count in enumerate(counts):
            axes.text(count * 1.06, position, f"{count:,}", va="center", fontsize=9)
        note = f"; {unused} of the {len(labels)} actions are not used" if unused else ""
        axes.set(xlabel=f"labels (log scale){note}", title="Labels per action")
        patches = [Patch(color=colour, label=name) for name, colour in colours.items()]
        result.legend(handles=patches, loc="outside lower center", ncols=3)
        top = ", ".join(f"{name} {count:,}" for name, count in list(zip(names, counts, strict=True))[:3])
        return finish(result, "label_distribution", f"Bar chart of labels per action; most frequent: {top}.")


def people_per_clip(people: pd.DataFrame) -> Plot | None:
    """Stacked bars of clips by number of people; `people` from `statistics.people_per_clip`."""
    if people.empty or not people["all"].sum():
        return None
    with styled():
        result, axes = figure(7, 4.2)
        positions = people["people"].tolist()
        bottom = [0] * len(positions)
        for origin, counts in _by_origin(people).items():
            axes.bar(positions, counts, bottom=bottom, label=origin, color=ORIGIN_COLOURS[origin], width=0.75)
            bottom = [below + count for below, count in zip(bottom, counts, strict=True)]
        for position, count, percent in zip(positions, people["all"], people["all_percent"], strict=True):
            _write_above(axes, position, count, percent)
        axes.set_ylim(0, max(bottom) * 1.17)
        axes.set_xticks(positions)
        axes.set_xlim(*_bar_range(positions))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=False, axis="x")
        axes.set(xlabel="people in the clip", ylabel="clips", title="People per clip")
        legend_below(result, axes)
        text = ", ".join(f"{count:,} with {number}" for number, count in zip(positions, people["all"], strict=True))
        return finish(result, "people_per_clip", f"Bar chart of clips by number of people: {text}.")


def action_groups(groups: pd.DataFrame) -> Plot | None:
    """A donut of the groups of actions beside their shares by origin; `groups` from `statistics.label_groups`."""
    total = int(groups["all"].sum())
    if not total or set(groups["group"]) <= set(NO_GROUPS):
        return None
    with styled():
        result, (donut, bars) = figure(9, 4, columns=2, width_ratios=[1, 1.25])
        names = groups["group"].tolist()
        colours = list(group_colours(names).values())
        donut.pie(
            groups["all"].tolist(),
            colors=colours,
            startangle=90,
            counterclock=False,
            wedgeprops={"width": 0.38, "edgecolor": "white", "linewidth": 2},
        )
        donut.text(0, 0, f"{total:,}\nlabels", ha="center", va="center", fontsize=13, fontweight="bold")
        donut.set_title("Action groups")
        origins = [origin for origin in ("all", "movie", "real") if groups[origin].sum()]
        left = [0.0] * len(origins)
        for name, colour, row in zip(names, colours, groups.to_dict("records"), strict=True):
            shares = [100 * row[origin] / groups[origin].sum() for origin in origins]
            bars.barh(origins, shares, left=left, color=colour, label=name, height=0.62)
            for position, (start, share, origin) in enumerate(zip(left, shares, origins, strict=True)):
                if share >= 9:
                    bars.text(
                        start + share / 2,
                        position,
                        f"{share:.1f}%\n{row[origin]:,}",
                        ha="center",
                        va="center",
                        fontsize=9,
                        color="black" if colour in LIGHT_COLOURS else "white",
                    )
            left = [start + share for start, share in zip(left, shares, strict=True)]
        bars.invert_yaxis()
        bars.set_xlim(0, 100)
        bars.grid(visible=False, axis="y")
        bars.set(xlabel="% of the labels", title="By origin")
        legend_below(result, bars)
        text = ", ".join(f"{row['group']} {row['all']:,}" for row in groups.to_dict("records"))
        return finish(result, "action_groups", f"Shares of the action groups: {text}.")


def labels_per_person(labels: pd.DataFrame) -> Plot | None:
    """Bars of labelled people by number of actions; `labels` from `statistics.labels_per_person`."""
    if labels.empty:
        return None
    with styled():
        result, axes = figure(7, 3.8)
        positions, counts = labels["labels"].tolist(), labels["all"].tolist()
        bars = axes.bar(positions, counts, color=NEUTRAL, width=0.75)
        axes.bar_label(bars, [f"{count:,}" for count in counts], padding=3, fontsize=9)
        axes.set_xticks(positions)
        axes.set(xlim=_bar_range(positions), ylim=(0, max(counts) * 1.12))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=False, axis="x")
        axes.set(xlabel="actions of the person", ylabel="people", title="Actions per person")
        text = ", ".join(f"{count:,} people with {number}" for number, count in zip(positions, counts, strict=True))
        return finish(result, "labels_per_person", f"Bar chart of actions per person: {text}.")


def _bar_range(positions: list[int]) -> tuple[float, float]:
    """Leave room for at least five bars: one bar over the whole width is hard to read."""
    return min(positions) - 0.6, max(max(positions), min(positions) + 4) + 0.6


def _by_origin(people: pd.DataFrame) -> dict[str, list[int]]:
    """Return origin -> counts, for origins that occur; clips of unknown origin are what is left of all."""
    parts = {origin: people[origin].tolist() for origin in ("movie", "real")}
    parts["unknown"] = (people["all"] - people["movie"] - people["real"]).tolist()
    return {origin: counts for origin, counts in parts.items() if any(counts)}


_SEED = 7
# "Not mentioned." is a marker, not a word of the answer.
_EXTRA_STOP_WORDS = {"mentioned"}


def word_cloud(kind: str, values: list[str]) -> Plot | None:
    """A word cloud of all texts of one kind (caption, question, answer); None when there is no word to show.

    Deterministic: placed with a fixed seed, from counts in a fixed order.
    """
    from wordcloud import STOPWORDS, WordCloud

    counts = frequent_words(values, set(STOPWORDS) | _EXTRA_STOP_WORDS, limit=150)
    if counts.empty:
        return None
    frequencies = dict(zip(counts["word"].tolist(), (float(count) for count in counts["count"]), strict=True))
    cloud = WordCloud(
        width=900,
        height=480,
        background_color="white",
        random_state=_SEED,
        prefer_horizontal=0.9,
        max_words=150,
        margin=5,
        relative_scaling="auto",
        color_func=_colours(kind),
    )
    cloud.generate_from_frequencies(frequencies)
    buffer = io.BytesIO()
    cloud.to_image().save(buffer, format="PNG", optimize=True)
    top = ", ".join(f"{word} ({count})" for word, count in counts.head(5).itertuples(index=False))
    return Plot(
        f"words_{kind}s",
        f"Word cloud of the {kind}s; most frequent words: {top}.",
        buffer.getvalue(),
        cloud.to_svg(embed_font=False).encode(),
        fonts_needed=True,
    )


def _colours(kind: str) -> Callable[..., str]:
    scale = colormaps[{"caption": "Blues", "question": "Oranges", "answer": "Greens"}[kind]]

    def colour(word: str, font_size: int, random_state: Random, **_: Any) -> str:
        del word, font_size
        return to_hex(scale(0.6 + 0.4 * random_state.random()))

    return colour


def length_density(texts: dict[str, list[str]]) -> Plot | None:
    """Smoothed density of the number of words, one curve a kind of text, with histograms behind.

    The curve is the kernel density, cut at zero.
    """
    lengths = {kind: np.array([len(words(value)) for value in values]) for kind, values in texts.items() if values}
    if not lengths:
        return None
    with styled():
        result, axes = figure(8, 4.2)
        longest = max(int(values.max()) for values in lengths.values())
        bins = np.arange(-0.5, longest + 1.5, max(1, longest // 60))
        grid = np.linspace(0, longest + 2, 500)
        for kind, values in lengths.items():
            colour = TEXT_COLOURS[kind]
            axes.hist(values, bins=bins.tolist(), density=True, color=colour, alpha=0.22)
            label = f"{kind}s (mean {values.mean():.1f} words)"
            axes.plot(grid, kernel_density(values, grid), color=colour, linewidth=2.2, label=label)
        axes.set_xlim(0, longest + 2)
        axes.set_ylim(bottom=0)
        axes.set(xlabel="words", ylabel="density", title="Length of captions, questions and answers")
        legend_below(result, axes)
        text = "; ".join(f"{kind}s {values.mean():.1f} words on average" for kind, values in lengths.items())
        return finish(result, "text_lengths", f"Density of text lengths: {text}.")


def kernel_density(values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Return the Gaussian kernel density of `values` (n,) on `grid` (m,): Scott's bandwidth, at least half a unit."""
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    bandwidth = max(spread * len(values) ** -0.2, 0.5)
    lengths, counts = np.unique(values, return_counts=True)
    weights = counts / counts.sum()
    scaled = (grid[:, None] - lengths[None, :]) / bandwidth
    return (np.exp(-0.5 * scaled**2) * weights).sum(axis=1) / (bandwidth * np.sqrt(2 * np.pi))


def question_types(types: pd.DataFrame) -> Plot | None:
    """Bars of questions by question word; `types` from `statistics.question_types`."""
    used = types[types["questions"] > 0].sort_values("questions", ascending=False, kind="stable")
    if used.empty:
        return None
    with styled():
        result, axes = figure(7, 4)
        names, counts = used["type"].tolist(), used["questions"].tolist()
        answered = [count - unanswered for count, unanswered in zip(counts, used["unanswerable"], strict=True)]
        axes.bar(names, answered, color=TEXT_COLOURS["question"], width=0.75, label="answered")
        axes.bar(
            names, used["unanswerable"].tolist(), bottom=answered, color=NEUTRAL, width=0.75, label="not mentioned"
        )
        for position, (count, percent) in enumerate(zip(counts, used["percent"], strict=True)):
            _write_above(axes, position, count, percent)
        # one bar over the whole width is hard to read
        axes.set(ylim=(0, max(counts) * 1.18), xlim=(-0.6, max(len(names) - 1, 4) + 0.6))
        axes.grid(visible=False, axis="x")
        axes.set(ylabel="questions", title="Question types")
        legend_below(result, axes)
        text = ", ".join(f"{name} {count:,}" for name, count in zip(names, counts, strict=True))
        return finish(result, "question_types", f"Bar chart of question types: {text}.")


def qa_kinds(kinds: pd.DataFrame) -> Plot | None:
    """Bars of questions by what they ask for; `kinds` from `statistics.qa_kinds`."""
    if kinds.empty or not int(kinds["questions"].sum()):
        return None
    with styled():
        result, axes = figure(7, 3.4)
        names, counts = kinds["kind"].tolist(), kinds["questions"].tolist()
        bars = axes.barh(names, counts, color=TEXT_COLOURS["question"], height=0.72)
        labels = [f"{count:,}  {share:.1f}%" for count, share in zip(counts, kinds["percent"], strict=True)]
        axes.bar_label(bars, labels, padding=4, fontsize=9)
        axes.invert_yaxis()
        axes.set(xlim=(0, max(counts) * 1.2), xlabel="questions", title="Kinds of questions")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=False, axis="y")
        text = ", ".join(f"{name} {count:,}" for name, count in zip(names, counts, strict=True))
        return finish(result, "qa_kinds", f"Bar chart of kinds of questions: {text}.")


def _write_above(axes: Axes, position: float, count: int, percent: float) -> None:
    text = f"{count:,}\n{percent:.1f}%"
    axes.annotate(text, (position, count), (0, 4), textcoords="offset points", ha="center", fontsize=9)
