"""Plots of captions, questions and answers (the paper's Figure 2, right half)."""

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
from matplotlib.colors import to_hex

from microg.data.text_statistics import frequent_words, words
from microg.reports.plots.style import NEUTRAL, TEXT_COLOURS, Plot, figure, finish, legend_below, styled

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
        axes.set_xlabel("words")
        axes.set_ylabel("density")
        axes.set_title("Length of captions, questions and answers")
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
    """Bars of questions by question word; `types` from `text_statistics.question_types`."""
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
            axes.annotate(
                f"{count:,}\n{percent:.1f}%",
                (position, count),
                (0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=9,
            )
        axes.set_ylim(0, max(counts) * 1.18)
        axes.set_xlim(-0.6, max(len(names) - 1, 4) + 0.6)  # one bar over the whole width is hard to read
        axes.grid(visible=False, axis="x")
        axes.set_ylabel("questions")
        axes.set_title("Question types")
        legend_below(result, axes)
        text = ", ".join(f"{name} {count:,}" for name, count in zip(names, counts, strict=True))
        return finish(result, "question_types", f"Bar chart of question types: {text}.")
