"""Two commands on one folder: every command that writes one holds it, and the second is refused before it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from microg.data.dataset import Dataset
from microg.jobs import cli, common
from microg.locks import exclusive, exclusive_file
from tests.support.command_line import refused
from tests.support.jhmdb import jhmdb_dataset as jhmdb
from tests.support.scored_runs import predict_run, said_file, scored_dataset

assert cli  # which registers the commands

# Commands that write nothing, or one file, which is replaced as a whole: and the download, which has a lock of its own.
_WITHOUT = {
    "data download",
    "data page",
    # what they write in a dataset they hold a moment at a time (tests/jobs/test_data_servers.py)
    "data pull",
    "data push",
    "data validate",
    "data vocabulary show",
    "doctor",
    "har forward",
    "review",  # refuses a second one of its own (tests/review); what it adds to a dataset waits for other commands
    "vlm models",
    "vlm prompts",
}


@dataclass(frozen=True)
class Folders:
    """What there is to work on: `data` is a dataset, `run` has predictions, `said` answers, `model` is a language
    model, `out` is not there yet.
    """

    data: str
    run: str
    said: str
    model: str
    out: str


_CLIP = ("--batch", "1")
_ONE = ("--set", "batch=1", "--set", "micro_batch=1")
# By command: its words after its name. They write to `out`, or to `data` where `out` is not among them.
_WORDS: dict[str, Callable[[Folders], list[str]]] = {
    "curate": lambda f: [f.data, f.out, "--weights", "none.pt"],
    "data accept": lambda f: [f.run, f.data],
    "data adjudicate": lambda f: [f.data],
    "data agreement": lambda f: [f.data, "--run", f.out],
    "data annotate-synthetic": lambda f: [f.data, "footage"],
    "data export": lambda f: ["coco", f.data, f.out],
    "data export-sft": lambda f: [f.data, f.out, "--scheme", "published"],
    "data import": lambda f: ["coco", "annotations", f.out],
    "data make-qa": lambda f: [f.data, "--model", "m", "--url", "http://127.0.0.1:9/v1", "--run", f.out],
    "data label-qa": lambda f: [f.data, "--model", "m", "--url", "http://127.0.0.1:9/v1", "--run", f.out],
    "data split": lambda f: [f.data],
    "data stats": lambda f: [f.data, "--out", f.out],
    "data synth": lambda f: [f.out],
    "data vocabulary map": lambda f: [f.data, "12", "ava80", "none"],
    "data vocabulary merge": lambda f: [f.data, "45", "--into", "46"],
    "data vocabulary rename": lambda f: [f.data, "12", "upright"],
    "data vocabulary set": lambda f: [f.data, "microg50"],
    "data vocabulary split": lambda f: [f.data, "12", "stand still", "stand up"],
    "demo": lambda f: ["--out", f.out],
    "har predict": lambda f: [f.data, "--run", f.out, "--model", "TINY", "--weights", f"{f.run}/tiny.pt"],
    "har score": lambda f: ["--predictions", f.run, "--groundtruth", f.data, "--run", f.out],
    "har sweep": lambda f: [f.data, "--recipe", "tiny", *_ONE, "--run", f.out],
    "har transfer": lambda f: ["--jhmdb", f"{f.run}/jhmdb", "--microg", f.data, "--run", f.out, "--weights", "x.pt"],
    "har train": lambda f: [f.data, "--recipe", "tiny", *_ONE, "--run", f.out],
    "report": lambda f: [f.run, "--out", f"{f.out}/report.html"],
    "vlm convert": lambda f: [f.run, f.out],
    "vlm generate": lambda f: ["--dataset", f.data, "--model", "m", "--url", "http://127.0.0.1:9/v1", "--run", f.out],
    "vlm score": lambda f: ["--predictions", f.said, "--references", f.data, "--out", f.out, "--metrics", "rouge_l"],
    "vlm merge": lambda f: [f.run, "--out", f.out],
    "vlm train": lambda f: [f.data, "--model", f.model, "--scheme", "published", *_CLIP, "--run", f.out],
    "vlm train-tiny": lambda f: [f.data, "--run", f.out],
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    from microg.demo.tiny_models import build as build_tiny
    from microg.models.har.backbones.registry import build
    from microg.models.har.checkpoints import save_weights

    root = tmp_path_factory.mktemp("two")
    data = scored_dataset(root / "data")
    _spread_over_splits(data)
    run = predict_run(root / "run", data, seed=0)
    jhmdb(run / "jhmdb")
    save_weights(build("TINY", roi_scale="true", num_classes=50), str(run / "tiny.pt"), label_space="microg50")
    said = said_file(root / "said.json", data, 1.0, 0)
    model = build_tiny("qwen2_5_vl", root / "model")
    return Folders(str(root / "data"), str(run), str(said), str(model), "")


def _spread_over_splits(data: Dataset) -> None:
    """Put a clip each into train and val too, so that there is something to train on."""
    rows = data.table("splits").to_pylist()
    published = [row for row in rows if row["scheme"] == "published"]
    for row, split in zip(published, ("train", "val"), strict=False):
        row["split"] = split
    from microg.data import schema

    data.write("splits", schema.from_rows("splits", rows))


def test_every_command_is_known_to_hold_what_it_writes_or_to_need_not():
    assert {info.words for info in common.COMMANDS.values()} == _WORDS.keys() | _WITHOUT
    assert not _WORDS.keys() & _WITHOUT


@pytest.mark.parametrize("command", _WORDS)
def test_the_second_command_on_a_folder_is_refused(
    command: str, folders: Folders, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")
    monkeypatch.chdir(tmp_path)
    folders = replace(folders, out=str(tmp_path / "out"))
    words = _WORDS[command](folders)
    held = folders.out if any(word.startswith(folders.out) for word in words) else folders.data
    page = next((word for word in words if word.endswith(".html")), None)
    if command == "vlm convert":  # its folder is made in whole at the end
        page = folders.out
    with exclusive(held) if page is None else exclusive_file(page):
        message = refused(monkeypatch, capsys, *command.split(), *words)
    assert message.startswith(f"error: another process is writing to {page or held}\n")
