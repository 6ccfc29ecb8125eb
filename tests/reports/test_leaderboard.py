"""`microg report --leaderboard`: which rows are ranked together, their intervals to the best, the page in a browser."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from microg.jobs import cli
from microg.reports.pages.leaderboard import build_leaderboard
from microg.reports.pages.report import WrittenPage
from microg.reports.run_folders import find_runs
from microg.reports.tables.har_tables import BOARD
from tests.support import scored_runs
from tests.support.browser import look
from tests.support.command_line import refused


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("board")
    dataset = scored_runs.scored_dataset(root / "data")
    for name, seed, skill in (("good", 1, 6.0), ("poor", 2, 0.0)):
        made = scored_runs.predict_run(root / "made" / name, dataset, seed, skill, model="<b>NET</b>")
        scored_runs.har_score(made, dataset, root / "runs" / f"{name}-actions")
    for name, right in (("first", 0.9), ("second", 0.3)):
        said = scored_runs.said_file(root / f"{name}.json", dataset, right, seed=3)
        scored_runs.vlm_score(said, dataset, root / "runs" / f"{name}-texts")
    scored_runs.train_run(root / "runs" / "trained")
    return root / "runs"


@pytest.fixture(scope="module")
def built(runs: Path) -> WrittenPage:
    return build_leaderboard([str(runs)], str(runs.parent / "board.html"))


def _boards(built: WrittenPage) -> dict[str, list[dict[str, Any]]]:
    document = json.loads(Path(built["files"][2]).read_text(encoding="utf-8"))
    return {board["board"]: board["rows"] for board in document}


def test_runs_are_ranked_with_those_on_the_same_data_only(built: WrittenPage) -> None:
    boards = _boards(built)
    assert set(boards) == {"Action recognition", "Captioning", "Question answering"}
    actions = boards["Action recognition"]
    mine = [(row["name"], row["rank"]) for row in actions if row["protocol"] == "corrected"]
    assert mine == [("good-actions", 1), ("poor-actions", 2)]
    published = [row for row in actions if row["origin"] == "published"]
    assert [row["rank"] for row in published] == list(range(1, 13))
    assert published[0]["name"] == "I3D NLN R50 8x8"
    assert {row["data"] for row in published} == {"the published test set"}
    assert {row["data"] for row in actions if row["run"]} == {"4 clips, 6 boxes, 12 labels"}
    systems = [row["name"] for row in boards["Question answering"] if row["origin"] == "baseline"]
    assert sorted(systems) == ["blind", "constant", "shuffled"]


def test_the_difference_to_the_best_is_that_of_the_scorers_resamples(runs: Path) -> None:
    found = find_runs([str(runs)])
    rows = BOARD.ranked(found)
    poor = next(row for row in rows if (row.name, row.protocol) == ("poor-actions", "corrected"))
    drawn = {}
    for name in ("good-actions", "poor-actions"):
        frame = next(run for run in found if run.name == name).table("har_bootstrap").to_pandas()
        part = frame[(frame["unit"] == "clip") & (frame["metric"] == "map")].sort_values("resample")
        drawn[name] = part["value"].to_numpy()
    assert poor.against is not None
    values = {row.name: row.cells["map"].value or 0.0 for row in rows if row.protocol == "corrected"}
    assert poor.against.difference == pytest.approx(values["poor-actions"] - values["good-actions"])
    width = np.diff(np.quantile(drawn["poor-actions"] - drawn["good-actions"], (0.025, 0.975)))[0]
    assert poor.against.high - poor.against.low == pytest.approx(100 * width)
    assert next(row for row in rows if row.is_best).name == "good-actions"
    assert all(row.against is None for row in rows if row.protocol == "paper")


def test_the_page_runs_only_its_own_script_and_escapes_texts(built: WrittenPage) -> None:
    source = Path(built["page"]).read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in source
    assert "&lt;b&gt;NET&lt;/b&gt;" in source
    assert "<b>NET" not in source
    assert not re.search(r"(src|href)=\"(?!#|data:)", source)


def test_rows_lie_beside_the_page_as_csv(built: WrittenPage) -> None:
    with Path(built["files"][1]).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    best = [row for row in rows if (row["run"], row["protocol"], row["metric"]) == ("good-actions", "corrected", "map")]
    assert len(best) == 1
    assert float(best[0]["low"]) <= float(best[0]["value"])


def test_the_command_says_what_is_left_out(runs: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "board")
    done = CliRunner().invoke(cli.app, ["report", "--leaderboard", str(runs), "--out", out])
    assert done.exit_code == 0, done.output
    assert "note: without scores to rank: trained" in done.stdout
    assert {path.name for path in (tmp_path / "board").iterdir()} == {
        "leaderboard.html",
        "leaderboard.csv",
        "leaderboard.json",
    }


def test_a_folder_without_scores_is_refused(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(monkeypatch, capsys, "report", "--leaderboard", str(runs / "trained"))
    assert "none of the 1 runs there has scores" in error
    assert "no run is given" in refused(monkeypatch, capsys, "report")


_USE = """(() => {
  const board = page.querySelector(".board"), found = {};
  const shown = () => [...board.querySelectorAll("tbody tr")].filter(row => !row.hidden)
    .map(row => row.querySelector(".who").firstChild.textContent.trim());
  const click = (text) => [...board.querySelectorAll("button")].find(one => one.textContent === text).click();
  const inform = (input, kind) => input.dispatchEvent(new Event(kind, {bubbles: true}));
  found.first = shown();
  click("mAP@0.5"); found.rising = shown();
  click("Model"); found.byName = shown();
  const data = board.querySelector("select");
  data.value = "published"; inform(data, "change"); found.published = shown().length;
  found.disabled = [...board.querySelectorAll("input[type=radio]")].filter(one => one.disabled).map(one => one.value);
  const search = board.querySelector("input[type=search]");
  search.value = "i3d nln"; inform(search, "input"); found.searched = shown();
  search.value = ""; inform(search, "input");
  const tick = board.querySelector("input[value=published]");
  tick.checked = false; inform(tick, "change"); found.hidden = shown();
  data.selectedIndex = 0; inform(data, "change");
  board.querySelector("input[value=corrected]").click(); found.corrected = shown();
  found.protocols = [...new Set([...board.querySelectorAll("tbody tr")].filter(row => !row.hidden)
    .map(row => row.dataset.protocol))];
  return found;
})()"""


def test_a_browser_sorts_searches_and_switches_protocols_without_errors(built: WrittenPage, tmp_path: Path) -> None:
    seen = look(Path(built["page"]), tmp_path, script=_USE)
    assert (seen["width"], seen["needed"]) == (390, 390)
    assert (seen["fetched"], seen["console"]) == ([], [])
    found = seen["result"]
    assert found["first"] == ["good-actions", "poor-actions"]
    assert found["rising"] == ["poor-actions", "good-actions"]
    assert found["byName"] == ["good-actions", "poor-actions"]
    assert found["published"] == 12
    assert found["disabled"] == ["corrected"]
    assert found["searched"] == ["I3D NLN R50 8x8"]
    assert found["hidden"] == []
    assert (found["corrected"], found["protocols"]) == (["good-actions", "poor-actions"], ["corrected"])
