"""A sweep of real trials, killed within one: what ended stays, the rest goes on, weak trials are stopped early."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import psutil
import pytest
import yaml

from microg import storage
from microg.pipelines.core.training.checkpoints import RunFiles
from tests.support.processes import family, start_microg, wait_for
from tests.support.training import make_training_dataset, tiny_config

EPOCHS = 6


def records(run: Path) -> dict[str, dict]:
    """Return how each ended trial ended."""
    return {path.parent.name: storage.read_json(str(path)) for path in run.glob("trials/*/trial.json")}


def epochs(run: Path) -> dict[str, list[int]]:
    """Return the epochs that each begun trial has done."""
    found = {}
    for folder in run.glob("trials/*"):
        found[folder.name] = [row["epoch"] for row in RunFiles(str(folder)).progress().history]
    return found


def finish(process: psutil.Popen, log: Path) -> None:
    assert process.wait(timeout=600) == 0, log.read_text()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_killed_sweep_goes_on_with_what_was_left(tmp_path: Path) -> None:
    data, run, log = make_training_dataset(tmp_path / "data", 16), tmp_path / "run", tmp_path / "log"
    recipes = []
    for name, changes in (("small", {"batch": 2}), ("middle", {"batch": 4}), ("large", {"batch": 8})):
        config = tiny_config(epochs=EPOCHS, micro_batch=2, checkpoint_every_s=0.05, **changes)
        recipes.append(tmp_path / f"{name}.yaml")
        values = config.model_dump(mode="json", exclude={"row", "variant"})
        recipes[-1].write_text(yaml.safe_dump({"train": values}))
    asked = [part for path in recipes for part in ("--recipe", path)]
    space = ["--space", "lr=grid(0.0001,0.01)", "--scheduler", "asha", "--reduction-factor", "2"]
    words = ["har", "sweep", data, *asked, *space, "--run", run]

    process = start_microg(log, *words)
    wait_for(lambda: len(records(run)) >= 2 and len(epochs(run)) > len(records(run)), process, log, 600)
    others = family(process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    psutil.wait_procs([each for each, name in others.items() if "Agent" not in name], timeout=60)
    for other in others:
        if other.is_running():
            other.kill()
    ended, done = records(run), epochs(run)
    assert 2 <= len(ended) < 6
    weights = {path: path.stat().st_mtime_ns for name in ended for path in run.glob(f"trials/{name}/checkpoints/*")}
    assert weights

    finish(start_microg(log, "har", "sweep", "--resume", "--run", run, "--json"), log)
    document = storage.read_json(str(run / "metrics.json"))
    assert document["done_before"] == len(ended)
    assert [path.stat().st_mtime_ns for path in weights] == list(weights.values())
    assert {name: record for name, record in records(run).items() if name in ended} == ended
    rows = document["trials"]
    assert len(rows) == 6
    assert {row["status"] for row in rows} == {"done", "stopped"}
    assert all(row["epochs_done"] < EPOCHS for row in rows if row["status"] == "stopped")
    assert all(row["epochs_done"] == EPOCHS for row in rows if row["status"] == "done")
    after = epochs(run)
    for name, numbers in after.items():
        assert numbers == list(range(1, len(numbers) + 1)), name
        assert len(numbers) >= len(done.get(name, [])), name
    assert (run / "plots").exists()

    finish(start_microg(log, "har", "sweep", "--resume", "--run", run, "--json"), log)
    assert json.loads((run / "metrics.json").read_text())["done_before"] == 6
