"""Curves of a training run, from table `har_train`: loss and learning rate, validation scores, time."""

# pandas annotates `frame[...]` as DataFrame | Series | Any, which makes nearly every chained call an error.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

from microg.reports.plots.style import NEUTRAL, Plot, figure, finish, plain_logarithm, styled

_BLUE, _ORANGE, _GREEN, _RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"


def training_curves(
    history: pd.DataFrame, name: str, published: Mapping[int, Mapping[str, float]] | None = None
) -> Plot | None:
    """Draw loss with learning rate, and validation mAP under both protocols, over epochs; the best epoch is marked.

    `history` holds rows of table `har_train`; `published` the published validation scores by epoch, where there are
    any. Returns None without a finished epoch.
    """
    if history.empty:
        return None
    history = history.sort_values("epoch")
    scored = history[history["val_map_corrected"].notna()]
    with styled():
        result, (left, right) = figure(9.5, 4.2, columns=2)
        loss_panel(left, history)
        marks = [("val_map_corrected", _GREEN, "corrected"), ("val_map_paper", _ORANGE, "paper")]
        for column, colour, label in marks:
            right.plot(
                scored["epoch"],
                100 * scored[column],
                color=colour,
                linewidth=1.8,
                marker="o",
                markersize=4,
                label=f"{label} protocol",
                linestyle="-" if column == "val_map_corrected" else (0, (4, 2)),
            )
        if published:
            epochs = sorted(published)
            values = [100 * published[epoch]["map"] for epoch in epochs]
            right.plot(epochs, values, color=NEUTRAL, linewidth=1.4, marker="s", markersize=4, label="published")
        best = scored[scored["best"].fillna(False).astype(bool)]
        text = "no validation yet"
        if len(best):
            row = best.iloc[-1]
            value = 100 * float(row["val_map_corrected"])
            right.scatter([row["epoch"]], [value], s=130, facecolor="none", edgecolor="black", zorder=5)
            right.annotate(
                f"{value:.1f}", (row["epoch"], value), (0, 9), textcoords="offset points", ha="center", fontsize=10
            )
            text = f"best val mAP {value:.1f} at epoch {int(row['epoch'])}"
        right.set(title="Validation mAP@0.5 (%)", ylim=(0, max(_top(scored), _published_top(published)) * 1.15))
        right.legend(loc="lower right")
        for axes in (left, right):
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_xlim(left=min(1, int(history["epoch"].min())) - 0.3)
        last = float(history["loss"].iloc[-1])
        return finish(
            result,
            "training_curves",
            f"Training curves of {name}: loss {float(history['loss'].iloc[0]):.3f} to {last:.3f} in "
            f"{len(history)} epochs; {text}.",
        )


def loss_panel(axes: Axes, history: pd.DataFrame) -> None:
    """Draw the losses of training and val over epochs, with the learning rate behind them."""
    axes.plot(history["epoch"], history["loss"], color=_BLUE, linewidth=2, label="training")
    val = history[history["val_loss"].notna()]
    if len(val):
        axes.plot(val["epoch"], val["val_loss"], color=_RED, linewidth=1.6, marker="o", markersize=4, label="val")
    low, high = float(history["loss"].min()), float(history["loss"].max())
    if low > 0 and high / low > 20:
        axes.set_yscale("log")
        plain_logarithm(axes.yaxis)
    axes.set_title("Loss")
    rate = axes.twinx()
    rate.fill_between(history["epoch"], history["lr"], color=NEUTRAL, alpha=0.12, linewidth=0)
    rate.set(ylim=(0, float(history["lr"].max()) * 1.05 or 1), ylabel="learning rate (grey)")
    rate.grid(visible=False)
    axes.set_zorder(rate.get_zorder() + 1)
    axes.patch.set_visible(False)
    axes.legend(loc="upper right")


def _top(scored: pd.DataFrame) -> float:
    values = scored[["val_map_corrected", "val_map_paper"]].to_numpy(dtype=float)
    return 100 * float(np.nanmax(values)) if values.size and not np.isnan(values).all() else 1.0


def _published_top(published: Mapping[int, Mapping[str, float]] | None) -> float:
    return max((100 * scores["map"] for scores in (published or {}).values()), default=1.0)


def learning_curves(histories: Mapping[str, pd.DataFrame], metric: str, title: str) -> Plot | None:
    """Draw one curve a trial of a sweep; the best one thick and named. None when no trial has a score."""
    scored = {name: frame[frame[metric].notna()].sort_values("epoch") for name, frame in histories.items()}
    scored = {name: frame for name, frame in scored.items() if len(frame)}
    if not scored:
        return None
    best = max(scored, key=lambda name: float(scored[name][metric].max()))
    with styled():
        result, axes = figure(7.5, 4.2)
        for name, frame in scored.items():
            top = name == best
            axes.plot(
                frame["epoch"],
                100 * frame[metric],
                color=_BLUE if top else "#9aa5b1",
                linewidth=2.6 if top else 1.2,
                marker="o",
                markersize=4 if top else 2.5,
                zorder=4 if top else 2,
                label=name if top else None,
            )
        axes.set(xlabel="epoch", ylabel=f"{metric.replace('_', ' ').replace('map', 'mAP')} (%)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(title)
        axes.legend(loc="lower right")
        value = 100 * float(scored[best][metric].max())
        return finish(result, "sweep_curves", f"Curves of {len(scored)} trials; best {best} with {value:.1f}.")


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
    axes.set(xlim=(-0.25, len(axes_of) - 0.75), ylim=(-0.12, 1.06))
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
