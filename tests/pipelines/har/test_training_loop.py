"""The training loop without Ray: one worker in this process, on clips made on the spot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from microg import storage
from microg.data.label_space import MICROG_50
from microg.errors import DatasetError, TrainingError, WeightsError, WorkerError
from microg.models.har.backbones.registry import build
from microg.models.har.checkpoints import save_weights
from microg.pipelines.core.training.ahead import ahead
from microg.pipelines.core.training.checkpoints import Progress, RunFiles
from microg.pipelines.core.training.plan import Position
from microg.pipelines.har.train.checks import TrainingSetup, check_and_plan, val_truth
from microg.pipelines.har.train.loop import TrainLoop
from microg.pipelines.har.train.single_process import SingleProcess, local_blocks
from microg.pipelines.har.train.stream import pieces
from tests.support.helpers import moving_scene, write_video
from tests.support.s3_server import object_store, upload
from tests.support.training import assert_same_bits, make_training_dataset, run_alone, tiny_config

TRAIN = 8


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_training_dataset(tmp_path_factory.mktemp("train") / "data", TRAIN)


Undisturbed = tuple[TrainingSetup, SingleProcess, TrainLoop]


@pytest.fixture(scope="module")
def undisturbed(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    setup = check_and_plan(tiny_config(), str(dataset), str(tmp_path_factory.mktemp("run") / "run"))
    group = SingleProcess()
    finished, loop = run_alone(setup, group)
    assert finished
    return setup, group, loop


def test_a_run_ends_with_one_row_an_epoch_scores_where_due_and_the_best_weights(
    undisturbed: Undisturbed,
) -> None:
    setup, group, _ = undisturbed
    files = RunFiles(setup.context.root)
    progress = files.progress()
    assert progress.finished
    assert [report["epoch"] for report in group.reports] == [1, 2, 3]
    table = storage.read_parquet(storage.join(setup.context.root, "tables", "har_train.parquet"))
    assert table["epoch"].to_pylist() == [1, 2, 3]
    assert table["clips"].to_pylist() == [8, 8, 8]
    assert [value is not None for value in table["val_map_paper"].to_pylist()] == [False, True, True]
    assert table["val_boxes"].to_pylist()[1:] == [4, 4]  # clips 8, 9 and 10 have 1 + 2 + 1 people
    best = progress.best
    assert best is not None
    assert best["map"] == max(value for value in table["val_map_paper"].to_pylist() if value is not None)
    assert storage.exists(files.best)
    names = {path.name for path in (Path(setup.context.root) / "checkpoints").iterdir()}
    assert names == {"best.pt", "progress.json", progress.state}  # only the last state is kept


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_stopped_at_any_step_a_run_goes_on_to_the_same_weights_bit_by_bit(
    dataset: Path, tmp_path: Path, undisturbed: Undisturbed, stop: int
) -> None:
    setup = check_and_plan(tiny_config(), str(dataset), str(tmp_path / "run"))
    finished, _ = run_alone(setup, SingleProcess(stop_after_updates=stop))
    assert not finished
    left = RunFiles(setup.context.root).progress()
    assert not left.finished
    finished, loop = run_alone(setup)
    assert finished
    _, _, whole = undisturbed
    assert_same_bits(whole.model.state_dict(), loop.model.state_dict())
    timed = {"train_s", "wait_s", "step_s", "val_s", "clips_per_s"}
    for one, other in zip(whole.progress.history, loop.progress.history, strict=True):
        for name in one.keys() - timed:
            assert one[name] == pytest.approx(other[name]), name


def test_a_kill_between_state_and_progress_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = RunFiles(str(tmp_path))
    progress = Progress(epoch=1, iteration=2)
    files.save(progress, {"model": {"w": torch.ones(2)}})
    first = progress.state
    with monkeypatch.context() as killed:
        killed.setattr(storage, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            files.save(Progress(epoch=1, iteration=3, state=first), {"model": {"w": torch.zeros(2)}})
    fresh = RunFiles(str(tmp_path))
    found = fresh.progress()
    assert found.position == Position(1, 2)
    state = fresh.load(found)
    assert state is not None
    assert torch.equal(state["model"]["w"], torch.ones(2))


def test_damaged_progress_is_refused(tmp_path: Path) -> None:
    storage.write_json(tmp_path / "checkpoints" / "progress.json", {"format": "microg-train/1", "colour": 3})
    with pytest.raises(DatasetError, match=r"progress\.json"):
        RunFiles(str(tmp_path)).progress()


def test_a_block_out_of_turn_is_noticed(undisturbed: Undisturbed) -> None:
    setup, _, _ = undisturbed
    mixed = iter([*list(local_blocks(setup, Position()))[1:2]])
    with pytest.raises(WorkerError, match=r"unit 0 .* was due, 1 came"):
        next(pieces(mixed, setup.context.plan, 0, Position(), setup.context.views, MICROG_50))


def test_a_clip_that_cannot_be_decoded_is_left_out_counted_and_named(dataset: Path, tmp_path: Path) -> None:
    setup = check_and_plan(tiny_config(epochs=1, validation={"every": 1}), str(dataset), str(tmp_path / "run"))
    rows = setup.train_rows.to_pylist()
    rows[0]["uri"] = str(tmp_path / "gone.mp4")
    broken = replace(setup, train_rows=pa.Table.from_pylist(rows, schema=setup.train_rows.schema))
    finished, loop = run_alone(broken)
    assert finished
    row = loop.progress.history[0]
    assert (row["clips"], row["failed"]) == (7, 1)
    assert [failure.split(" ")[0] for failure in loop.progress.failures] == [rows[0]["key"]]


def test_a_batch_without_any_clip_ends_training_with_the_reason(dataset: Path, tmp_path: Path) -> None:
    setup = check_and_plan(tiny_config(epochs=1), str(dataset), str(tmp_path / "run"))
    rows = [{**row, "uri": str(tmp_path / "gone.mp4")} for row in setup.train_rows.to_pylist()]
    broken = replace(setup, train_rows=pa.Table.from_pylist(rows, schema=setup.train_rows.schema))
    with pytest.raises(TrainingError, match=r"no sample of a batch.*gone\.mp4"):
        run_alone(broken)


def test_errors_of_the_thread_that_prepares_samples_come_through() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise WorkerError("broken")

    items = ahead(source(), 2)
    assert next(items) == 1
    with pytest.raises(WorkerError, match="broken"):
        next(items)


def test_validation_with_whole_frames_of_different_sizes_scores_all(dataset: Path, tmp_path: Path) -> None:
    changed = tiny_config(epochs=1, validation={"every": 1, "geometry": "test"})
    setup = check_and_plan(changed, str(dataset), str(tmp_path / "run"))
    rows = setup.context.val_rows.to_pylist()
    wide = write_video(tmp_path / "wide.mp4", moving_scene(1, width=160))
    rows[1]["uri"] = str(wide)
    val_rows = pa.Table.from_pylist(rows, schema=setup.context.val_rows.schema)
    finished, loop = run_alone(replace(setup, context=replace(setup.context, val_rows=val_rows)))
    assert finished
    assert loop.progress.history[0]["val_boxes"] == 4


def test_truth_taken_from_key_frames_is_that_of_the_dataset(dataset: Path, tmp_path: Path) -> None:
    setup = check_and_plan(tiny_config(), str(dataset), str(tmp_path / "run"))
    rows = setup.context.val_rows
    from_rows = val_truth(str(tmp_path), setup.config, rows)
    assert sorted(map(str, from_rows.drop(["row"]).to_pylist())) == sorted(
        map(str, setup.context.val_truth.drop(["row"]).to_pylist())
    )


def test_training_on_whole_frames_of_different_sizes_uses_all(dataset: Path, tmp_path: Path) -> None:
    setup = check_and_plan(tiny_config(epochs=1, train_geometry="frame"), str(dataset), str(tmp_path / "run"))
    rows = setup.train_rows.to_pylist()
    for row in rows[::3]:
        row["uri"] = str(write_video(tmp_path / f"{row['clip_id']}.mp4", moving_scene(1, width=160)))
    mixed = replace(setup, train_rows=pa.Table.from_pylist(rows, schema=setup.train_rows.schema))
    finished, loop = run_alone(mixed)
    assert finished
    assert (loop.progress.history[0]["clips"], loop.progress.history[0]["failed"]) == (TRAIN, 0)


def test_initial_weights_may_lie_in_a_bucket(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "up").mkdir()
    save_weights(build("TINY"), str(tmp_path / "up" / "tiny.pt"))
    with object_store() as store:
        uri = f"{upload(tmp_path / 'up', store.bucket())}/tiny.pt"
        setup = check_and_plan(tiny_config(weights={"file": uri}), str(dataset), str(tmp_path / "run"))
        assert setup.context.weights == uri
        assert setup.config.weights.sha256 == storage.sha256(tmp_path / "up" / "tiny.pt")[:16]
        assert setup.load_report()["missing"] == ()
        with pytest.raises(WeightsError, match="are not there"):
            check_and_plan(tiny_config(weights={"file": f"{uri}.other"}), str(dataset), str(tmp_path / "run"))
