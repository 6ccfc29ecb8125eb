"""The commands `microg data synth` and `microg data annotate-synthetic`."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from microg.data.dataset import Dataset
from microg.errors import ConfigError
from microg.jobs import data_synth
from microg.jobs.common import make_app


def run(*arguments: str):
    app = make_app("test")
    app.command("synth", epilog=data_synth.SYNTH_EPILOG)(data_synth.synth)
    app.command("annotate-synthetic", epilog=data_synth.ANNOTATE_EPILOG)(data_synth.annotate_synthetic)
    return CliRunner().invoke(app, list(arguments))


def test_synth_makes_a_dataset_and_reports_its_counts_as_json(tmp_path: Path):
    out = tmp_path / "set"
    result = run("synth", str(out), "--clips", "1", "--width", "96", "--height", "64", "--workers", "1", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["clips"] == Dataset.open(str(out)).table("clips").num_rows == 1
    assert document["qa"] == 6


def test_footage_is_made_and_annotation_of_a_dataset_without_its_clips_counts_nothing(tmp_path: Path):
    footage = tmp_path / "footage"
    size = ("--width", "96", "--height", "64", "--workers", "1")
    result = run("synth", str(footage), "--footage", "--videos", "1", "--seconds", "2", *size)
    assert result.exit_code == 0, result.output
    assert (footage / "footage_00.mp4").is_file()
    assert (footage / "truth" / "shots.parquet").is_file()
    Dataset.create(str(tmp_path / "set"), "empty")
    result = run("annotate-synthetic", str(tmp_path / "set"), str(footage), "--json")
    assert json.loads(result.stdout)["clips"] == 0


def test_an_odd_size_is_a_usage_error(tmp_path: Path):
    result = run("synth", str(tmp_path / "set"), "--clips", "1", "--width", "95")
    assert isinstance(result.exception, ConfigError)
    assert "width 95" in result.exception.what


def test_help_shows_examples():
    assert "--footage --videos 4" in run("synth", "--help").output
    assert "microg curate footage" in run("annotate-synthetic", "--help").output
