"""Curves of a training run, from table `har_train`: loss and learning rate, validation scores, time."""

# pandas annotates `frame[...]` as DataFrame | Series | Any, which makes nearly every chained call an error.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from microg.reports.plots.style import NEUTRAL, Plot, figure, finish, styled

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
        result, _ = figure(9.5, 4.2)
        result.clear()
        left, right = result.subplots(1, 2)
        left.plot(history["epoch"], history["loss"], color=_BLUE, linewidth=2, label="training")
        val = history[history["val_loss"].notna()]
        if len(val):
            left.plot(val["epoch"], val["val_loss"], color=_RED, linewidth=1.6, marker="o", markersize=4, label="val")
        low, high = float(history["loss"].min()), float(history["loss"].max())
        if low > 0 and high / low > 20:
            left.set_yscale("log")
        left.set_title("Loss")
        rate = left.twinx()
        rate.fill_between(history["epoch"], history["lr"], color=NEUTRAL, alpha=0.12, linewidth=0)
        rate.set_ylim(0, float(history["lr"].max()) * 1.05 or 1)
        rate.set_ylabel("learning rate (grey)")
        rate.grid(visible=False)
        left.set_zorder(rate.get_zorder() + 1)
        left.patch.set_visible(False)
        left.legend(loc="upper right")
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
        right.set_title("Validation mAP@0.5 (%)")
        right.set_ylim(0, max(_top(scored), _published_top(published)) * 1.15)
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
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"{metric.replace('_', ' ').replace('map', 'mAP')} (%)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(title)
        axes.legend(loc="lower right")
        value = 100 * float(scored[best][metric].max())
        return finish(result, "sweep_curves", f"Curves of {len(scored)} trials; best {best} with {value:.1f}.")
