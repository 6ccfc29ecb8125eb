from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from microg import locks, storage
from microg.errors import RunConflictError, WriteError
from microg.locks import exclusive, exclusive_file, lock


def refused(what: str) -> Any:
    return pytest.raises(RunConflictError, match=f"another process is writing to .*{what}")


def test_a_folder_is_held_by_one_and_then_by_the_next(tmp_path: Path):
    folder = tmp_path / "run"
    with exclusive(folder), refused(str(folder)), exclusive(folder):
        pass
    folder.mkdir()
    with exclusive(folder), exclusive(tmp_path / "other"):
        assert [path.name for path in folder.iterdir()] == [".lock"]
    assert not list(folder.iterdir())


def test_a_folder_that_was_made_only_to_be_held_is_gone(tmp_path: Path):
    with pytest.raises(ValueError, match="no"), exclusive(tmp_path / "a" / "deep"):
        raise ValueError("no")
    with exclusive(tmp_path / "b"):
        (tmp_path / "b" / "kept").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_two_pages_in_a_folder_do_not_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with exclusive_file(tmp_path / "a.html"), exclusive_file(tmp_path / "b.html"), refused("a.html"):
        monkeypatch.chdir(tmp_path)
        with exclusive_file("a.html"):
            pass
    assert not list(tmp_path.iterdir())


def test_a_lock_ends_with_a_killed_process(tmp_path: Path):
    code = f"from microg.locks import exclusive\nwith exclusive({str(tmp_path)!r}): print('held', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with refused("test_a_lock"), exclusive(tmp_path):
            pass
        holder.kill()
    with exclusive(tmp_path):
        pass


def _count(folder: str) -> None:
    for _ in range(50):
        with lock(Path(folder) / "deep" / "lock"):
            counter = Path(folder) / "counter"
            counter.write_text(str(int(counter.read_text()) + 1))


def test_those_who_wait_for_a_lock_that_others_remove_get_it_one_at_a_time(tmp_path: Path):
    (tmp_path / "counter").write_text("0")
    with ProcessPoolExecutor(3, mp_context=get_context("fork")) as pool:
        list(pool.map(_count, [str(tmp_path)] * 3))
    assert (tmp_path / "counter").read_text() == "150"


def test_a_place_where_no_lock_can_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    named = pytest.raises(WriteError, match=r"file/run/\.lock cannot be written: a part of its path is a file")
    with named, exclusive(tmp_path / "file" / "run"):
        pass


@pytest.fixture
def remote() -> Iterator[str]:
    """A folder on a filesystem that knows no locks."""
    folder = f"memory://{uuid.uuid4().hex}/run"
    yield folder
    storage.remove_tree(folder)


def entries(folder: str) -> list[str]:
    return storage.names(storage.join(folder, ".leases"))


def change_entry(folder: str, **values: Any) -> None:
    [name] = entries(folder)
    path = storage.join(folder, ".leases", name)
    storage.write_json(path, storage.read_json(path) | values)


@pytest.fixture
def abandon(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A function that leaves a hold on a folder as a killed process does."""

    def leave(folder: str) -> None:
        held = exclusive(folder)
        held.__enter__()
        stuck.append(held)

    stuck: list[Any] = []
    monkeypatch.setattr(locks, "_RENEW_EVERY_S", 0.0)  # two that begin at once are another test
    monkeypatch.setattr(locks._Lease, "_renew", lambda self: None)
    return leave


def test_where_there_are_no_locks_a_folder_is_held_by_one(remote: str, monkeypatch: pytest.MonkeyPatch):
    with exclusive(remote), refused(f"{remote}: {os.getpid()} on"), exclusive(remote):
        pass
    with exclusive(remote):
        assert len(entries(remote)) == 1
    assert not entries(remote)


def test_of_two_that_begin_at_once_one_goes_on(remote: str):
    begun, other_ended = threading.Barrier(2), threading.Event()
    held = []

    def work() -> None:
        begun.wait()
        try:
            with exclusive(remote):
                held.append(True)
                other_ended.wait()
        except RunConflictError:
            pass
        other_ended.set()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) <= 1  # none where both gave way twice
    assert not entries(remote)


def test_a_hold_that_is_not_renewed_is_void_after_a_while(remote: str, abandon: Callable[[str], None]):
    abandon(remote)
    change_entry(remote, host="elsewhere", renewed=time.time() - 100)
    with pytest.raises(RunConflictError, match=r"if it was killed, its hold ends in (19|20) s"), exclusive(remote):
        pass
    change_entry(remote, renewed=time.time() - 121)
    with exclusive(remote):
        assert len(entries(remote)) == 1


def test_a_hold_of_a_process_that_was_killed_here_is_void_at_once(remote: str, abandon: Callable[[str], None]):
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    abandon(remote)
    change_entry(remote, pid=ended.pid, host="elsewhere")
    with refused(remote), exclusive(remote):  # the number tells nothing of another machine
        pass
    change_entry(remote, host=locks.socket.gethostname())
    with exclusive(remote):
        pass


def test_a_hold_is_renewed_and_who_loses_it_says_so(remote: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(locks, "_RENEW_EVERY_S", 0.05)
    held = exclusive(remote)
    held.__enter__()
    [name] = entries(remote)
    path = storage.join(remote, ".leases", name)
    first = storage.read_json(path)["renewed"]
    while storage.read_json(path)["renewed"] == first:
        time.sleep(0.01)
    storage.remove(path)
    time.sleep(0.3)
    with pytest.raises(RunConflictError, match="another process took over"):
        held.__exit__(None, None, None)


def test_a_disk_that_cannot_lock_is_treated_as_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def cannot(file: Any, how: int) -> None:
        raise OSError(locks.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", cannot)
    with exclusive(tmp_path), refused(str(tmp_path)), exclusive(tmp_path):
        pass
