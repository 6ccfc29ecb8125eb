"""Pictures of known defects of published runs, drawn from predictions."""

from __future__ import annotations

import numpy as np
from matplotlib.lines import Line2D

from microg.reports.plots.style import NEUTRAL, Plot, figure, finish, styled

_SHOWN = 3000


def equal_scores_map(boxes: np.ndarray, equal: np.ndarray, name: str) -> Plot | None:
    """Draw where in the frame the boxes with one and the same score vector begin, beside all others.

    `boxes` (n, 4) are normalised; `equal` (n,) marks those of the largest group of equal vectors. None without any.
    """
    if not equal.any():
        return None
    order = np.argsort(equal, kind="stable")[-_SHOWN:]
    with styled():
        result, axes = figure(6.4, 4.6)
        for index in order:
            x1, y1, x2, y2 = boxes[index]
            red = bool(equal[index])
            axes.plot(
                [x1, x2, x2, x1, x1],
                [y1, y1, y2, y2, y1],
                color="#D55E00" if red else "#9aa5b1",
                alpha=0.55 if red else 0.12,
                linewidth=1.1 if red else 0.6,
                zorder=3 if red else 2,
                rasterized=True,
            )
        axes.set_xlim(0, 1)
        axes.set_ylim(1, 0)
        axes.set_xlabel("across the frame")
        axes.set_ylabel("down the frame")
        axes.grid(visible=False)
        axes.set_title(f"{int(equal.sum()):,} of {len(boxes):,} boxes have equal scores")
        handles = [
            Line2D([], [], color="#D55E00", label="one and the same score vector"),
            Line2D([], [], color=NEUTRAL, alpha=0.5, label="other boxes"),
        ]
        result.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=10)
        text = (
            f"Boxes of {name} in the frame: {int(equal.sum()):,} of {len(boxes):,} have one and the same score vector, "
            f"all beginning beyond {100 * float(boxes[equal][:, :2].max(axis=1).min()):.0f}% of the frame."
        )
        return finish(result, "equal_scores", text)
