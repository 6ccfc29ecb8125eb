"""Plots of how far annotators agree."""

from __future__ import annotations

from collections.abc import Sequence

from microg.metrics.agreement.scores import Score
from microg.reports.plots.style import NEUTRAL, Plot, figure, finish, styled

_BARS = 40


def action_bars(scores: Sequence[tuple[str, Score]]) -> Plot | None:
    """Bars of alpha with intervals, one an action, the lowest first; None where no action has a value.

    Args:
        scores: Names of actions with their scores; those without a value are left out.
    """
    known = [(name, score) for name, score in scores if score.value is not None]
    ordered = sorted(known, key=lambda each: each[1].value or 0.0)[:_BARS]
    if not ordered:
        return None
    values = [score.value or 0.0 for _, score in ordered]
    with styled():
        result, axes = figure(9, 1.5 + 0.3 * len(ordered))
        axes.barh([name for name, _ in ordered], values, color=NEUTRAL, height=0.62)
        for place, (_, score) in enumerate(ordered):
            if score.low is not None and score.high is not None:
                axes.plot([score.low, score.high], [place, place], color="#D55E00", linewidth=2, solid_capstyle="butt")
        axes.axvline(0, color="#17202b", linewidth=0.8)
        axes.axvline(0.667, color="#009E73", linewidth=1, linestyle="--")
        lowest = min([0.0, *values, *(score.low for _, score in ordered if score.low is not None)])
        axes.set(
            xlim=(max(lowest - 0.05, -1.05), 1.05), xlabel="Krippendorff's alpha; line: 95% interval; dashed: 0.667"
        )
        axes.invert_yaxis()
        axes.margins(y=0.01)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        left = len(known) - len(ordered)
        axes.set_title("Agreement by action" + (f", the {_BARS} lowest; {left} more" if left else ""))
        text = ", ".join(f"{name} {value:.2f}" for (name, _), value in list(zip(ordered, values, strict=True))[:3])
        return finish(result, "agreement_actions", f"Bar chart of alpha by action; lowest: {text}.")
