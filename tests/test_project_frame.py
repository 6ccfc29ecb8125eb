"""The repository's frame: licence, CI script, and that documented commands are the ones that run."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
STEPS = (
    "sync",
    "run ruff check .",
    "run ruff format --check .",
    "run lint-imports --no-cache --no-logo",
    "run pyright",
    "run pytest -n 2",
)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A copy of the CI script beside fakes of python3 and uv that write down how they were called."""
    (tmp_path / "repo" / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", tmp_path / "repo" / ".ci" / "run")
    (tmp_path / "bin").mkdir()
    for tool in ("bash", "dirname", "env", "chmod", "cat"):
        (tmp_path / "bin" / tool).symlink_to(str(shutil.which(tool)))
    log = tmp_path / "log"
    uv = f'#!/bin/sh\\necho "uv $* in $PWD" >> {log}\\n[ "$*" != "$FAIL" ]\\n'
    python = f"#!/bin/sh\necho \"python3 $*\" >> {log}\nprintf '{uv}' > {tmp_path}/bin/uv\nchmod +x {tmp_path}/bin/uv\n"
    (tmp_path / "bin" / "python3").write_text(python)
    (tmp_path / "bin" / "python3").chmod(0o755)
    return tmp_path


def run_ci(bare: Path, fail: str = "") -> tuple[int, list[str]]:
    environment = {"PATH": str(bare / "bin"), "HOME": str(bare / "home"), "FAIL": fail}
    done = subprocess.run([str(bare / "repo" / ".ci" / "run")], env=environment, cwd=bare, capture_output=True)
    log = (bare / "log").read_text().splitlines()
    return done.returncode, log


def test_ci_installs_uv_where_missing_then_checks_everything_in_the_repository(bare: Path):
    code, log = run_ci(bare)
    assert code == 0
    assert log[0] == "python3 -m pip install --quiet uv"
    assert log[1:] == [f"uv {words} in {bare / 'repo'}" for words in STEPS]


@pytest.mark.parametrize("step", STEPS)
def test_ci_fails_with_the_first_step_that_fails(bare: Path, step: str):
    code, log = run_ci(bare, fail=step)
    assert code != 0
    assert log[-1].startswith(f"uv {step} in ")


def test_ci_keeps_a_uv_that_works(bare: Path):
    run_ci(bare)
    (bare / "log").unlink()
    code, log = run_ci(bare)
    assert code == 0
    assert not any("pip install" in line for line in log)


def test_ci_script_is_executable_and_the_workflow_runs_it():
    assert (ROOT / ".ci" / "run").stat().st_mode & stat.S_IXUSR
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert workflow["jobs"]["run"]["steps"][-1]["run"] == ".ci/run"
    assert workflow["permissions"] == {"contents": "read"}


def test_hooks_use_the_tools_of_the_environment():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [hook["id"] for hook in hooks] == ["ruff", "ruff-format", "import-linter", "pyright"]
    assert all(hook["entry"].startswith("uv run ") for hook in hooks)


def test_licence_is_the_whole_apache_2():
    text = " ".join((ROOT / "LICENSE").read_text().split())
    for part in (
        "Apache License Version 2.0, January 2004",
        "3. Grant of Patent License.",
        "9. Accepting Warranty",
        "END OF TERMS AND CONDITIONS",
    ):
        assert part in text
    assert "AGPL-3.0" in (ROOT / "NOTICE").read_text()


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
def test_ci_script_is_valid_shell():
    assert subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")]).returncode == 0
