"""Plots of a dataset: `dataset_plots` makes them all; plots that have nothing to show are left out."""

from __future__ import annotations

from microg.data import statistics, text_statistics
from microg.data.statistics import Tables
from microg.reports.plots import labels, text
from microg.reports.plots.style import Plot

__all__ = ["Plot", "dataset_plots"]


def dataset_plots(tables: Tables) -> list[Plot]:
    """Return the plots of the paper's Figure 2 and the appendix tables for a dataset, in reading order."""
    texts = text_statistics.texts(tables)
    candidates = [
        labels.action_groups(statistics.label_groups(tables)),
        labels.people_per_clip(statistics.people_per_clip(tables)),
        labels.labels_per_person(statistics.labels_per_person(tables)),
        labels.label_distribution(statistics.labels_per_action(tables)),
        text.length_density(texts),
        text.question_types(text_statistics.question_types(tables)),
        *(text.word_cloud(kind, values) for kind, values in texts.items()),
    ]
    return [plot for plot in candidates if plot is not None]
