"""One look for all plots, and saving them so that the same data give the same bytes.

Figures are made without pyplot: no global state, no display, no leak when many are made.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogFormatter

from microg import storage
from microg.escaping import visible

# Okabe-Ito colours, distinguishable with every common colour vision deficiency.
GROUP_COLOURS = {"person movement": "#0072B2", "object manipulation": "#E69F00", "person interaction": "#009E73"}
ORIGIN_COLOURS = {"movie": "#CC79A7", "real": "#56B4E9", "unknown": "#999999"}
TEXT_COLOURS = {"caption": "#0072B2", "question": "#D55E00", "answer": "#009E73"}
NEUTRAL = "#4C566A"
# What actions without a group are called.
NO_GROUPS = ("no group", "other")
# Colours that dark text is read on.
LIGHT_COLOURS = frozenset({"#E69F00", "#56B4E9", "#F0E442"})
# Of other groups of actions, in turn.
_MORE_COLOURS = ("#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#0072B2", "#E69F00", "#009E73")


def group_colours(groups: Iterable[str]) -> dict[str, str]:
    """Return a colour for each group of actions: the published groups keep theirs, others take turns.

    What has no group is grey.

    >>> group_colours(["person movement", "moving", "moving"])
    {'person movement': '#0072B2', 'moving': '#CC79A7'}
    """
    names = dict.fromkeys(groups)
    fixed = {**GROUP_COLOURS, **dict.fromkeys(NO_GROUPS, NEUTRAL)}
    turns = dict(zip((name for name in names if name not in fixed), itertools.cycle(_MORE_COLOURS), strict=False))
    return {name: fixed.get(name) or turns[name] for name in names}


_RC = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.8,
    "figure.facecolor": "white",
    "legend.frameon": False,
    # Ids inside an SVG come from this salt instead of a random number.
    "svg.hashsalt": "microg",
    "svg.fonttype": "path",
    # A name with dollar signs is no formula.
    "text.parse_math": False,
}


@dataclass(frozen=True)
class Plot:
    """A finished plot: file name without extension, a sentence for those who cannot see it, PNG and SVG bytes.

    `fonts_needed` tells that the SVG names a font of this machine, so that other machines should be shown the PNG.
    """

    name: str
    description: str
    png: bytes
    svg: bytes
    fonts_needed: bool = False

    def save(self, folder: str) -> list[str]:
        """Write `folder/name.png` and `.svg`; returns the paths."""
        paths = []
        for suffix, data in (("png", self.png), ("svg", self.svg)):
            path = storage.join(folder, f"{self.name}.{suffix}")
            storage.write_bytes(path, data)
            paths.append(path)
        return paths


@contextmanager
def styled() -> Iterator[None]:
    """Apply the look while a figure is built and rendered; all its texts become `visible`.

    Matplotlib fails at some control characters, prints others in warnings, and has no hook for all texts, ticks too.
    """
    set_text = Text.set_text
    Text.set_text = lambda self, s: set_text(self, visible(s).expandtabs(1) if isinstance(s, str) else s)
    try:
        with mpl.rc_context({**mpl.rcParamsDefault, **_RC, "backend": "agg"}):  # pyright: ignore[reportArgumentType]
            yield
    finally:
        Text.set_text = set_text


def figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Return a figure of a size in inches with one pair of axes, or an array of them (`options` of `subplots`)."""
    result = Figure(figsize=(width, height), layout="constrained")
    return result, result.subplots(rows, columns, **options)


def legend_below(result: Figure, axes: Axes) -> None:
    """Put the legend of `axes` under the figure, where it covers no data."""
    handles, labels = axes.get_legend_handles_labels()
    result.legend(handles, labels, loc="outside lower center", ncols=min(len(handles), 3), fontsize=10)


def plain_logarithm(axis: Axis) -> None:
    """Label a logarithmic axis with plain numbers; those of Matplotlib are formulas."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(LogFormatter(labelOnlyBase=False))


def finish(result: Figure, name: str, description: str) -> Plot:
    """Render a figure to PNG (144 dpi) and SVG without dates."""
    FigureCanvasAgg(result)
    return Plot(name, description, _render(result, "png", dpi=144), _render(result, "svg", metadata={"Date": None}))


def _render(result: Figure, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    result.savefig(buffer, format=kind, **options)
    return buffer.getvalue()
