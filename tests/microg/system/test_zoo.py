"""Weights by name: the list itself, and how they are fetched, checked and kept."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from microg.config import recipe_path
from microg.errors import WeightsError
from microg.locks import lock
from microg.system import transfer, zoo
from microg.system.zoo import locate_weights, require_weights
from tests.support.command_line import refused
from tests.support.file_server import FileServer, serve_files
from tests.support.hub_server import FakeHub, serve

BYTES = bytes(range(256)) * 12_000  # 3 MB: several blocks
NAME, OPEN_NAME = "small.pt", "open.pt"  # with a known checksum, and without


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FileServer]:
    fields = {"kind": "detector", "about": "made by a test", "licence": "MIT", "url": "https://nowhere.invalid/file"}
    known = zoo.Entry.model_validate(fields | {"size": len(BYTES), "sha256": hashlib.sha256(BYTES).hexdigest()})
    unknown = zoo.Entry.model_validate(fields | {"about_mb": 3})
    monkeypatch.setattr(zoo, "entries", lambda: {NAME: known, OPEN_NAME: unknown})
    monkeypatch.setattr(transfer, "_BACKOFF_S", 0.01)
    for variable in ("MICROG_OFFLINE", "HF_HUB_OFFLINE", "MICROG_WEIGHTS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with serve_files(FileServer({NAME: BYTES, OPEN_NAME: BYTES})) as running:
        monkeypatch.setenv("MICROG_WEIGHTS_MIRROR", running.url)
        yield running


def test_every_recipe_starts_from_weights_that_have_a_name():
    private = {"C2D_8x8_R50_NLN.pkl"}  # of the published run of C2D NLN: it is in no public zoo
    used = set()
    for path in Path(recipe_path("x3d_s")).parent.glob("*.yaml"):
        train = yaml.safe_load(path.read_text()).get("train") or {}
        variants = [train, *(train.get("variants") or {}).values()]
        used |= {each["weights"]["file"] for each in variants if (each.get("weights") or {}).get("file")}
    assert used - set(zoo.entries()) == private
    detector = yaml.safe_load(Path(recipe_path("curate")).read_text())["detector"]["weights"]
    assert detector in zoo.entries()


def test_a_permissive_detector_and_the_papers_fine_tuned_weights_are_in_the_zoo():
    entries = zoo.entries()
    licences = {name: entry.licence for name, entry in entries.items() if entry.kind == "detector"}
    assert {f"yolo11{size}.pt" for size in "nsmlx"} <= set(licences)
    assert "Apache-2.0" in licences.values()
    assert zoo.known("LEI-QI-233/MicroG-4M-models") == "MicroG-4M-models"
    assert zoo.known("roberta-large")
    assert zoo.known("sentence-transformers/all-MiniLM-L6-v2")


def test_weights_are_fetched_once_with_their_licence_told(server: FileServer, capsys: pytest.CaptureFixture[str]):
    path = require_weights(NAME)
    assert path.read_bytes() == BYTES
    said = capsys.readouterr().err
    assert "licence MIT" in said
    assert "3.1 MB" in said
    assert locate_weights(NAME) == str(path)
    assert server.ranges == [None]
    assert capsys.readouterr().err == ""


def test_a_path_is_taken_as_it_is(server: FileServer, tmp_path: Path):
    path = tmp_path / "some" / NAME
    path.parent.mkdir()
    path.write_bytes(b"mine")
    assert require_weights(str(path)) == path
    assert require_weights(f"some/{NAME}") == path
    with pytest.raises(WeightsError, match="are not in any of"):
        require_weights(str(tmp_path / "nothing.pt"))
    assert server.ranges == []


def test_a_dropped_connection_goes_on_and_so_does_a_new_process(server: FileServer):
    server.drop_after[NAME] = 2_000_000
    assert zoo.fetch(NAME).read_bytes() == BYTES
    assert server.ranges[1] is not None
    assert server.ranges[1] != "bytes=0-"
    zoo.place(NAME).unlink()
    part = zoo.place(NAME).parent / ".download" / f"{NAME}.part"
    part.write_bytes(BYTES[:1_000_000])  # as a killed process leaves it
    assert zoo.fetch(NAME).read_bytes() == BYTES
    assert server.ranges[2] == "bytes=1000000-"
    zoo.place(NAME).unlink()
    part.write_bytes(BYTES)  # killed after the last byte
    assert zoo.fetch(NAME).read_bytes() == BYTES


def test_a_part_of_another_file_is_fetched_again_from_its_start(server: FileServer):
    part = zoo.place(NAME).parent / ".download" / f"{NAME}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"?" * 1_000_000)
    assert zoo.fetch(NAME).read_bytes() == BYTES
    assert server.ranges == ["bytes=1000000-", None]


def test_weights_that_are_not_what_their_publisher_says_are_refused(server: FileServer):
    server.files[NAME] = BYTES[:-1] + b"!"
    with pytest.raises(WeightsError, match=r"small\.pt from .* is not what it should be"):
        require_weights(NAME)
    assert not zoo.place(NAME).exists()


def test_without_a_known_checksum_what_came_first_is_recorded_and_checked(server: FileServer):
    path = require_weights(OPEN_NAME)
    record = json.loads(path.with_name(f"{OPEN_NAME}.json").read_text())
    assert record["sha256"] == hashlib.sha256(BYTES).hexdigest()
    path.write_bytes(BYTES[:-1] + b"!")
    with pytest.raises(WeightsError, match="is damaged"):
        require_weights(OPEN_NAME)
    path.unlink()
    server.files[OPEN_NAME] = BYTES[:-1] + b"?"  # the publisher's file is another one now
    with pytest.raises(WeightsError, match="is not what it should be"):
        require_weights(OPEN_NAME)


@pytest.mark.parametrize("how", ["offline", "nobody"])
def test_what_cannot_be_fetched_is_one_line_with_its_address_and_place(
    server: FileServer, how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    if how == "offline":
        monkeypatch.setenv("MICROG_OFFLINE", "1")
    else:
        monkeypatch.setenv("MICROG_WEIGHTS_MIRROR", "http://127.0.0.1:9")
    said = refused(monkeypatch, capsys, "data", "download", "weights", NAME)
    assert zoo.address(NAME) in said
    assert str(zoo.place(NAME).parent) in said
    assert "licence MIT" in said
    assert {"offline": "no network is used", "nobody": "does not answer"}[how] in said


def test_an_answer_that_is_no_file_is_told_with_its_status(server: FileServer):
    server.status = 404
    with pytest.raises(WeightsError, match=r"small\.pt is not on this machine and cannot be fetched .* HTTP 404"):
        require_weights(NAME)


def test_a_second_process_waits_for_the_first_and_fetches_nothing(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from threading import Thread

    guard = zoo.place(NAME).parent / ".download" / f"{NAME}.lock"
    with lock(guard):
        other = Thread(target=zoo.fetch, args=(NAME,))
        other.start()
        for _ in range(500):
            if "waiting for it" in capsys.readouterr().err:
                break
            other.join(0.01)
        else:
            pytest.fail("the second process does not say that it waits")
        zoo.place(NAME).write_bytes(BYTES)
    other.join()
    assert server.ranges == []


def test_the_command_lists_fetches_and_verifies(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from microg.jobs import cli

    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["microg", "data", "download", "weights", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code
        return capsys.readouterr().out

    assert NAME in run()
    assert server.ranges == []
    assert str(zoo.place(NAME)) in run(NAME)
    assert hashlib.sha256(BYTES).hexdigest() in run("--verify")
    run("--all")
    assert zoo.place(OPEN_NAME).is_file()
    assert "'nothing.pt'" in refused(monkeypatch, capsys, "data", "download", "weights", "nothing.pt")


def test_an_encoder_of_the_hub_comes_into_the_hubs_own_cache_and_is_found_there_offline(tmp_path: Path):
    files = {"config.json": b"{}", "vocab.txt": b"a\n", "model.safetensors": BYTES, "pytorch_model.bin": BYTES}
    program = (
        "import json, sys; from microg.system import zoo; "
        "print(json.dumps([str(zoo.present('roberta-large')), str(zoo.fetch('roberta-large'))]))"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("MICROG_OFFLINE", "HF_TOKEN")}
    with serve(FakeHub("roberta-large", "model", files)) as hub:
        environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        before, folder = json.loads(done.stdout)
        assert before == "None"
        assert "licence MIT" in done.stderr
        assert {path.name for path in Path(folder).iterdir()} == {"config.json", "vocab.txt", "model.safetensors"}
    again = subprocess.run(
        command, env=environment | {"MICROG_OFFLINE": "1"}, capture_output=True, text=True, check=True
    )
    assert json.loads(again.stdout) == [folder, folder]
