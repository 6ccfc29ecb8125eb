"""Curves of a fine-tuning, from table `vlm_train`: loss and learning rate, scores of the answers on the val split."""

# pandas annotates `frame[...]` as DataFrame | Series | Any, which makes nearly every chained call an error.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import pandas as pd
from matplotlib.ticker import MaxNLocator

from microg.metrics.text import registry
from microg.reports.plots.style import Plot, figure, finish, styled
from microg.reports.plots.training import loss_panel

_SCORES = {"rouge_l": "#009E73", "token_f1": "#E69F00", "exact_match": "#0072B2"}


def tuning_curves(history: pd.DataFrame, name: str) -> Plot | None:
    """Draw the loss a token with the learning rate, and scores of generated answers, over epochs.

    `history` holds rows of table `vlm_train`. Returns None without a finished epoch.
    """
    if history.empty:
        return None
    history = history.sort_values("epoch")
    with styled():
        result, (left, right) = figure(9.5, 4.2, columns=2)
        loss_panel(left, history)
        left.set_title("Loss (nats a token)")
        drawn = 0
        for score, colour in _SCORES.items():
            column = f"val_{score}"
            scored = history[history[column].notna()] if column in history else history.iloc[:0]
            if len(scored):
                values = 100 * scored[column].astype(float)
                right.plot(scored["epoch"], values, color=colour, linewidth=1.8, marker="o", markersize=4)
                right.annotate(
                    registry.title(score),
                    (scored["epoch"].iloc[-1], values.iloc[-1]),
                    (6, 7 if values.iloc[-1] < 3 else 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=10,
                    color=colour,
                )
                drawn += 1
        right.set(title="Answers on val (%)", ylim=(0, 105))
        if not drawn:
            right.text(0.5, 0.5, "no answers were generated", transform=right.transAxes, ha="center")
        best = history[history["best"].fillna(False).astype(bool)]
        text = "no validation yet"
        if len(best) and pd.notna(best.iloc[-1]["val_loss"]):
            row = best.iloc[-1]
            left.scatter([row["epoch"]], [row["val_loss"]], s=130, facecolor="none", edgecolor="black", zorder=5)
            text = f"kept: epoch {int(row['epoch'])}, val loss {float(row['val_loss']):.3f}"
        for axes in (left, right):
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            first, last = int(history["epoch"].min()), int(history["epoch"].max())
            axes.set_xlim(min(1, first) - 0.3, last + (0.25 * max(last - first, 1) if axes is right else 0.3))
        losses = history["loss"]
        return finish(
            result,
            "tuning_curves",
            f"Tuning of {name}: loss {float(losses.iloc[0]):.3f} to {float(losses.iloc[-1]):.3f} a token in "
            f"{len(history)} epochs; {text}.",
        )
