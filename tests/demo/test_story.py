"""The demo's steps: which commands are run, and what becomes of those that fail."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from microg import storage
from microg.demo.story import ZERO_SHOT, StorySettings, run_story
from microg.demo.trained import ACTION_WEIGHTS, CARD, LANGUAGE_MODEL
from microg.demo.trained.__main__ import card_of
from microg.errors import ConfigError, RunConflictError, WeightsError
from tests.support.helpers import make_dataset

DESCRIBED = ["curate", "data split", "data validate", "data stats", "data page"]
SCORED = ["har predict", "har score", "vlm generate", "vlm score", "report", "report"]


class Commands:
    """Stands for the command line: writes down what is run, and answers as asked."""

    def __init__(self, root: Path, failing: str = "", broken: str = "") -> None:
        self.root, self.failing, self.broken, self.names = root, failing, broken, []
        self.words: list[list[str]] = []

    def __call__(self, words: Sequence[str]) -> bool:
        self.names.append(" ".join(words[: 1 + (words[0] in ("data", "har", "vlm"))]))
        if self.names[-1] == self.broken:
            raise ConfigError("bad input")
        self.words.append(list(words))
        if self.names[-1] == "curate":
            make_dataset(self.root / "dataset", videos=False)
        if self.names[-1] in ("data page", "report"):
            Path(words[2] if words[0] == "data" else words[-1]).touch()
            (self.root / "demo.html").touch()
        return self.names[-1] != self.failing


def story(commands: Commands, **changes: Any) -> list[str]:
    weights = commands.root / "mine.pt"
    weights.touch()
    return run_story(StorySettings(out=str(commands.root), weights=str(weights), **changes), commands)


def test_own_footage_is_curated_and_ends_in_a_page_of_what_models_say(tmp_path: Path):
    commands = Commands(tmp_path)
    assert story(commands, footage="films") == []
    assert commands.names == [*DESCRIBED, "har predict", "vlm generate", "report"]
    record = storage.read_json(str(tmp_path / "run.json"))
    assert record["config"]["footage"] == "films"
    assert record["config"]["detector"] == "mine.pt"
    assert record["config"]["actions"] == "tiny-drawn-people.pt"
    assert set(storage.read_json(str(tmp_path / "metrics.json"))["seconds"]) == set(commands.names)


def test_a_zero_shot_model_that_is_here_recognises_the_actions_of_own_footage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / ZERO_SHOT[0]).touch()
    monkeypatch.setenv("MICROG_WEIGHTS", str(tmp_path))
    commands = Commands(tmp_path)
    story(commands, footage="films", language_model="some/model")
    by_name = dict(zip(commands.names, commands.words, strict=True))
    assert {str(tmp_path / ZERO_SHOT[0]), ZERO_SHOT[1]} <= set(by_name["har predict"])
    assert "some/model" in by_name["vlm generate"]


def test_drawn_footage_is_scored_with_the_models_of_the_package(tmp_path: Path):
    commands = Commands(tmp_path)
    story(commands)
    assert commands.names == ["data synth", "curate", "data annotate-synthetic", *DESCRIBED[1:], *SCORED]
    by_name = dict(zip(commands.names, commands.words, strict=False))
    assert str(ACTION_WEIGHTS) in by_name["har predict"]
    assert str(LANGUAGE_MODEL) in by_name["vlm generate"]


def test_training_is_asked_for_and_without_models_the_data_are_described_only(tmp_path: Path):
    commands = Commands(tmp_path / "trained")
    (tmp_path / "trained").mkdir()
    story(commands, train=True)
    assert [name for name in commands.names if "train" in name] == ["har train", "vlm train-tiny"]
    assert str(ACTION_WEIGHTS) not in commands.words[commands.names.index("har predict")]
    commands = Commands(tmp_path / "data")
    (tmp_path / "data").mkdir()
    story(commands, models=False, footage="films")
    assert commands.names == DESCRIBED


def test_a_finished_demo_runs_nothing_again_until_something_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    story(Commands(tmp_path))
    again = Commands(tmp_path)
    assert story(again) == []
    assert again.names == []
    assert "everything is done already" in capsys.readouterr().out
    (tmp_path / "report.html").unlink()
    story(again)
    assert again.names[-1] == "report"
    for version in ("newer", "newest"):  # other code runs every step once more, which resumes
        monkeypatch.setattr("microg.demo.story.code_version", lambda version=version: version)
        again.names.clear()
        story(again)
        assert again.names[-1] == "report"
        again.names.clear()
        story(again)
        assert again.names == []
    with pytest.raises(RunConflictError, match="videos"):
        story(again, videos=5)


def test_each_step_says_how_many_there_are_and_how_long_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    story(Commands(tmp_path))
    out = capsys.readouterr().out
    assert "[1/13, about 2 min 20 s to go] microg data synth" in out
    assert "[13/13, about 1 s to go] microg report --leaderboard" in out


def test_without_a_detector_drawn_people_are_replayed_and_real_ones_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for variable in ("MICROG_WEIGHTS", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "nothing"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("microg.demo.synthetic.detections.write_detections", lambda raw, out: None)
    commands = Commands(tmp_path)
    run_story(StorySettings(out=str(tmp_path), models=False), commands)
    assert "--detections" in commands.words[1]
    assert "the rendered truth is replayed" in capsys.readouterr().err
    with pytest.raises(WeightsError, match=r"yolo11n\.pt is not on this machine"):
        run_story(StorySettings(out=str(tmp_path / "own"), footage="films"), commands)


def test_the_models_of_the_package_are_those_that_their_card_describes():
    card = storage.read_json(str(CARD))
    assert card["made_with"] == "microg demo --train --seed 1 --training-clips 240"
    assert card["scores"]["actions"]["val_map_corrected"] > 0.3
    assert card["scores"]["vqa"]["rouge_l"] > 0.5
    assert ACTION_WEIGHTS.stat().st_size + sum(path.stat().st_size for path in LANGUAGE_MODEL.iterdir()) < 8e6


def test_models_of_a_demo_that_trained_none_are_not_taken_into_the_package(tmp_path: Path):
    story(Commands(tmp_path))
    with pytest.raises(ConfigError, match="trained models"):
        card_of(str(tmp_path))


def test_failed_rows_are_reported_at_the_end_and_bad_input_at_once(tmp_path: Path):
    assert story(Commands(tmp_path, failing="data validate"), footage="films") == ["data validate"]
    commands = Commands(tmp_path, broken="data split")
    with pytest.raises(ConfigError, match="bad input"):
        story(commands, footage="films")
    assert commands.names == ["curate", "data split"]
