"""Kinds of runs: every command that writes run folders has its record, and a new kind needs nothing but its record."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from microg.data.schema import RUN_TABLES
from microg.jobs import cli
from microg.reports.html import Section, section
from microg.reports.run_folders import RunFolder
from microg.reports.run_kinds.kind import Headline, Remark, ReportSection, RunKind, SectionInputs
from microg.reports.run_kinds.registry import RUN_KINDS, run_kinds
from microg.runs import Run
from tests.support import scored_runs

ROOT = Path(__file__).resolve().parents[2]
# Their run folders are listed, with nothing more to show.
_WITHOUT_A_KIND = {"demo", "data export-sft", "data agreement", "data label-qa", "data make-qa", "vlm train-tiny"}


def test_every_command_that_starts_runs_has_a_kind_or_nothing_to_show() -> None:
    folders = ("jobs", "pipelines", "demo")
    source = "\n".join(path.read_text() for folder in folders for path in (ROOT / folder).rglob("*.py"))
    assert [command for command in RUN_KINDS if f'"{command}"' not in source] == []
    assert set(re.findall(r'^COMMAND = "(.*)"', source, re.MULTILINE)) <= set(RUN_KINDS) | _WITHOUT_A_KIND
    assert [kind.command for kind in run_kinds()] == list(RUN_KINDS)


def test_kinds_name_tables_that_exist_and_no_table_twice() -> None:
    tables = [table for kind in run_kinds() for table in kind.tables]
    assert len(tables) == len(set(tables))
    # of `data make-qa` and `data label-qa`, and of `data agreement`, which has a page of its own
    assert set(RUN_TABLES) - set(tables) == {"qa_candidates", "qa_kinds", "agreement", "disagreements"}
    assert set(tables) <= set(RUN_TABLES)
    for kind in run_kinds():
        assert {table for part in kind.sections for table in part.tables} <= set(kind.tables)


def _show_greetings(runs: Sequence[RunFolder], inputs: SectionInputs) -> Section:
    inputs.notes.append("one greeting was not heard")
    return section("greetings", "Greetings", "board_about", runs=len(runs), left=[run.name for run in runs])


def test_a_new_kind_is_a_record_and_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = types.ModuleType("microg.reports.run_kinds.greet")
    module.KIND = RunKind(  # type: ignore[attr-defined]
        command="greet",
        headlines=lambda run: [Headline("greetings", str(run.metrics["greetings"]), "in all")],
        remarks=lambda run: [Remark(run.name, "shy", "nobody answered")],
        failed_rows=lambda run: run.metrics["unheard"],
        sections=(ReportSection(name="greetings", make=_show_greetings),),
    )
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(RUN_KINDS, "greet", f"{module.__name__}:KIND")
    for name, unheard in (("hello", 0), ("hi", 2)):
        throughput = {"unit": "greetings", "rows": 7, "wall_s": 2.0, "rows_per_s": 3.5, "bottleneck": "voice"}
        run = Run.start(str(tmp_path / "runs" / name), "greet", scored_runs.Settings())
        run.finish({"greetings": 7, "unheard": unheard, "throughput": throughput})
    done = CliRunner().invoke(cli.app, ["report", str(tmp_path / "runs"), "--out", str(tmp_path / "page.html")])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "note: one greeting was not heard" in done.stdout
    text = re.sub(r"<[^>]+>|\s+", " ", (tmp_path / "page.html").read_text())
    text = re.sub(" +", " ", text)
    assert "greet hello TINY" in text
    assert "7 in all greetings finished 1 warning" in text
    assert "2 rows failed" in text
    assert "hi shy nobody answered" in text
    assert "Runs without scores: hello, hi" in text  # its own section
    assert "hello greet 7 greetings 2 3.50 voice 0" in text


def test_a_run_of_an_unknown_command_is_listed(tmp_path: Path) -> None:
    Run.start(str(tmp_path / "runs" / "odd"), "newer command", scored_runs.Settings()).finish({"rows": 3})
    done = CliRunner().invoke(cli.app, ["report", str(tmp_path / "runs"), "--out", str(tmp_path / "page.html")])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "finished (nothing more to show)" in (tmp_path / "page.html").read_text()
