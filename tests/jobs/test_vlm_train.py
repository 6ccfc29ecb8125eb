"""`microg vlm train` on Ray: a model is tuned, a finished run says so, what it learnt answers with its frames."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from microg import storage
from microg.data import schema
from tests.support.helpers import make_dataset
from tests.support.processes import microg

SETTINGS = ("--scheme", "source", "--batch", "3", "--epochs", "2", "--frames", "uniform:3", "--set", "adapter.rank=4")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("train") / "data"
    made = make_dataset(root)
    clips = made.table("clips")["clip_id"].to_pylist()
    rows = [{"clip_id": clip, "split": "val" if clip == clips[0] else "train", "scheme": "source"} for clip in clips]
    made.write("splits", schema.from_rows("splits", rows))
    return root


def test_a_model_is_tuned_on_ray_and_answers_with_the_frames_that_it_learnt_from(
    dataset: Path,
    tiny_vlm: Callable[[str], Path],
    tmp_path: Path,
    ray_session: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, answers = tmp_path / "tuned", tmp_path / "answers"
    words = ["vlm", "train", dataset, "--model", tiny_vlm("qwen2_5_vl"), *SETTINGS, "--run", run]
    assert microg(*words, "--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["train"], plan["steps_per_epoch"]) == ({"clips": 3, "captions": 3, "answers": 18}, 1)
    assert microg(*words) == 0
    printed = capsys.readouterr()
    assert f"next: microg vlm generate --adapter {run}" in printed.out
    assert "vlm train: 2/2 steps" in printed.err
    rows = storage.read_parquet(str(run / "tables" / "vlm_train.parquet")).to_pylist()
    assert [(row["epoch"], row["clips"], row["val_answers"]) for row in rows] == [(1, 3, 7), (2, 3, 7)]
    assert microg(*words) == 0
    assert "is finished: 2 epochs" in capsys.readouterr().out
    assert microg(*words, "--epochs", "3") == 2
    assert "was made with other settings: config.epochs" in capsys.readouterr().err

    generate = ["vlm", "generate", "--adapter", run, "--engine", "transformers", "--dataset", dataset, "--run", answers]
    assert microg(*generate, "--set", "sampling.max_tokens=4", "--set", "resources.max_actors=1") == 0
    said = storage.read_parquet(str(answers / "tables" / "generations.parquet")).to_pylist()
    assert len(said) == 28
    assert {len(row["frame_indices"]) for row in said} == {3}
    assert microg(*generate, "--model", "gpt-4o") == 2
    assert "--adapter names the tuned model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "which model to tune is missing"),
        (("--model", "nobody"), "there is no model 'nobody'"),
        (("--model", "gpt-4o"), "is a provider's model"),
        (("--model", "qwen2.5-vl-7b", "--task", "screening"), "screenings have no true answers"),
        (("--model", "qwen2.5-vl-7b", "--method", "magic"), "'lora', 'qlora' or 'full'"),
        (("--model", "qwen2.5-vl-7b", "--num-workers", "3"), "cannot be shared by 3 workers"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    words: tuple[str, ...], says: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert microg("vlm", "train", dataset, *words, "--run", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_what_is_no_run_of_a_tuning_is_not_merged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert microg("vlm", "merge", tmp_path / "run") == 2
    assert "is no run of 'microg vlm train'" in capsys.readouterr().err
