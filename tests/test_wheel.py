"""The wheel alone, in a folder whose files have the names of our rooms, does what a checkout does."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.environment import without_ray

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("models", "metrics", "pipelines", "jobs", "reports", "review", "demo", "recipes")
# Runs commands one after another, all on one Ray, as `microg` would one by one.
_SCRIPT = """
import json, sys
import microg
print("microg is", microg.__file__, flush=True)
from microg.jobs.cli import app
for words in json.loads(sys.argv[1]):
    code = app(words, standalone_mode=False)
    assert not code, (words, code)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the wheel installs."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def test_one_name_is_installed(site: Path):
    assert {path.name for path in site.iterdir() if path.suffix != ".dist-info"} == {"microg"}


def test_every_module_and_data_file_of_the_checkout_is_installed(site: Path):
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "microg", *ROOMS]
    tracked = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True)
    files = [Path(line) for line in tracked.stdout.splitlines() if not (ROOT / line).is_symlink()]
    wanted = {path if path.parts[0] == "microg" else Path("microg") / path for path in files}
    installed = {path.relative_to(site) for path in (site / "microg").rglob("*") if path.is_file()}
    assert installed == wanted


@pytest.mark.slow
def test_the_wheel_works_where_files_have_the_names_of_our_rooms(
    site: Path, tiny_vlm: Callable[[str], Path], tmp_path: Path
):
    for room in ROOMS:
        (tmp_path / f"{room}.py").write_text("raise RuntimeError('a file of the user was imported')\n")
    small = ["--set", "epochs=1", "--set", "schedule.warmup_epochs=0", "--set", "validation.every=1"]
    commands = [
        "data synth ds --clips 12 --width 96 --height 72 --seed 3",
        "data split ds",
        ["har", "train", "ds", "--recipe", "tiny", "--run", "train", *small],
        "har predict ds --weights train --split all --run predict",
        "har score --predictions predict --groundtruth ds --split all --run har-score",
        f"vlm generate --model {tiny_vlm('qwen2_5_vl')} --engine transformers --dataset ds --run answers"
        " --set sampling.max_tokens=4 --limit 2",
        "vlm score --run answers --out vlm-score --metrics rouge_l --missing zero",
        "report train predict har-score answers vlm-score --out report.html",
    ]
    words = [line.split() if isinstance(line, str) else line for line in commands]
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, json.dumps(words)],
        cwd=tmp_path,
        env=without_ray(PYTHONPATH=str(site)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"microg is {site}" in done.stdout
    assert "har score" in (tmp_path / "report.html").read_text()
