"""`microg har train` on Ray: to its end, resumed after every kind of end, and refused with a reason."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
import yaml

from microg import storage
from microg.data.dataset import Dataset
from microg.errors import RunConflictError
from microg.jobs import cli, common
from microg.pipelines.core.training.checkpoints import RunFiles
from microg.pipelines.har.train.checks import check_and_plan
from microg.pipelines.har.train.run import train
from microg.pipelines.har.train.settings import TrainConfig
from tests.support.environment import without_ray
from tests.support.training import assert_same_bits, last_weights, make_training_dataset, run_alone, tiny_config

ROOT = Path(__file__).resolve().parents[2]
TRAIN = 8


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_training_dataset(tmp_path_factory.mktemp("har_train") / "data", TRAIN)


def microg(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run `microg har train` in this process; return its exit code and what it said."""
    before, sys.argv = sys.argv, ["microg", "har", "train", *map(str, arguments)]
    code = 0
    try:
        common.run(cli.app)
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        sys.argv = before
    said = capsys.readouterr()
    return code, said.out, said.err


def write_recipe(path: Path, settings: TrainConfig) -> Path:
    path.write_text(yaml.safe_dump({"train": settings.model_dump(mode="json", exclude={"row", "variant"})}))
    return path


def test_training_on_ray_gives_the_bits_of_one_process_and_is_done_only_once(
    dataset: Path, tmp_path: Path, ray_session: None, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tiny_config(epochs=2, tensorboard=True)
    recipe, folder = write_recipe(tmp_path / "recipe.yaml", settings), tmp_path / "run"
    code, out, err = microg(capsys, dataset, "--recipe", recipe, "--run", folder, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["complete"]
    assert [row["epoch"] for row in result["history"]] == [1, 2]
    assert result["throughput"]["rows"] == 2 * TRAIN
    assert result["weights"].endswith("best.pt")
    finished, alone = run_alone(check_and_plan(settings, str(dataset), str(tmp_path / "alone")))
    assert finished
    assert_same_bits(alone.model.state_dict(), last_weights(folder))
    assert result["best"]["map"] == pytest.approx((alone.progress.best or {})["map"])
    assert storage.read_json(folder / "run.json")["command"] == "har train"
    assert storage.read_json(folder / "metrics.json")["best"] == result["best"]
    assert list((folder / "tensorboard").iterdir())
    assert not (folder / "ray").exists()

    before = (folder / "checkpoints" / "best.pt").stat().st_mtime_ns
    code, out, _ = microg(capsys, dataset, "--recipe", recipe, "--run", folder)
    assert code == 0
    assert "is finished: 2 epochs" in out
    assert (folder / "checkpoints" / "best.pt").stat().st_mtime_ns == before
    with pytest.raises(RunConflictError, match="seed: 0 there, 1 asked"):
        train(settings.replaced(seed=1), str(dataset), str(folder))


def test_the_plan_is_shown_without_training(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_config())
    code, out, _ = microg(capsys, dataset, "--recipe", recipe, "--run", tmp_path / "run", "--dry-run", "--json")
    plan = json.loads(out)
    assert code == 0
    assert plan["key_frames"] == {"train": TRAIN, "val": 3}
    assert plan["steps_per_epoch"] == 2
    assert plan["validations"] == 2
    assert not (tmp_path / "run").exists()


def change(table: str, edit: Callable[[list[dict[str, Any]]], object]) -> Callable[[Path], None]:
    """Return a change of one table of a dataset."""

    def apply(root: Path) -> None:
        dataset = Dataset.open(str(root))
        rows = dataset.table(table).to_pylist()
        edit(rows)
        dataset.write(table, pa.Table.from_pylist(rows, schema=dataset.table(table).schema))

    return apply


@pytest.mark.parametrize(
    ("alter", "options", "said"),
    [
        (change("samples", lambda rows: rows[2].update(action_id=18)), (), "action id 18"),
        (change("samples", lambda rows: rows[2].update(x2=0.01)), (), "a box without area"),
        (
            change("splits", lambda rows: [row.update(split="train") for row in rows if row["split"] == "val"]),
            (),
            "no val split of scheme 'published'",
        ),
        (None, ("--set", "scheme=source"), "no train split of scheme 'source'"),
        (None, ("--set", "batch=64", "--set", "micro_batch=64"), "8 key frames, fewer than one batch of 64"),
        (None, ("--weights", "nowhere.pyth"), "'nowhere.pyth'"),
        (None, ("--set", "model.name=X3D"), "there is no model 'X3D'"),
        (None, ("--num-workers", "3"), "cannot be shared by 3 workers"),
        (None, ("--variant", "intended"), "it has none"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_the_reason(
    dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    alter: Callable[[Path], None] | None,
    options: tuple[str, ...],
    said: str,
) -> None:
    root = dataset
    if alter is not None:
        root = Path(shutil.copytree(dataset, tmp_path / "data"))
        alter(root)
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_config())
    code, _, err = microg(capsys, root, "--recipe", recipe, "--run", tmp_path / "run", *options)
    assert code == 2
    assert said in err
    assert not (tmp_path / "run").exists()


# Epochs that take long enough for a signal to arrive in the middle.
LONG = 10


class Command:
    """The command as a process of its own with a Ray of its own, on a dataset that takes a while."""

    def __init__(self, dataset: Path, folder: Path) -> None:
        self.folder = folder
        self.settings = tiny_config(epochs=LONG, batch=4, checkpoint_every_s=0.05)
        recipe = write_recipe(folder.with_suffix(".yaml"), self.settings)
        self._words = [
            sys.executable,
            "-m",
            "microg.jobs.cli",
            "har",
            "train",
            str(dataset),
            "--recipe",
            str(recipe),
            "--run",
            str(folder),
        ]
        self.log = folder.with_suffix(".log")

    def start(self) -> psutil.Popen:
        with self.log.open("wb") as output:
            return psutil.Popen(
                self._words,
                cwd=ROOT,
                env=without_ray(),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_within(self, process: psutil.Popen, epoch: int) -> None:
        """Wait until a checkpoint lies within epoch `epoch` (0-based)."""
        end = time.monotonic() + 240
        while True:
            progress = RunFiles(str(self.folder)).progress()
            if (progress.epoch, progress.iteration) > (epoch, 0):
                return
            assert process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)

    def finish(self, process: psutil.Popen, code: int = 0) -> None:
        assert process.wait(timeout=280) == code, self.log.read_text()


def family(process: psutil.Popen) -> dict[psutil.Process, str]:
    """Return all processes below one, with their command lines."""
    found = {}
    for child in process.children(recursive=True):
        try:
            found[child] = " ".join(child.cmdline())
        except psutil.Error:  # ended meanwhile
            continue
    return found


def check_like_undisturbed(command: Command, dataset: Path, tmp_path: Path) -> None:
    finished, alone = run_alone(check_and_plan(command.settings, str(dataset), str(tmp_path / "undisturbed")))
    assert finished
    progress = RunFiles(str(command.folder)).progress()
    assert progress.finished
    assert [row["epoch"] for row in progress.history] == list(range(1, LONG + 1))
    assert [row["clips"] for row in progress.history] == [row["clips"] for row in alone.progress.history]
    assert_same_bits(alone.model.state_dict(), last_weights(command.folder))


@pytest.fixture(scope="module")
def long_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_training_dataset(tmp_path_factory.mktemp("kills") / "data", 40)


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_training_ends_as_if_nothing_had_happened(
    long_dataset: Path, tmp_path: Path
) -> None:
    command = Command(long_dataset, tmp_path / "run")
    process = command.start()
    command.wait_until_within(process, epoch=1)
    workers = [child for child, name in family(process).items() if "RayTrainWorker" in name]
    assert len(workers) == 1
    workers[0].kill()
    command.finish(process)
    assert "workers were restarted 1 times" in command.log.read_text()
    check_like_undisturbed(command, long_dataset, tmp_path)


@pytest.mark.slow
def test_a_killed_driver_is_resumed_by_the_same_command(long_dataset: Path, tmp_path: Path) -> None:
    command = Command(long_dataset, tmp_path / "run")
    process = command.start()
    command.wait_until_within(process, epoch=1)
    others = family(process)
    process.kill()
    process.wait()
    psutil.wait_procs(others, timeout=60)
    for other in others:
        if other.is_running():
            other.kill()
    left = RunFiles(str(command.folder)).progress()
    assert (1, 0) < (left.epoch, left.iteration) < (LONG, 0)
    command.finish(command.start())
    check_like_undisturbed(command, long_dataset, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_saves_where_it_is_and_goes_on(
    long_dataset: Path, tmp_path: Path, number: signal.Signals
) -> None:
    command = Command(long_dataset, tmp_path / "run")
    process = command.start()
    command.wait_until_within(process, epoch=0)
    process.send_signal(number)
    command.finish(process, code=130)
    assert "run the same command again to resume" in command.log.read_text()
    command.finish(command.start())
    check_like_undisturbed(command, long_dataset, tmp_path)


@pytest.mark.slow
def test_two_workers_share_the_work_of_one(long_dataset: Path, tmp_path: Path, ray_session: None) -> None:
    settings = tiny_config(epochs=1, batch=4, validation={"every": 1})
    one = train(settings, str(long_dataset), str(tmp_path / "one"))
    shared = settings.replaced(resources={**settings.resources.model_dump(), "workers": 2, "worker_cpus": 0.5})
    two = train(shared, str(long_dataset), str(tmp_path / "two"))
    for name in ("clips", "boxes", "val_boxes"):
        assert one["history"][0][name] == two["history"][0][name]
    # batch statistics are those of a micro-batch either way: sums differ in their last bits only
    assert one["history"][0]["loss"] == pytest.approx(two["history"][0]["loss"], rel=2e-2)
