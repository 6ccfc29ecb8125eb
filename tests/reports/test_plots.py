"""Plots: readable images with the right content, and nothing where there is nothing to show."""

from __future__ import annotations

import cv2
import numpy as np

from microg.data import schema, statistics
from microg.data.statistics import Tables
from microg.reports.plots.dataset import dataset_plots, kernel_density, label_distribution, word_cloud
from microg.reports.plots.style import GROUP_COLOURS, ORIGIN_COLOURS
from tests.support.helpers import tiny_rows


def _tables() -> Tables:
    return Tables.of({name: schema.from_rows(name, rows) for name, rows in tiny_rows().items()})


def test_a_dataset_without_rows_has_no_plots() -> None:
    assert dataset_plots(Tables.of({})) == []


def test_every_plot_is_a_picture_with_a_description_and_a_vector_twin() -> None:
    plots = dataset_plots(_tables())
    assert [plot.name for plot in plots] == [
        "action_groups",
        "people_per_clip",
        "labels_per_person",
        "label_distribution",
        "text_lengths",
        "question_types",
        "qa_kinds",
        "words_captions",
        "words_questions",
        "words_answers",
    ]
    for plot in plots:
        picture = cv2.imdecode(np.frombuffer(plot.png, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        assert picture.shape[1] >= 800
        assert picture.std() > 10, f"{plot.name} is blank"
        assert b"<svg" in plot.svg
        assert b"<dc:date>" not in plot.svg
        assert len(plot.description) > 20


def test_bars_have_the_colour_of_their_group() -> None:
    plot = label_distribution(statistics.labels_per_action(_tables()))
    assert plot is not None
    decoded = cv2.imdecode(np.frombuffer(plot.png, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    picture = decoded[:, :, ::-1]
    for colour in GROUP_COLOURS.values():
        wanted = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
        assert (picture == wanted).all(axis=2).sum() > 1000


def test_colours_stay_apart_for_the_colour_blind() -> None:
    """Distances in CIE Lab under simulated deuteranopia and protanopia; 20 is far beyond just noticeable (2.3)."""
    simulations = {
        "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
        "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    }  # Machado et al. 2009, severity 1.0
    for palette in (GROUP_COLOURS, {key: ORIGIN_COLOURS[key] for key in ("movie", "real")}):
        rgb = np.array(
            [[int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)] for colour in palette.values()]
        )
        for matrix in simulations.values():
            seen = (rgb**2.2 @ np.array(matrix).T).clip(0, 1)
            lab = cv2.cvtColor((seen[None] ** (1 / 2.2)).astype(np.float32), cv2.COLOR_RGB2Lab)[0]
            distances = [np.linalg.norm(lab[i] - lab[j]) for i in range(len(lab)) for j in range(i)]
            assert min(distances) > 20


def test_a_word_cloud_leaves_out_stop_words_and_escapes_markup() -> None:
    assert word_cloud("caption", ["the and of", ""]) is None
    plot = word_cloud("answer", ["Not mentioned.", "red <b>bag</b>", "red"])
    assert plot is not None
    assert "red (2)" in plot.description
    assert "mentioned" not in plot.description
    assert b"<b>" not in plot.svg


def test_the_density_is_akernel_density() -> None:
    grid = np.linspace(-80, 120, 10001)
    curve = kernel_density(np.array([3, 5, 5, 8, 21]), grid)
    assert abs(curve.sum() * (grid[1] - grid[0]) - 1) < 1e-6
    single = kernel_density(np.array([4]), grid)
    assert abs(grid[single.argmax()] - 4) < 0.02
