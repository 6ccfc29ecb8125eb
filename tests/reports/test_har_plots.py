"""Plots of HAR scores: what they show is what the tables say, and the same data give the same bytes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from microg.metrics.har import tables as results
from microg.metrics.har.protocols import CORRECTED
from microg.metrics.har.scoring import score
from microg.reports.plots import har, style
from tests.support.har_cases import inputs, random_rows


@pytest.fixture(scope="module")
def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    report = score(*inputs(*random_rows(8)), (CORRECTED,))
    found = list(report.results.values())
    return results.classes_table(found).to_pandas(), results.curves_table(found).to_pandas()


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collect finished figures instead of rendering them."""
    kept: list[Figure] = []

    def keep(result: Figure, name: str, description: str) -> style.Plot:
        kept.append(result)
        return style.Plot(name, description, b"", b"")

    monkeypatch.setattr(har, "finish", keep)
    return kept


def test_bars_are_the_average_precisions_of_classes_with_truth(tables, figures: list[Figure]):
    classes, _ = tables
    har.ap_bars(classes, {"other": classes.assign(ap=0.5)})
    axes = figures[0].axes[0]
    known = classes[classes["support"] > 0]
    heights = [patch.get_height() for patch in axes.patches]  # pyright: ignore[reportAttributeAccessIssue]
    assert sorted(heights) == pytest.approx(sorted(known["ap"]))
    assert {label.get_text().rsplit(" (", 1)[0] for label in axes.get_xticklabels()} == set(
        known["action"].str.split(" (", regex=False).str[0]
    )
    assert [text.get_text() for text in figures[0].legends[0].texts][-2:] == ["other", f"mean {known['ap'].mean():.3f}"]


def test_area_under_each_drawn_curve_is_its_average_precision(tables, figures: list[Figure]):
    classes, curves = tables
    har.precision_recall_curves(classes, curves)
    lines = {line.get_label(): line for axes in figures[0].axes for line in axes.lines}
    frequent = classes[classes["support"] >= 5]
    assert len(lines) == len(frequent) > 2
    for row in frequent.to_dict("records"):
        line = next(line for name, line in lines.items() if str(name).startswith(row["action"].split(" (")[0]))
        x, y = (np.asarray(part) for part in line.get_data())
        area = sum((right - left) * height for left, right, height in zip(x[:-1], x[1:], y[1:], strict=True))
        assert area == pytest.approx(row["ap"])


def test_points_of_support_are_all_there(tables, figures: list[Figure]):
    classes, _ = tables
    plot = har.support_against_ap(classes)
    points = sorted(tuple(point) for part in figures[0].axes[0].collections for point in np.asarray(part.get_offsets()))
    known = classes[classes["support"] > 0]
    assert points == sorted(zip(known["support"].astype(float), known["ap"], strict=True))
    assert plot is not None
    assert "rank correlation" in plot.description


def test_same_scores_give_the_same_bytes(tables):
    first, second = (har.ap_bars(tables[0]) for _ in range(2))
    assert first is not None
    assert second is not None
    assert (first.png, first.svg) == (second.png, second.svg)


def test_nothing_to_show_gives_no_plot(tables):
    classes, curves = tables
    assert har.har_plots(classes.assign(support=0), curves.head(0)) == []
