"""`microg demo`, from footage to leaderboard: the report holds everything, and a second run does nothing again."""

from __future__ import annotations

from pathlib import Path

import pytest

from microg import storage
from tests.support.browser import look
from tests.support.processes import start_microg

SMALL = ("--train", "--videos", 2, "--training-clips", 40, "--seed", 1)
TABLES = ("har_train", "har_predictions", "generations", "text_items")


def demo(out: Path, log: Path) -> None:
    process = start_microg(log, "demo", "--out", out, *SMALL)
    assert process.wait(timeout=1000) == 0, log.read_text()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_demo_ends_with_all_tables_plots_and_panels_and_resumes(tmp_path: Path) -> None:
    out, log = tmp_path / "demo", tmp_path / "log"
    demo(out, log)
    page = (out / "report.html").read_text()
    for number in range(1, 6):
        assert f"Table {number}" in page
    for heading in ("Classes", "What was seen", "Captions", "Answers", "Training", "Cost and speed", "Known defects"):
        assert f">{heading}" in page, heading
    for file in ("report.html", "leaderboard.html", "demo.html"):
        seen = look(out / file, tmp_path)
        assert seen["needed"] <= seen["width"], file
        assert (seen["fetched"], seen["console"]) == ([], []), file
    found = [path for name in TABLES for path in out.rglob(f"tables/{name}.parquet")]
    assert {path.stem for path in found} == set(TABLES)
    assert all(storage.read_parquet(str(path)).num_rows for path in found)
    made = [path for name in ("har_train", "vlm_train") for path in (out / name / "checkpoints").rglob("*.pt")]
    made += list((out / "dataset" / "videos").glob("*.mp4"))
    times = {path: path.stat().st_mtime_ns for path in made}
    assert len(times) > 5
    demo(out, log)
    assert {path: path.stat().st_mtime_ns for path in made} == times
