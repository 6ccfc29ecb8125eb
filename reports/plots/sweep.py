"""Parallel coordinates of a sweep: a line a trial through its recipe, its settings and its score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from microg.reports.plots.style import NEUTRAL, Plot, figure, finish, styled

_LOGARITHMIC_FROM = 20.0  # ratio of the largest to the smallest value from which an axis is logarithmic


@dataclass(frozen=True)
class _Axis:
    """One vertical axis: where each trial crosses it (0 bottom, 1 top), and its ticks."""

    title: str
    places: np.ndarray
    ticks: list[tuple[float, str]]


def parallel_coordinates(
    trials: Sequence[Mapping[str, Any]], keys: Sequence[str], score: str, title: str
) -> Plot | None:
    """Draw trials as lines over the axes `keys` and `score`; a trial without a score is left out.

    `trials` are rows with each of `keys`, `score` (larger is better) and `status`; a line is coloured by its score,
    the best one thick, those stopped early dashed. Returns None when no trial has a score.
    """
    scored = [trial for trial in trials if trial.get(score) is not None]
    if not scored:
        return None
    values = np.array([trial[score] for trial in scored], dtype=float)
    axes_of = [_axis(key, [trial[key] for trial in scored]) for key in keys]
    axes_of.append(_score_axis(score, values))
    shade = Normalize(values.min(), max(values.max(), values.min() + 1e-9))
    palette = colormaps["viridis"]
    best = int(values.argmax())
    with styled():
        result, axes = figure(max(6.0, 2.1 * len(axes_of) + 1.2), 4.8)
        across = np.arange(len(axes_of))
        for number in np.argsort(values, kind="stable"):
            places = np.array([axis.places[number] for axis in axes_of])
            x, y = _smooth(across, places)
            early = scored[number].get("status") == "stopped"
            axes.plot(
                x,
                y,
                color=palette(shade(values[number])),
                linewidth=3.6 if number == best else 1.7,
                linestyle=(0, (4, 2)) if early else "-",
                alpha=0.95,
                zorder=4 if number == best else 3,
            )
        _draw_axes(axes, axes_of)
        stopped = any(trial.get("status") == "stopped" for trial in scored)
        axes.set_title(title + (" (dashed: stopped early)" if stopped else ""))
        result.colorbar(ScalarMappable(shade, palette), ax=axes, label=score, fraction=0.03, pad=0.02)
        description = f"{len(scored)} trials over {', '.join(keys)}; best {score} {values[best]:.3f}"
        return finish(result, "parallel_coordinates", description)


def _draw_axes(axes: Axes, axes_of: Sequence[_Axis]) -> None:
    axes.set_xlim(-0.25, len(axes_of) - 0.75)
    axes.set_ylim(-0.12, 1.06)
    axes.set_xticks(range(len(axes_of)), [axis.title for axis in axes_of], fontweight="bold")
    axes.tick_params(axis="x", length=0)
    axes.set_yticks([])
    axes.grid(False)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(False)
    for x, axis in enumerate(axes_of):
        axes.vlines(x, 0, 1, color=NEUTRAL, linewidth=1.2, zorder=2)
        for place, label in axis.ticks:
            axes.hlines(place, x - 0.03, x + 0.03, color=NEUTRAL, linewidth=1.2, zorder=2)
            axes.annotate(
                label,
                (x, place),
                xytext=(6, 0),
                textcoords="offset points",
                fontsize=9,
                va="center",
                zorder=6,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8},
            )


def _smooth(across: np.ndarray, places: np.ndarray, steps: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Return points of a curve that leaves and meets each axis level, so that lines can be told at a crossing."""
    t = np.linspace(0, 1, steps)
    ease = t * t * (3 - 2 * t)
    x = np.concatenate([a + t for a in across[:-1]])
    y = np.concatenate([a + (b - a) * ease for a, b in pairwise(places)])
    return x, y


def _axis(title: str, values: list[Any]) -> _Axis:
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    distinct = sorted(set(values), key=None if numeric else str)
    if not numeric or len(distinct) <= 4:  # each value its own place
        place = {value: _spread(index, len(distinct)) for index, value in enumerate(distinct)}
        return _Axis(title, np.array([place[v] for v in values]), [(place[v], _label(v)) for v in distinct])
    numbers = np.array(values, dtype=float)
    logarithmic = numbers.min() > 0 and numbers.max() / numbers.min() >= _LOGARITHMIC_FROM
    scaled = np.log10(numbers) if logarithmic else numbers
    low, high = scaled.min(), scaled.max()
    at = np.linspace(low, high, 5)
    ticks = [(float((v - low) / (high - low)), f"{10**v:.2g}" if logarithmic else f"{v:.3g}") for v in at]
    return _Axis(title + (" (log)" if logarithmic else ""), (scaled - low) / (high - low), ticks)


def _score_axis(title: str, values: np.ndarray) -> _Axis:
    low, high = values.min(), values.max()
    if high - low < 1e-12:
        return _Axis(title, np.full(len(values), 0.5), [(0.5, f"{low:.3f}")])
    ticks = [(float((v - low) / (high - low)), f"{v:.3f}") for v in np.linspace(low, high, 5)]
    return _Axis(title, (values - low) / (high - low), ticks)


def _spread(index: int, count: int) -> float:
    return 0.5 if count == 1 else index / (count - 1)


def _label(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
