"""What models say of clips that nobody scored: shown on the page, and only there."""

from __future__ import annotations

from pathlib import Path

from microg.reports.clips.pictures import PictureStyle
from microg.reports.clips.unscored import unscored, unscored_clips
from microg.reports.pages.report import build
from microg.reports.run_folders import find_runs
from microg.reports.run_kinds.kind import ReportOptions
from tests.support import scored_runs

STYLE = PictureStyle(width=160, quality=50, form="webp")


def test_runs_without_scores_are_shown_and_scored_ones_are_not(tmp_path: Path):
    dataset = scored_runs.scored_dataset(tmp_path / "data")
    scored_runs.predict_run(tmp_path / "runs" / "alone", dataset, 1)
    said = scored_runs.generate_run(tmp_path / "runs" / "said", dataset, 0.8, seed=3)
    scored = scored_runs.predict_run(tmp_path / "runs" / "scored", dataset, 2)
    scored_runs.har_score(scored, dataset, tmp_path / "runs" / "score")
    runs = find_runs([str(tmp_path / "runs")])
    alone = unscored(runs)
    assert sorted(run.name for run in alone) == ["alone", "said"]
    clips, total = unscored_clips(alone, dataset, 2, STYLE)
    assert len(clips) == 2
    assert total >= 2
    by_model = {model.model.partition(" ")[0]: model for model in clips[0].models}
    (person, *_) = by_model["TINY"].people
    assert len(person.guesses) == 3
    assert [value for _, value in person.guesses] == sorted((value for _, value in person.guesses), reverse=True)
    assert by_model["tiny-vlm"].captions
    assert by_model["tiny-vlm"].answers
    build([str(tmp_path / "runs")], str(tmp_path / "page.html"), options=ReportOptions(max_clips=2))
    assert "What the models say" in (tmp_path / "page.html").read_text()
    scored_runs.vlm_score(said, dataset, tmp_path / "runs" / "texts")
    runs = find_runs([str(tmp_path / "runs")])
    assert [run.name for run in unscored(runs)] == ["alone"]
