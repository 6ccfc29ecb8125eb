"""`microg report`: what it reads, its tables against the published numbers, its page in text and in a browser."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from microg.errors import DatasetError
from microg.jobs import cli
from microg.metrics.published import har_row
from microg.reports.defects import defects
from microg.reports.pages.report import WrittenPage, build, paper_tables, section_names
from microg.reports.run_folders import RunFolder, find_runs, read_run
from microg.reports.run_kinds.kind import ReportOptions
from microg.reports.tables.result_table import Cell, ResultTable, as_csv, latex, markdown
from microg.runs import Run
from tests.support import scored_runs
from tests.support.browser import look
from tests.support.command_line import refused

_VOID = {"meta", "img", "br", "link", "input"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs of every kind that is cheap to make."""
    root = tmp_path_factory.mktemp("report")
    dataset = scored_runs.scored_dataset(root / "data")
    for name, seed, skill in (("good", 1, 5.0), ("poor", 2, 1.0)):
        made = scored_runs.predict_run(root / "runs" / f"{name}-test", dataset, seed, skill, model=name.upper())
        scored_runs.har_score(made, dataset, root / "runs" / f"{name}-score", "--row", "X3D_L")
    for name, right in (("first", 0.8), ("second", 0.3)):
        said = scored_runs.generate_run(root / "runs" / f"{name}-said", dataset, right, seed=3, model=f"{name}-vlm")
        scored_runs.vlm_score(said, dataset, root / "runs" / f"{name}-texts", "--row", "gpt_4o")
    scored_runs.train_run(root / "runs" / "trained", row="X3D_L")
    scored_runs.sweep_run(root / "runs" / "swept")
    Run.start(str(root / "runs" / "begun"), "har score", scored_runs.Settings())
    return root / "runs"


@pytest.fixture(scope="module")
def built(runs: Path) -> WrittenPage:
    told: list[str] = []
    options = ReportOptions(max_clips=3)
    document = build([str(runs)], str(runs.parent / "out" / "page.html"), options=options, progress=told.append)
    assert told == section_names()
    return document


class _Page(HTMLParser):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.source = Path(path).read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def _table(number: int, runs: Sequence[RunFolder]) -> ResultTable:
    return next(table for table in paper_tables(runs) if table.number == number)


def test_folders_of_runs_are_searched_and_each_run_has_a_name_of_its_own(runs: Path) -> None:
    found = find_runs([str(runs), str(runs / "trained")])
    assert [run.name for run in found].count("trained") == 1
    assert {run.name: (run.command, run.finished) for run in found} == {
        "begun": ("har score", False),
        "first-texts": ("vlm score", True),
        "good-score": ("har score", True),
        "first-said": ("vlm generate", True),
        "second-said": ("vlm generate", True),
        "good-test": ("har predict", True),
        "poor-score": ("har score", True),
        "poor-test": ("har predict", True),
        "second-texts": ("vlm score", True),
        "swept": ("har sweep", True),
        "trained": ("har train", True),
    }


def test_runs_of_one_name_are_told_apart_by_the_folders_above(tmp_path: Path) -> None:
    for place in ("a", "b"):
        scored_runs.train_run(tmp_path / place / "run")
    assert [run.name for run in find_runs([str(tmp_path)])] == ["a/run", "b/run"]


