"""`microg review` as its users start, kill and end it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from microg import storage
from microg.annotations.rows import new_id
from microg.annotations.table import read_annotations
from microg.data.dataset import Dataset
from microg.errors import AnnotationError, ConfigError, RunConflictError
from microg.locks import exclusive
from microg.review.rules import Annotator, Rules
from microg.review.serving import Plan, address, bring_home, look, opened, state_folder
from microg.review.store import Store
from microg.review.sync import sync, unsynced
from tests.support.command_line import refused
from tests.support.processes import microg, start_microg, wait_for
from tests.support.reviews import ANNA, desk_of, small_dataset
from tests.support.s3_server import object_store, upload

FLOAT = {"actions": [12]}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return small_dataset(tmp_path / "ds", 40)


def plan_of(dataset: Dataset, **more: Any) -> Plan:
    return Plan(dataset=dataset.root, **{"rules": Rules(), "annotator": "anna", "port": 0, **more})


class Page:
    """Sends what the page sends, over one connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._cookie = ""

    def post(self, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
        headers = {"Content-Type": "application/json", "X-Microg": "review", "Cookie": self._cookie}
        self._connection.request("POST", path, json.dumps(body), headers)
        answer = self._connection.getresponse()
        self._cookie = (answer.headers.get("set-cookie") or self._cookie).split(";")[0]
        return answer.status, json.loads(answer.read())

    def judge(self, on_saved: Callable[[str], None]) -> bool:
        """Judge one person and tell the judgement's id once the server acknowledged it; False when none is left."""
        _, answer = self.post("/api/next", mode="actions", have=[])
        if not answer["tasks"]:
            return False
        name = new_id()
        status, _ = self.post("/api/save", task_id=answer["tasks"][0]["task_id"], annotation_id=name, value=FLOAT)
        assert status == 200
        on_saved(name)
        return True


@contextmanager
def served(log: Path, *arguments: object) -> Iterator[tuple[psutil.Popen, int]]:
    """Run the command until the block ends; yields the process and its port."""
    process = start_microg(log, "review", *arguments, "--port", "0")
    try:
        wait_for(lambda: "Ctrl-C ends it" in log.read_text(), process, log, 60)
        found = re.search(r"http://[^/]*:(\d+)", log.read_text())
        assert found is not None
        yield process, int(found[1])
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_nothing_that_was_acknowledged_is_lost_when_the_server_is_killed(dataset: Dataset, tmp_path: Path):
    saved: list[str] = []
    options = (dataset.root, "--annotators", "anna,ben,cara")
    with served(tmp_path / "log", *options) as (process, port):
        tokens = re.findall(r"#token=(\S+)", (tmp_path / "log").read_text())
        assert len(tokens) == 3

        def work(token: str) -> None:
            page = Page(port)
            assert page.post("/api/login", token=token)[0] == 200
            try:
                while page.judge(saved.append):
                    pass
            except (OSError, http.client.HTTPException):  # the server is gone
                return

        threads = [threading.Thread(target=work, args=(token,)) for token in tokens]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(saved) >= 20, process, tmp_path / "log")
        os.killpg(process.pid, signal.SIGKILL)
        for thread in threads:
            thread.join()
        assert len(saved) < 80, "the server was killed too late to show anything"
    with served(tmp_path / "again", *options) as (process, port):
        page = Page(port)
        assert page.post("/api/login", token=tokens[0])[0] == 200  # the same link works
        while page.judge(saved.append):
            pass
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 0
    rows = read_annotations(Dataset.open(dataset.root))
    known = {each.annotation_id for each in rows}
    assert set(saved) <= known
    assert len(known - set(saved)) <= 3  # each annotator had one on the screen
    items = [each.about for each in rows]
    assert len(items) == len(set(items))
    log = (tmp_path / "again").read_text()
    assert "next: microg data adjudicate" in log.splitlines()[-1]
    assert not any(token in log for token in tokens)


def test_the_end_tells_what_was_saved_and_what_comes_next(dataset: Dataset, tmp_path: Path):
    with served(tmp_path / "log", dataset.root, "--annotator", "Anna B.") as (process, port):
        page = Page(port)
        assert page.judge(lambda name: None)
        process.terminate()
        assert process.wait(timeout=60) == 0
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines == [
        f"http://127.0.0.1:{port}/ for Anna B.",
        "Ctrl-C ends it",
        f"1 judgement saved; next: microg data adjudicate {dataset.root}",
    ]
    assert [each.annotator for each in read_annotations(Dataset.open(dataset.root))] == ["Anna B."]


