"""`microg vlm train-tiny`: a model that serves, the same bits after a kill, and what it refuses."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from microg import storage
from microg.demo.tiny_vlm.batches import shares
from microg.demo.tiny_vlm.lessons import Lesson, answered_by_actions, discriminative_words
from microg.demo.tiny_vlm.settings import VlmTrainSettings
from microg.demo.tiny_vlm.train import train
from microg.errors import ConfigError, DatasetError
from microg.models.vlm.cards import folder_card
from microg.models.vlm.engines.transformers import TransformersEngine
from microg.models.vlm.frames import sample_frames
from microg.models.vlm.prompts import prompt
from microg.models.vlm.sampling import parse_policy
from microg.pipelines.core.training.checkpoints import RunFiles
from tests.support.helpers import make_dataset
from tests.support.processes import microg, start_microg, wait_for

SETTINGS: dict[str, Any] = {
    "scheme": "source",
    "epochs": 2,
    "vision_epochs": 1,
    "batch": 1,
    "views": 2,
    "validate_every": 1,
    "checkpoint_every_s": 1e-6,
    "frames": {"kind": "uniform", "count": 2},
    "threads": 1,
    "device": "cpu",
    "size": {"hidden": 64, "heads": 2, "kv_heads": 1, "vision_hidden": 32, "vision_heads": 2, "vision_layers": 1},
    "schedule": {"policy": "cosine", "lr": 3e-3, "warmup_epochs": 0.5, "after_warmup": True},
}


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("vlm_train") / "data"
    make_dataset(root)
    return str(root)


@pytest.fixture(scope="module")
def trained(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return train(VlmTrainSettings(**SETTINGS), dataset, str(tmp_path_factory.mktemp("vlm_train") / "run"))


@pytest.mark.parametrize("at", [("look", 0), ("train", 2)])
def test_a_stopped_training_goes_on_to_the_same_bits(
    dataset: str, trained: dict[str, Any], tmp_path: Path, at: tuple[str, int]
):
    said: list[dict[str, Any]] = []

    def stop(event: dict[str, Any]) -> None:
        said.append(event)
        # after a checkpoint in mid-epoch
        if event["phase"] == at[0] and (event["epoch"], event["step"]) == (at[1], 2):
            raise Stop

    folder = str(tmp_path / "run")
    with pytest.raises(Stop):
        train(VlmTrainSettings(**SETTINGS), dataset, folder, stop)
    assert not (tmp_path / "run" / "model").exists()
    again = train(VlmTrainSettings(**SETTINGS), dataset, folder, said.append)
    steps = [(event["phase"], event["epoch"], event["step"]) for event in said if event["phase"] != "read"]
    once = [("look", 0, 1), ("look", 0, 2), ("train", 1, 1), ("train", 1, 2), ("train", 2, 1), ("train", 2, 2)]
    assert steps == sorted([*once, (*at, 2)])
    for name in ("model.safetensors", "tokenizer.json", "microg.json"):
        assert storage.sha256(f"{again['model']}/{name}") == storage.sha256(f"{trained['model']}/{name}")
    assert [row["loss"] for row in again["history"]] == [row["loss"] for row in trained["history"]]
    assert not (tmp_path / "run" / "checkpoints" / "frames").exists()
    finished = train(
        VlmTrainSettings(**SETTINGS), dataset, folder, lambda event: pytest.fail(f"trained again: {event}")
    )
    assert finished["already_finished"]


@pytest.mark.slow
def test_a_killed_training_is_resumed_by_the_same_command_to_the_same_bits(dataset: str, tmp_path: Path):
    settings = [f"--set={name}={json.dumps(value)}" for name, value in (SETTINGS | {"epochs": 30}).items()]
    words = ["vlm", "train-tiny", dataset, *settings, "--run"]
    files, log = RunFiles(str(tmp_path / "killed")), tmp_path / "log"
    process = start_microg(log, *words, tmp_path / "killed")
    # a checkpoint follows every step: soon after this one the next step is under way
    wait_for(lambda: files.progress().epoch >= 2 and files.progress().iteration == 1, process, log)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "model").exists()
    assert 0 < files.progress().epoch < 31
    for run in ("killed", "undisturbed"):
        assert start_microg(log, *words, tmp_path / run).wait(timeout=280) == 0, log.read_text()
    same = [storage.sha256(str(tmp_path / run / "model" / "model.safetensors")) for run in ("killed", "undisturbed")]
    assert same[0] == same[1]
    losses = [
        [row["loss"] for row in RunFiles(str(tmp_path / run)).progress().history] for run in ("killed", "undisturbed")
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 31


def test_a_model_that_learnt_a_few_clips_repeats_their_answers_where_it_is_served(dataset: str, tmp_path: Path):
    settings = VlmTrainSettings(
        **SETTINGS
        | {
            "epochs": 40,
            "batch": 2,
            "checkpoint_every_s": 60,
            "validate_every": 40,
            "tasks": ("vqa",),
            "move": 0,
            "mirror": False,
            "views": 1,
        }
    )
    result = train(settings, dataset, str(tmp_path / "run"))
    losses = [row["loss"] for row in result["history"]]
    assert losses[-1] < 0.1 * losses[0]
    card = folder_card(result["model"])
    assert card.frames == settings.frames  # it is asked as it was trained
    engine = TransformersEngine(result["model"], device="cpu", threads=1)
    from microg.data.dataset import Dataset

    rows = [
        row for row in Dataset.open(dataset).table("qa").to_pylist() if row["clip_id"] in ("filmA_000", "filmA_001")
    ]
    requests = []
    for row in rows:
        [shown] = sample_frames(f"{dataset}/videos/{row['clip_id']}.mp4", [card.frames])
        requests.append(prompt("vqa-v1").request(row["answer"], shown, question=row["question"]))
    replies = list(engine.generate(requests, prompt_sampling()))
    assert sum(reply.text == reply.key for reply in replies) >= len(rows) - 1


def prompt_sampling() -> Any:
    from microg.models.vlm.base import Sampling

    return Sampling(max_tokens=24)


def test_a_damaged_clip_is_left_out_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    make_dataset(tmp_path / "data")
    (tmp_path / "data" / "videos" / "filmA_000.mp4").write_bytes(b"no video")
    options = [
        f"--set={name}={json.dumps(value)}" for name, value in SETTINGS.items() if name not in ("scheme", "epochs")
    ]
    arguments = (
        "vlm",
        "train-tiny",
        tmp_path / "data",
        "--run",
        tmp_path / "run",
        "--scheme=source",
        "--epochs=1",
        *options,
    )
    assert microg(*arguments, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["complete"]
    assert len(found["failures"]) == 1
    assert "filmA_000" in found["failures"][0]
    assert microg(*arguments[:-1], "--set=seed=5") == 2  # another configuration under the same name
    assert "another run name" in capsys.readouterr().err


def test_what_cannot_be_taught_is_refused_with_a_reason(
    dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(DatasetError, match="no split of scheme 'published'"):
        train(VlmTrainSettings(**SETTINGS | {"scheme": "published"}), dataset, str(tmp_path / "run"))
    with pytest.raises(ConfigError, match="local"):
        train(VlmTrainSettings(**SETTINGS), dataset, "s3://bucket/run")
    assert microg("vlm", "train-tiny", dataset, "--scheme=source", "--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["clips"] == {"train": 2, "val": 1}
    assert plan["lessons"] == {"other": 8, "count": 2, "unanswerable": 2, "caption": 2}
    assert microg("vlm", "train-tiny", dataset, "--scheme=source", "--dry-run", "--set=frames={kind: dense}") == 0
    assert "frames: dense" in capsys.readouterr().out  # without the keys of the default policy
    assert microg("vlm", "train-tiny", dataset, "--scheme=source", "--dry-run", "--set=frames.kind=dense") == 0
    assert microg("vlm", "train-tiny", dataset, "--set=size.hidden=100", "--dry-run") == 2
    assert "multiple" in capsys.readouterr().err


def test_labels_answer_a_question_only_where_they_never_failed():
    yes, no = (Lesson("vqa", "Is anyone waving?", answer, "yes/no") for answer in ("Yes.", "No."))
    said = {f"c{index}": [yes if index < 3 else no] for index in range(6)}
    shown = {f"c{index}": frozenset({69, 12} if index < 3 else {12}) for index in range(6)}
    assert answered_by_actions(said, shown) == {"Is anyone waving?": (69, yes, no)}
    assert answered_by_actions(said, shown | {"c5": frozenset({12, 69})}) == {}  # labelled so, and yet the answer is no
    assert answered_by_actions(said, {clip: ids | ({70} if 69 in ids else set()) for clip, ids in shown.items()}) == {}
    assert answered_by_actions(dict(list(said.items())[:5]), shown) == {}  # too little to tell


def test_words_that_tell_clips_apart_are_taken_from_captions_and_answers_that_name_something():
    def clip(colour: str, doing: str) -> list[Lesson]:
        return [
            Lesson("caption", None, f"In the galley, a person in {colour} is {doing}.", "caption"),
            Lesson("vqa", "What is it?", f"{colour}!", "other"),
            Lesson("vqa", "How many?", "Seven.", "count"),
        ]

    said = [clip("red" if index < 4 else "blue", "waving" if index % 2 else f"doing-{index}") for index in range(8)]
    # all are in the galley; what is done once is too rare to be learnt
    assert discriminative_words(said) == ("blue", "doing", "red", "waving")
    assert discriminative_words([]) == ()


def test_views_are_taken_earlier_and_later():
    from microg.demo.tiny_vlm.batches import ShiftedPolicy

    policy = parse_policy("uniform:4:middles")
    assert [ShiftedPolicy(policy, share).indices(90, 30) for share in shares(3)] == [
        [11, 33, 56, 78],
        [17, 39, 62, 84],
        [5, 27, 50, 72],
    ]
    assert ShiftedPolicy(parse_policy("uniform:2"), 0.5).indices(10, 30) == [4, 9]