def test_what_is_no_run_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere is not there"):
        find_runs([str(tmp_path / "nowhere")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"empty is not a run folder: it has no run\.json"):
        find_runs([str(tmp_path / "empty")])
    (tmp_path / "run.json").write_text("[1, 2]")
    with pytest.raises(DatasetError, match="does not describe a run"):
        read_run(str(tmp_path))
    (tmp_path / "run.json").write_text("{torn")
    with pytest.raises(DatasetError, match="not valid JSON"):
        read_run(str(tmp_path))


def test_a_damaged_summary_is_told_and_does_not_stop_the_report(tmp_path: Path) -> None:
    root = scored_runs.train_run(tmp_path / "run")
    (root / "metrics.json").write_text("{torn")
    document = build([str(root)], str(tmp_path / "page.html"))
    assert "not valid JSON" in _Page(document["page"]).text


def test_the_page_has_every_section_and_its_tags_nest(built: WrittenPage) -> None:
    page = _Page(built["page"])
    for anchor in (
        "overview",
        "tables",
        "classes",
        "actions",
        "captions",
        "answers",
        "text-scores",
        "training",
        "sweeps",
        "costs",
        "warnings",
        "defects",
        "provenance",
    ):
        assert f'<section id="{anchor}">' in page.source
        assert f"#{anchor}" in page.links


def test_the_page_fetches_nothing_and_runs_nothing(built: WrittenPage) -> None:
    page = _Page(built["page"])
    assert "script" not in page.tags
    assert all(link.startswith(("data:image/", "#")) for link in page.links)
    assert not re.search(r"url\(|@import|https?:", page.source.split("<style>")[1].split("</style>")[0])
    assert page.source.count("<img") == page.source.count('loading="lazy"') > 10


def test_texts_from_data_are_shown_as_text(built: WrittenPage) -> None:
    page = _Page(built["page"])
    # marks cut the hostile text into pieces; as text it is whole again
    assert page.text.count("<script>alert('x')</script>") >= 3
    assert "{{ 7 * 7 }}" in page.text


def test_panels_say_what_is_right_wrong_and_missed(built: WrittenPage) -> None:
    source = _Page(built["page"]).source
    part = source.split('<section id="actions">')[1].split("</section>")[0]
    assert part.count('class="card seen"') == 3
    assert part.count("data:image/webp") == 3
    assert 'class="tag right"' in part
    assert 'class="tag missed"' in part
    assert "GOOD (good-score)" in part
    assert "POOR (poor-score)" in part


def test_ours_stand_below_the_row_they_are_compared_with_and_other_data_are_not_compared(runs: Path) -> None:
    table = _table(1, find_runs([str(runs)]))
    names = [row.run for row in table.rows]
    assert names[names.index("X3D_L") + 1] == "good-score"
    mine = [row for row in table.rows if row.run == "good-score"]
    assert [row.protocol for row in mine] == ["paper", "corrected"]
    assert all(cell.difference is None for row in mine for cell in row.cells)
    assert "4 clips, 6 boxes, 12 labels" in mine[0].note
    assert [cell.number for cell in mine[1].cells[4:8]] == [""] * 4  # nobody scored it on val
    assert mine[1].cells[8].interval != ""


def test_answers_of_a_model_stand_with_its_name_and_frames(runs: Path) -> None:
    table = _table(5, find_runs([str(runs)]))
    mine = next(row for row in table.rows if row.run == "first-texts")
    assert [cell.number for cell in mine.cells[:2]] == ["first-vlm", "3"]
    assert "24 items, not the published 7,428" in mine.note


def test_rescored_published_predictions_are_the_published_row(oracles: Path, tmp_path: Path) -> None:
    scores = oracles / "har_scores"
    scored_runs.score(
        "har",
        "score",
        "--predictions",
        str(scores / "det_test_X3D_L.parquet"),
        "--groundtruth",
        str(scores / "gt_test.csv.gz"),
        "--scores",
        "logit",
        "--row",
        "X3D_L",
        "--run",
        str(tmp_path / "x3d"),
        "--no-plots",
        "--resamples",
        "50",
    )
    found = find_runs([str(tmp_path / "x3d")])
    table = _table(1, found)
    paper, corrected = (row for row in table.rows if row.origin == "ours")
    assert "re-derives the published row" in paper.note
    by_title = dict(zip([head.name for head in table.heads], paper.cells, strict=True))
    assert (by_title["Test F1 (%)"].number, by_title["Test F1 (%)"].change) == ("9.15", "±0.00")
    assert all(cell.verdict == "same" for cell in paper.cells[8:])
    assert all(cell.difference is None for cell in corrected.cells)
    (roi,) = [item for item in defects(found) if item.code == "roi-scale"]
    assert roi.runs == ("x3d",)
    assert "114 of 1,136 boxes" in roi.evidence[0]
    assert "114 of 1,136 have one and the same score vector" in roi.plots[0].description


def test_a_difference_is_significant_when_the_interval_excludes_the_published_value(runs: Path) -> None:
    (run,) = find_runs([str(runs / "good-score")])
    counts = {"clips": 953, "key_frames": 1091, "true_boxes": 1136, "labels": 2656}
    run.metrics["counts"] = counts  # as if it were scored on the published test set
    row = next(row for row in _table(1, [run]).rows if row.origin == "ours")
    cell = row.cells[8]
    assert cell.value is not None
    assert cell.difference == pytest.approx(cell.value - 100 * har_row("X3D_L").scores["map"])
    assert cell.low is not None
    assert (cell.verdict == "above") == (cell.low > 100 * har_row("X3D_L").scores["map"])
    assert "*" in markdown(ResultTable(2, "x", _table(1, [run]).heads, (row,)))


def test_table_files_hold_the_numbers_and_escape_what_is_hostile(built: WrittenPage, runs: Path) -> None:
    files = {Path(path).name for path in built["files"]}
    assert {
        "table1_action_recognition_fine.csv",
        "dataset_overview.md",
        "table10_video_question_answering.tex",
        "table4_captioning.md",
        "table5_question_answering.tex",
    } <= files
    assert all(Path(path).is_file() for path in built["files"])
    table = _table(4, find_runs([str(runs)]))
    lines = list(csv.DictReader(io.StringIO(as_csv(table))))
    metrics = json.loads((runs / "first-texts" / "metrics.json").read_text())
    mine = next(line for line in lines if line["run"] == "first-texts")
    assert float(mine["CIDEr (%)"]) == pytest.approx(
        100 * metrics["tasks"]["caption"]["paper"]["scores"]["cider"], 1e-5
    )
    assert mine["METEOR (%)"] == mine["CIDEr (%) difference"] == ""
    hostile = ResultTable(9, "a | b_$", table.heads[:1], (type(table.rows[0])("ours", (Cell(text="=cmd|x_%"),)),))
    assert "'=cmd|x_%" in as_csv(hostile)
    assert r"=cmd\|x\_%" in markdown(hostile)
    assert r"x\_\%" in latex(hostile)


def test_every_known_defect_is_shown_from_data_or_says_that_it_cannot(runs: Path) -> None:
    found = {item.code: item for item in defects(find_runs([str(runs)]))}
    assert len(found) == 12
    for item in found.values():
        assert item.tables or item.plots or item.evidence or item.code == "roi-scale"
    frames = found["slow-frames"].tables[0][1]
    assert frames["which"].tolist()[:2] == ["0, 7", "0"]
    gap = found["validation-view"].tables[0][1].set_index("row")
    assert gap.loc["I3D NLN R50 8x8", "test - val"] == pytest.approx(5.7, abs=0.001)
    assert "13,251" in str(found["contradicting-numbers"].tables[0][1])
    assert set(found["scoring-rules"].runs) == {"good-score", "poor-score"}


def test_split_leakage_is_counted_per_scheme(runs: Path) -> None:
    from microg.data.dataset import Dataset

    (item,) = [item for item in defects([], [Dataset.open(str(runs.parent / "data"))]) if item.code == "split-leakage"]
    frame = item.tables[0][1].set_index("scheme")
    assert frame.loc["source", "test clips"] == 1
    assert frame.loc["source", "% sharing a source with train"] == 0


def test_costs_come_from_the_runs(built: WrittenPage) -> None:
    part = _Page(built["page"]).source.split('<section id="costs">')[1].split("</section>")[0]
    text = re.sub(r"<[^>]+>|\s+", " ", part)
    assert re.search(r"good-test +har predict +4 +key frames +2 +2 +decode", re.sub(" +", " ", text))
    # 28 answers at a tenth of a cent, and what the engine took
    assert re.search(r"first-said vlm generate 28 answers 7 4 engine 2,800 280 0.0280 1", re.sub(" +", " ", text))
    assert re.search(r"trained har train 80 clips 10 10", re.sub(" +", " ", text))


def test_the_command_writes_the_page_and_says_what_it_wrote(runs: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "folder")
    done = CliRunner().invoke(cli.app, ["report", str(runs / "trained"), str(runs / "begun"), "--out", out])
    assert done.exit_code == 0, done.output
    assert "2 runs, 1 not finished" in done.stdout
    assert (tmp_path / "folder" / "report.html").is_file()
    assert len(list((tmp_path / "folder" / "tables").iterdir())) == 3 * 11
    again = CliRunner().invoke(cli.app, ["report", str(runs / "trained"), "--out", out, "--json"])
    assert json.loads(again.stdout)["runs"][0]["command"] == "har train"


def test_a_bad_run_is_one_line_and_exit_code_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(monkeypatch, capsys, "report", str(tmp_path / "nothing"))
    assert "nothing is not there" in error


def test_equal_runs_give_equal_pages(runs: Path, tmp_path: Path) -> None:
    pages = [build([str(runs / "trained")], str(tmp_path / name / "p.html"))["page"] for name in ("a", "b")]
    assert Path(pages[0]).read_bytes() == Path(pages[1]).read_bytes()


def test_a_browser_fits_the_report_on_a_phone_and_fetches_nothing(built: WrittenPage, tmp_path: Path) -> None:
    seen = look(Path(built["page"]), tmp_path)
    assert (seen["width"], seen["needed"]) == (390, 390)
    assert seen["images"] > 10
    assert (seen["blank"], seen["fetched"], seen["console"]) == ([], [], [])
