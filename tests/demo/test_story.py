"""The demo's steps: which commands are run, and what becomes of those that fail."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from microg import storage
from microg.demo.story import StorySettings, run_story
from microg.errors import ConfigError
from tests.support.helpers import make_dataset

DESCRIBED = ["curate", "data split", "data validate", "data stats", "data page"]
LEARNT = ["har train", "har predict", "har score", "vlm train", "vlm generate", "vlm score", "report", "report"]


class Commands:
    """Stands for the command line: writes down what is run, and answers as asked."""

    def __init__(self, root: Path, failing: str = "", broken: str = "") -> None:
        self.root, self.failing, self.broken, self.names = root, failing, broken, []

    def __call__(self, words: Sequence[str]) -> bool:
        self.names.append(" ".join(words[: 1 + (words[0] in ("data", "har", "vlm"))]))
        if self.names[-1] == self.broken:
            raise ConfigError("bad input")
        if self.names[-1] == "curate":
            make_dataset(self.root / "dataset", videos=False)
        return self.names[-1] != self.failing


def story(commands: Commands, **changes: Any) -> list[str]:
    weights = commands.root / "mine.pt"
    weights.touch()
    return run_story(StorySettings(out=str(commands.root), weights=str(weights), **changes), commands)


def test_own_footage_is_curated_and_described_only(tmp_path: Path):
    commands = Commands(tmp_path)
    assert story(commands, footage="films") == []
    assert commands.names == DESCRIBED
    record = storage.read_json(str(tmp_path / "run.json"))
    assert record["config"] == {"footage": "films", "detector": "mine.pt"}
    assert set(storage.read_json(str(tmp_path / "metrics.json"))["seconds"]) == set(DESCRIBED)


def test_drawn_footage_is_annotated_and_learnt_from(tmp_path: Path):
    commands = Commands(tmp_path)
    story(commands)
    assert commands.names[:3] == ["data synth", "curate", "data annotate-synthetic"]
    assert [name for name in commands.names if name in LEARNT] == LEARNT


def test_failed_rows_are_reported_at_the_end_and_bad_input_at_once(tmp_path: Path):
    assert story(Commands(tmp_path, failing="data validate"), footage="films") == ["data validate"]
    commands = Commands(tmp_path, broken="data split")
    with pytest.raises(ConfigError, match="bad input"):
        story(commands, footage="films")
    assert commands.names == ["curate", "data split"]
