"""Plots of caption and answer scores: what they need, what they say, and equal bytes for equal data."""

# pandas annotates `frame[...]` as DataFrame | Series | Any
# pyright: reportArgumentType=false

from __future__ import annotations

from typing import Any

import pandas as pd

from microg.reports.plots.vlm import answer_slices, lengths, score_points, vlm_plots

TITLES = {"cider": "CIDEr-D", "exact_match": "exact match"}


def _scores(**changes: Any) -> pd.DataFrame:
    rows = []
    for task in ("caption", "vqa"):
        for protocol in ("paper", "standard"):
            same = {
                "task": task,
                "protocol": protocol,
                "system": "model",
                "coverage": "all",
                "slice_kind": "all",
                "slice": "all",
                "items": 40,
            }
            rows += [
                {**same, "metric": "cider", "value": 1.2, "low": 0.9, "high": 1.6},
                {**same, "metric": "rouge_l", "value": 0.3, "low": 0.25, "high": 0.36},
                {**same, "metric": "rouge_l", "value": 0.1, "system": "blind"},
                {**same, "metric": "rouge_l", "value": 0.4, "coverage": "valid"},
            ]
            if task == "vqa":
                parts = [("answer_type", "yes/no", 30), ("answer_type", "count", 10), ("origin", "real", 40)]
                for kind, name, items in parts:
                    part = {"slice_kind": kind, "slice": name, "items": items, "metric": "exact_match"}
                    rows.append({**same, **part, "value": items / 100})
    return pd.DataFrame([{**{"low": None, "high": None}, **row, **changes} for row in rows])


def _pairs() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"task": task, "text": "a man floats" if number else None, "references": ["a man floats slowly"]}
            for task in ("caption", "vqa")
            for number in range(4)
        ]
    )


def test_all_plots_are_made_and_tell_their_numbers():
    plots = {plot.name: plot for plot in vlm_plots(_scores(), _pairs(), TITLES)}
    assert list(plots) == [
        "vlm_scores_caption",
        "vlm_lengths_caption",
        "vlm_scores_vqa",
        "vlm_lengths_vqa",
        "vlm_answer_slices",
    ]
    assert "CIDEr-D 120.0, rouge_l 30.0" in plots["vlm_scores_vqa"].description
    assert "yes/no: 30 items; count: 10 items; real: 40 items" in plots["vlm_answer_slices"].description
    assert "3.0 words said against 4.0" in plots["vlm_lengths_caption"].description


def test_the_same_scores_give_the_same_bytes():
    first, second = (score_points(_scores()[_scores()["task"] == "vqa"], "vqa", TITLES) for _ in range(2))
    assert first is not None
    assert second is not None
    assert (first.png, first.svg) == (second.png, second.svg)


def test_what_is_not_there_is_not_drawn():
    nothing = _scores(value=None)
    assert score_points(nothing, "vqa", TITLES) is None
    assert answer_slices(nothing, TITLES) is None
    assert lengths(_pairs().iloc[:2], "caption") is None
    only_paper = _scores()[_scores()["protocol"] == "paper"]
    assert [plot.name for plot in vlm_plots(only_paper[only_paper["metric"] == "rouge_l"], _pairs(), {})] == [
        "vlm_scores_caption",
        "vlm_lengths_caption",
        "vlm_scores_vqa",
        "vlm_lengths_vqa",
    ]
