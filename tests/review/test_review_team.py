"""Several annotators at once over HTTP: nothing is lost, nothing is there twice."""

from __future__ import annotations

from pathlib import Path

from benchmarks.review import measure


def test_a_team_at_work_loses_and_doubles_nothing(tmp_path: Path):
    """As `benchmarks/review.py`, which also tells times: eight annotators, each as fast as they can."""
    result = measure(annotators=8, clips=30, rate=1000, seconds=0.12, folder=tmp_path)
    assert result["refused"] == []
    assert result["saved"] == result["rows"] > 60
    wrong = ("lost", "doubled_rows", "judged_twice_by_one", "judged_by_more")
    assert {name: result[name] for name in wrong} == dict.fromkeys(wrong, 0)
