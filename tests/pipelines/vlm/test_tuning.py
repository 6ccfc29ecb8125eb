"""A model that is tuned: the same run however many processes share it, and after a stop; what comes out is served."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from microg import storage
from microg.data import schema
from microg.data.dataset import Dataset
from microg.errors import ConfigError, DatasetError
from microg.models.vlm.engines.transformers import TransformersEngine
from microg.pipelines.core.training.checkpoints import RunFiles
from microg.pipelines.vlm.train.merge import merge_run, settings_of, tuned_model
from microg.pipelines.vlm.train.run import COMMAND, check_and_plan
from microg.pipelines.vlm.train.settings import TuneSettings
from microg.runs import Run
from tests.support.helpers import make_dataset
from tests.support.processes import ROOT
from tests.support.s3_server import object_store, upload
from tests.support.tuning_worker import tune_here


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("tuned") / "data"
    made = make_dataset(root)
    clips = made.table("clips")["clip_id"].to_pylist()
    rows = [{"clip_id": clip, "split": "val" if clip == clips[0] else "train", "scheme": "source"} for clip in clips]
    made.write("splits", schema.from_rows("splits", rows))
    return str(root)


def job(model: Path, dataset: str, root: Path | str, **settings: Any) -> dict[str, Any]:
    own = {
        "model": str(model),
        "epochs": 2,
        "batch": 2,
        "frames": {"kind": "uniform", "count": 2},
        "schedule": {"policy": "cosine", "lr": 0.01, "warmup_epochs": 0},
        "validation": {"generate": 1, "max_tokens": 6},
        "adapter": {"rank": 4},
        "tensorboard": False,
    }
    return {"settings": {**own, **settings}, "dataset": dataset, "root": str(root)}


def learnt(root: Path) -> dict[str, torch.Tensor]:
    return RunFiles(str(root)).load_best()


def history(root: Path) -> list[dict[str, Any]]:
    return storage.read_parquet(str(root / "tables" / "vlm_train.parquet")).to_pylist()


@pytest.fixture(scope="module")
def one(dataset: str, tiny_vlm: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("one") / "run"
    assert tune_here(job(tiny_vlm("qwen2_5_vl"), dataset, root))
    return root


def test_the_loss_falls_and_the_best_epoch_is_written_in_pefts_layout(one: Path) -> None:
    first, second = history(one)
    assert second["loss"] < first["loss"]
    assert second["val_loss"] < first["val_loss"]
    assert (first["clips"], first["val_clips"], first["val_answers"]) == (2, 1, 7)
    assert first["tokens"] > 100
    assert 0 <= first["val_rouge_l"] <= 1
    assert [row["best"] for row in (first, second)] == [True, True]
    assert {path.name for path in (one / "adapter").iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}


@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_two_processes_tune_the_model_of_one(
    sharding: str, one: Path, dataset: str, tiny_vlm: Callable[[str], Path], tmp_path: Path
) -> None:
    work = tmp_path / "job.json"
    work.write_text(json.dumps(job(tiny_vlm("qwen2_5_vl"), dataset, tmp_path / "run", sharding=sharding)))
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.tuning_worker", str(work), str(rank), "2"],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in started:
        _, error = process.communicate(timeout=200)
        assert process.returncode == 0, error
    for mine, other in zip(history(tmp_path / "run"), history(one), strict=True):
        for name in ("loss", "tokens", "clips", "val_loss", "val_answers", "val_rouge_l"):
            assert mine[name] == pytest.approx(other[name], rel=1e-4), name
    mine, other = learnt(tmp_path / "run"), learnt(one)
    assert mine.keys() == other.keys()
    for name, value in other.items():
        torch.testing.assert_close(mine[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    one: Path, dataset: str, tiny_vlm: Callable[[str], Path], tmp_path: Path
) -> None:
    work = job(tiny_vlm("qwen2_5_vl"), dataset, tmp_path / "run")
    assert not tune_here({**work, "stop_after": 1})
    assert RunFiles(work["root"]).progress().iteration == 1
    assert tune_here(work)
    mine, other = learnt(tmp_path / "run"), learnt(one)
    assert all(torch.equal(mine[name], value) for name, value in other.items())
    assert [row["loss"] for row in history(tmp_path / "run")] == [row["loss"] for row in history(one)]


def test_a_clip_that_cannot_be_read_is_left_out_with_its_reason(
    dataset: str, tiny_vlm: Callable[[str], Path], tmp_path: Path
) -> None:
    broken = tmp_path / "data"
    made = make_dataset(broken)
    splits = Dataset.open(dataset).table("splits")
    made.write("splits", splits)
    train = splits.filter(splits["split"].to_pandas().eq("train").to_numpy())["clip_id"].to_pylist()
    (broken / "videos" / f"{train[0]}.mp4").write_bytes(b"no video")
    assert tune_here(job(tiny_vlm("qwen2_5_vl"), str(broken), tmp_path / "run", batch=3, epochs=1))
    assert history(tmp_path / "run")[0]["failed"] == 1
    assert RunFiles(str(tmp_path / "run")).progress().failures[0].startswith(f"{train[0]}: ")


def _as_run(root: Path | str, work: dict[str, Any]) -> None:
    """Give a run that was made without Ray the records of one."""
    setup = check_and_plan(TuneSettings.model_validate(work["settings"]), work["dataset"], str(root))
    run = Run.start(str(root), COMMAND, setup.settings, dataset=setup.lessons.fingerprint)
    progress = RunFiles(str(root)).progress()
    lessons = {split: setup.lessons.count(split) for split in ("train", "val")}
    run.finish({"model": setup.card.name, "epochs": progress.epoch, "best": progress.best, "lessons": lessons})


def test_a_run_is_merged_once_into_a_checkpoint_that_answers_and_tells_what_it_is(
    one: Path, dataset: str, tiny_vlm: Callable[[str], Path], tmp_path: Path
) -> None:
    _as_run(one, job(tiny_vlm("qwen2_5_vl"), dataset, one))
    assert settings_of(str(one)).method == "lora"
    model = tuned_model(str(one))
    report = storage.read_json(f"{model}/merge.json")
    assert report["merged"] > 0
    assert report["same_choice"] == 1.0
    assert json.loads((Path(model) / "microg.json").read_text())["frames"]["count"] == 2
    page = (Path(model) / "README.md").read_text()
    assert "adapters of rank 4" in page
    assert "split scheme `source`" in page
    assert TransformersEngine(model).load() is not None
    stamp = (Path(model) / "merge.json").stat().st_mtime_ns
    assert tuned_model(str(one)) == model
    assert (Path(model) / "merge.json").stat().st_mtime_ns == stamp
    (Path(model) / "config.json").unlink()  # a merge that was killed: the configuration comes last
    assert tuned_model(str(one)) == model
    assert TransformersEngine(model).load() is not None
    mine = tmp_path / "mine" / "thesis.txt"
    mine.parent.mkdir()
    mine.write_text("not a model")
    with pytest.raises(ConfigError, match="holds other files"):
        merge_run(str(one), str(mine.parent))
    assert mine.read_text() == "not a model"


def test_a_run_on_an_object_store_is_the_local_one_and_its_merged_model_answers(
    one: Path, dataset: str, tiny_vlm: Callable[[str], Path]
) -> None:
    with object_store() as store:
        bucket = store.bucket()
        data = upload(Path(dataset), f"{bucket}/data")
        root = f"{bucket}/run"
        work = job(tiny_vlm("qwen2_5_vl"), data, root)
        assert tune_here(work)
        mine, other = RunFiles(root).load_best(), learnt(one)
        assert all(torch.equal(mine[name], value) for name, value in other.items())
        _as_run(root, work)
        model = tuned_model(root)
        assert model == f"{root}/model"
        assert storage.read_json(f"{model}/merge.json")["same_choice"] == 1.0
        assert TransformersEngine(model).load() is not None


def test_method_full_writes_a_checkpoint(dataset: str, tiny_vlm: Callable[[str], Path], tmp_path: Path) -> None:
    work = job(tiny_vlm("llava_onevision"), dataset, tmp_path / "run", method="full", epochs=1)
    assert tune_here(work)
    _as_run(tmp_path / "run", work)
    model = tuned_model(str(tmp_path / "run"))
    assert TransformersEngine(model).load() is not None
    with pytest.raises(ConfigError, match="nothing is to be merged"):
        merge_run(str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": ""}, "which model to tune is missing"),
        ({"model": "gpt-4o"}, "is a provider's model"),
        ({"validation": {"select": "beauty"}}, "cannot be chosen by 'beauty'"),
        ({"batch": 99}, "fewer than one batch of 99"),
    ],
)
def test_what_cannot_be_tuned_is_refused_before_anything_starts(
    changes: dict[str, Any], says: str, dataset: str, tiny_vlm: Callable[[str], Path], tmp_path: Path
) -> None:
    work = job(tiny_vlm("qwen2_5_vl"), dataset, tmp_path / "run")
    with pytest.raises(ConfigError, match=says):
        check_and_plan(TuneSettings.model_validate({**work["settings"], **changes}), dataset, work["root"])
    assert not (tmp_path / "run").exists()


def test_a_split_without_texts_is_refused(dataset: str, tiny_vlm: Callable[[str], Path], tmp_path: Path) -> None:
    silent = make_dataset(tmp_path / "data", lambda rows: rows.update(captions=[], qa=[]), videos=False)
    silent.write("splits", Dataset.open(dataset).table("splits"))
    work = job(tiny_vlm("qwen2_5_vl"), silent.root, tmp_path / "run")
    with pytest.raises(DatasetError, match="has no caption or vqa to learn from"):
        check_and_plan(TuneSettings.model_validate(work["settings"]), silent.root, work["root"])