def test_a_second_server_on_a_dataset_is_refused(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with opened(plan_of(dataset)):
        told = refused(monkeypatch, capsys, "review", dataset.root, "--state", str(tmp_path / "elsewhere"))
    assert f"another 'microg review' serves {dataset.root}" in told
    with opened(plan_of(dataset)):
        pass


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--host", "0.0.0.0"], "nobody has a token"),
        (["--public-host", "review.example.org"], "nobody has a token"),
        (["--modes", "screen,dance"], "there is no mode 'dance'"),
        (["--modes", ","], "--modes names none"),
        (["--order", "best"], "there is no order 'best'"),
        (["--order", "uncertain"], "how unsure"),
        (["--annotators", "anna,dataset"], "'dataset'"),
        (["--annotators", "x" * 200], "is no name"),
        (["--proposals", "nowhere"], "none of the tables"),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_line(
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    what: str,
):
    assert what in refused(monkeypatch, capsys, "review", dataset.root, "--port", "0", *arguments)


def test_a_port_that_is_taken_is_refused(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    other = small_dataset(tmp_path / "other")
    with served(tmp_path / "log", other.root) as (_, port):
        told = refused(monkeypatch, capsys, "review", dataset.root, "--port", str(port))
    assert f"cannot listen on 127.0.0.1, port {port}" in told


def test_a_dry_run_tells_what_there_is_and_writes_nothing(dataset: Dataset, capsys: pytest.CaptureFixture[str]):
    before = sorted(path for path in Path(dataset.root).rglob("*"))
    assert microg("review", dataset.root, "--dry-run", "--annotators", "anna,ben", "--adjudicators", "cara") == 0
    told = capsys.readouterr().out
    assert "actions: 80 to judge, 0 done" in told
    assert "annotators: anna, ben, cara; adjudicators: cara" in told
    assert sorted(path for path in Path(dataset.root).rglob("*")) == before
    with opened(plan_of(dataset)) as review:
        task = review.desk.next(ANNA, "actions")[0][0]
        review.desk.save(ANNA, str(task.name), new_id(), FLOAT)
        assert look(plan_of(dataset)).progress(Annotator("x"))[1]["done"] == 1


def test_judgements_reach_the_dataset_once_however_often_they_are_brought(dataset: Dataset, tmp_path: Path):
    store = Store(tmp_path / "review.sqlite")
    desk = desk_of(dataset, store)
    for task in desk.next(ANNA, "actions", 5)[0]:
        desk.save(ANNA, str(task.name), new_id(), FLOAT)
    assert unsynced(store) == 5
    assert sync(dataset, store) == 5
    assert (sync(dataset, store), unsynced(store)) == (0, 0)
    store.remember("synced", 0)  # as after a crash between the table and the note that it is written
    assert sync(dataset, store) == 0
    assert [each for _, each in store.judgements()] == read_annotations(dataset)
    store.close()


def test_judgements_wait_while_another_process_writes_to_the_dataset(dataset: Dataset):
    with opened(plan_of(dataset)) as review:
        task = review.desk.next(ANNA, "actions")[0][0]
        review.desk.save(ANNA, str(task.name), new_id(), FLOAT)
        with exclusive(dataset.root):
            told = bring_home(review)
        assert told is not None
        assert told.startswith("1 judgements wait in")
        assert read_annotations(dataset) == []
    with opened(plan_of(dataset)):  # the next start brings them
        assert len(read_annotations(dataset)) == 1


def test_a_remote_dataset_keeps_its_state_in_the_cache_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    small_dataset(tmp_path / "ds")
    with object_store() as store:
        root = upload(tmp_path / "ds", f"{store.bucket()}/my data")
        remote = Dataset.open(root)
        folder = state_folder(plan_of(remote))
        assert folder.parent == tmp_path / "cache" / "microg" / "review"
        assert folder != state_folder(plan_of(Dataset(f"{root}2", {})))
        with opened(plan_of(remote)) as review:
            task = review.desk.next(ANNA, "actions")[0][0]
            review.desk.save(ANNA, str(task.name), new_id(), FLOAT)
            with pytest.raises(RunConflictError, match="another 'microg review' serves"), opened(plan_of(remote)):
                pass
            assert bring_home(review) is None
        assert (folder / "review.sqlite").exists()
        assert len(read_annotations(remote)) == 1
        assert "review.sqlite" not in storage.names(root)


def test_a_state_folder_belongs_to_one_dataset(dataset: Dataset, tmp_path: Path):
    state = str(tmp_path / "state")
    with opened(plan_of(dataset, state=state)) as review:
        assert review.folder == tmp_path / "state"
    other = small_dataset(tmp_path / "other")
    with pytest.raises(ConfigError, match="is of the dataset"), opened(plan_of(other, state=state)):
        pass


def test_links_lead_to_what_people_can_reach(dataset: Dataset):
    assert address(plan_of(dataset), 8765) == "http://127.0.0.1:8765"
    assert address(plan_of(dataset, host="::1"), 1) == "http://[::1]:1"
    assert address(plan_of(dataset, public_host="review.example.org"), 1) == "https://review.example.org"
    assert "0.0.0.0" not in address(plan_of(dataset, host="0.0.0.0"), 1)
    assert [plan_of(dataset, host=host).local_only for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "box")] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_people_keep_their_tokens_and_lose_them_when_they_are_no_longer_named(dataset: Dataset):
    with opened(plan_of(dataset, annotators=["anna", "ben"])) as review:
        assert list(review.links) == ["anna", "ben"]
    with opened(plan_of(dataset, annotators=["anna"], adjudicators=["cara"])) as review:
        assert list(review.links) == ["cara"]
        assert review.store.people() == {"anna": False, "cara": True}
    with opened(plan_of(dataset, annotators=["anna"], new_tokens=True)) as review:
        assert list(review.links) == ["anna"]
    with opened(plan_of(dataset, host="0.0.0.0")) as review:  # nobody new: those who have a link go on
        assert review.links == {}
        assert list(review.store.people()) == ["anna"]


def test_names_that_are_none_are_refused(dataset: Dataset):
    for name in ("", "a\nb", " anna", "dataset"):
        with pytest.raises(AnnotationError), opened(plan_of(dataset, annotator=name)):
            pass
