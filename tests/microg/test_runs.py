from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

import pytest

import microg
from microg import runs
from microg.config import Config
from microg.errors import DatasetError, RunConflictError
from microg.runs import Run


class Filter(Config):
    threshold: float = 0.6


class Settings(Config):
    volatile: ClassVar[frozenset[str]] = frozenset({"batch"})
    filter: Filter = Filter()
    sizes: tuple[int, ...] = (1, 2)
    batch: int = 8


def test_same_settings_resume_and_the_resume_is_recorded(tmp_path: Path):
    root = str(tmp_path / "run")
    first = Run.start(root, "curate", Settings(), dataset="abc", protocol="paper")
    second = Run.start(root, "curate", Settings(batch=64), dataset="abc", protocol="paper")
    assert (first.resumed, second.resumed) == (False, True)
    assert second.manifest["config_hash"] == first.manifest["config_hash"] == Settings().digest()
    assert second.manifest["full_config"]["batch"] == 8
    Run.start(root, "curate", Settings(), dataset="abc", protocol="paper")
    document = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [resume["code_version"] for resume in document["resumes"]] == [runs.code_version()] * 2
    assert document["created"] == first.manifest["created"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"config": Settings(filter=Filter(threshold=0.5))}, "config.filter.threshold: 0.6 there, 0.5 asked"),
        ({"config": Settings(sizes=(1,))}, r"config.sizes: \[1, 2\] there, \[1\] asked"),
        ({"command": "score"}, "command: 'curate' there, 'score' asked"),
        ({"dataset": "xyz"}, "dataset: 'abc' there, 'xyz' asked"),
        ({"protocol": "corrected"}, "protocol: 'paper' there, 'corrected' asked"),
    ],
)
def test_other_settings_are_refused_and_named(tmp_path: Path, changes: dict, named: str):
    arguments = {"command": "curate", "config": Settings(), "dataset": "abc", "protocol": "paper"}
    Run.start(str(tmp_path), **arguments)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(RunConflictError, match=named):
        Run.start(str(tmp_path), **{**arguments, **changes})
    assert (tmp_path / "run.json").read_bytes() == before


@pytest.mark.parametrize("content", ["{", "[]", '"x"'])
def test_damaged_run_folder_is_named(tmp_path: Path, content: str):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(DatasetError, match=r"run\.json"):
        Run.start(str(tmp_path), "curate", Settings())


def test_run_lives_on_any_filesystem():
    root = "memory://test-runs/one"
    assert not Run.start(root, "curate", Settings()).resumed
    run = Run.start(root, "curate", Settings())
    assert run.resumed
    assert run.path("tables", "x.parquet") == "memory://test-runs/one/tables/x.parquet"


def test_end_is_recorded_beside_the_manifest(tmp_path: Path):
    Run.start(str(tmp_path), "curate", Settings()).finish({"clips": 3})
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["clips"] == 3
    assert metrics["finished"]


def test_manifest_names_versions_but_not_the_machine(tmp_path: Path):
    manifest = Run.start(str(tmp_path), "curate", Settings()).manifest
    assert manifest["environment"]["packages"]["pyarrow"]
    assert manifest["environment"]["python"].startswith("3.")
    assert str(tmp_path) not in json.dumps(manifest)
    assert str(Path.home()) not in json.dumps(manifest)


def test_differences_name_leaves_on_either_side():
    found = runs.differences({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 4}, "e": 5})
    assert found == ["a.c: 2 there, 4 asked", "d: 3 there, None asked", "e: None there, 5 asked"]
    assert runs.differences({"a": [1]}, {"a": [1]}) == []


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_code_version_is_the_commit_of_a_checkout_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], cwd=tmp_path, check=True, capture_output=True
        )

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "x")
    installed = tmp_path / "lib" / "microg" / "runs.py"  # as in an environment inside somebody's repository
    monkeypatch.setattr(runs, "__file__", str(installed))
    assert runs.code_version() == microg.__version__
    monkeypatch.setattr(runs, "__file__", str(tmp_path / "microg" / "runs.py"))
    assert runs.code_version().startswith(f"{microg.__version__}+")
    monkeypatch.setenv("PATH", "")
    assert runs.code_version() == microg.__version__
