"""`microg data validate`, `stats` and `page` from the command line: output, files and exit codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from microg.jobs import cli
from microg.validation import SCHEMA
from tests.support.helpers import make_dataset


def _microg(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["data", *arguments])


def _exit_code(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["microg", "data", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code


def test_validate_of_a_faultless_dataset_exits_0(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    result = _microg("validate", str(tmp_path))
    assert result.exit_code == 0
    assert "0 errors, 0 warnings" in result.stdout
    assert "72 boxes" in result.stdout


def test_validate_exits_0_with_warnings_and_1_with_errors(tmp_path: Path) -> None:
    make_dataset(tmp_path / "warned", lambda rows: rows["qa"].pop(), videos=False)
    for clip_id in ("filmA_000", "filmA_001", "tourB_000", "walkC_000"):
        (tmp_path / "warned" / "videos" / f"{clip_id}.mp4").touch()
    warned = _microg("validate", str(tmp_path / "warned"), "--no-videos")
    assert warned.exit_code == 0
    assert "question_count" in warned.stdout

    make_dataset(tmp_path / "broken", lambda rows: rows["boxes"][0].update(x2=500.0))
    broken = _microg("validate", str(tmp_path / "broken"))
    assert broken.exit_code == 1
    assert "box_outside_frame" in broken.stdout
    assert "filmA_000" in broken.stdout


def test_validate_of_something_else_exits_2_with_one_clean_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _exit_code(monkeypatch, "validate", str(tmp_path)) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {tmp_path} is not a dataset")
    assert "Traceback" not in printed.err


def test_validate_refuses_a_findings_file_of_unknown_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_dataset(tmp_path / "data", videos=False)
    assert _exit_code(monkeypatch, "validate", str(tmp_path / "data"), "--findings", "findings.txt") == 2


def test_validate_writes_findings_as_json_and_parquet(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", lambda rows: rows["actions"][0].update(action_id=2))
    as_json = _microg("validate", str(tmp_path / "data"), "--json", "--findings", str(tmp_path / "out.parquet"))
    assert as_json.exit_code == 1
    document = json.loads(as_json.stdout)
    assert document["errors"] == 1
    assert document["findings"][0]["check"] == "unknown_action"
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.schema.equals(SCHEMA)
    assert table.to_pylist() == document["findings"]
    _microg("validate", str(tmp_path / "data"), "--no-videos", "--findings", str(tmp_path / "out.json"))
    assert json.loads((tmp_path / "out.json").read_text())["findings"] == document["findings"]


def test_stats_writes_tables_and_plots_the_same_each_time(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", videos=False)
    for out in ("one", "two"):
        result = _microg("stats", str(tmp_path / "data"), "--out", str(tmp_path / out))
        assert result.exit_code == 0
    assert "question types" in result.stdout
    overview = pd.read_csv(tmp_path / "one" / "overview.csv", index_col="statistic")
    assert overview.loc["boxes", "all"] == 72
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert {
        "labels_per_action.csv",
        "label_distribution.png",
        "label_distribution.svg",
        "people_per_clip.png",
        "action_groups.svg",
        "words_captions.png",
        "words_answers.svg",
        "text_lengths.png",
    } <= names
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)


def test_stats_of_a_dataset_without_text_gives_the_other_tables_and_a_note(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", lambda rows: rows.update(captions=[], qa=[]), videos=False)
    result = _microg("stats", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert "no captions: no caption lengths and words" in document["notes"]
    assert document["tables"]["text_lengths"][0]["words_mean"] is None
    plots = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert plots == {"action_groups.png", "people_per_clip.png", "labels_per_person.png", "label_distribution.png"}


def test_page_writes_one_html_file(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", lambda rows: rows.update(captions=[], qa=[], actions=[]))
    result = _microg("page", str(tmp_path / "data"), str(tmp_path / "out" / "page.html"), "--max-clips", "1")
    assert result.exit_code == 0
    text = (tmp_path / "out" / "page.html").read_text()
    assert "1 of 4 kept clips" in text


@pytest.mark.parametrize("command", ["validate", "stats", "page"])
def test_help_shows_examples(command: str) -> None:
    result = _microg(command, "--help")
    assert result.exit_code == 0
    assert f"microg data {command} data/mine" in result.stdout
