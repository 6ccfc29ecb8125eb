"""Attempts are counted so that a row that kills its worker ends."""

from __future__ import annotations

import errno
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from microg.errors import WriteError
from microg.pipelines.core.attempts import MAX_ATTEMPTS, AttemptLedger, Attempts, Failure, Turns, run_batch_then_singles


def test_attempts_count_by_key_until_the_work_ends():
    attempts = AttemptLedger()
    assert [attempts.start("a"), attempts.start("a"), attempts.start("b")] == [1, 2, 1]
    attempts.finish("a")
    attempts.finish("never started")
    assert [attempts.start("a"), attempts.start("b")] == [1, 2]


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> Attempts:
    """Attempts whose ledger is called like a Ray actor, without Ray."""
    counts = AttemptLedger()
    monkeypatch.setitem(__import__("sys").modules, "ray", SimpleNamespace(get=lambda value: value))
    start, finish = SimpleNamespace(remote=counts.start), SimpleNamespace(remote=counts.finish)
    return Attempts(SimpleNamespace(start=start, finish=finish), "run")


def test_a_row_is_given_up_after_its_last_attempt_and_not_before(attempts: Attempts):
    assert [attempts.crashed_before("a") for _ in range(MAX_ATTEMPTS + 2)] == [False] * MAX_ATTEMPTS + [True] * 2


def test_a_row_that_ends_may_be_worked_on_again_any_number_of_times(attempts: Attempts):
    for _ in range(3 * MAX_ATTEMPTS):
        assert not attempts.crashed_before("a")
        attempts.mark_finished("a")


def grouped(work: Any, items: list[str], attempts: Attempts | None = None) -> list[str]:
    found = run_batch_then_singles(work, items, name=str, crashed="crashed", attempts=attempts)
    return [f"{item}: {one.error}" if isinstance(one, Failure) else one for item, one in zip(items, found, strict=True)]


def test_parts_of_a_run_count_apart(attempts: Attempts):
    assert attempts.start("a") == 1
    assert attempts.within("decode").start("a") == 1
    assert attempts.within("decode").start("a") == 2
    assert attempts.start("a") == 2


def test_items_are_worked_on_together(attempts: Attempts):
    calls: list[list[str]] = []
    for counted in (attempts, None):
        assert grouped(lambda items: calls.append(list(items)) or [i.upper() for i in items], ["a", "b"], counted)
    assert calls == [["a", "b"]] * 2


def test_an_item_that_raises_fails_alone_and_the_others_succeed(attempts: Attempts):
    def work(items: list[str]) -> list[str]:
        if "b" in items:
            raise ValueError("bad")
        return [item.upper() for item in items]

    assert grouped(work, ["a", "b", "c"], attempts) == ["A", "b: ValueError: bad", "C"]
    assert grouped(work, ["b"]) == ["b: ValueError: bad"]


def test_an_item_that_kills_its_worker_is_given_up_and_the_others_succeed(attempts: Attempts):
    class Killed(BaseException):
        """Stands for the end of the process."""

    def work(items: list[str]) -> list[str]:
        if "b" in items:
            raise Killed
        return [item.upper() for item in items]

    ends = 0
    while True:
        try:
            result = grouped(work, ["a", "b", "c"], attempts)
            break
        except Killed:
            ends += 1
    assert result == ["A", "b: crashed", "C"]
    assert ends == 1 + MAX_ATTEMPTS  # once with the others, then alone


def test_who_was_beside_an_item_that_kills_its_worker_is_not_blamed(attempts: Attempts):
    """Four threads of a worker; `b` ends it whenever it is under way, and takes the others with it."""

    class Killed(BaseException):
        """Stands for the end of the process."""

    def worker() -> dict[str, str]:
        turns, dead, side_by_side = Turns(), threading.Event(), threading.Barrier(4)

        def start(key: str) -> int:
            if dead.is_set():  # a process that ended starts nothing more
                raise Killed
            return attempts.ledger.start.remote(key)

        mine = Attempts(SimpleNamespace(start=SimpleNamespace(remote=start), finish=attempts.ledger.finish), "run")

        def work(items: Sequence[str]) -> list[str]:
            if first:
                side_by_side.wait(timeout=60)
            if "b" in items:
                dead.set()
            if dead.wait(timeout=0.05):
                raise Killed
            return [item.upper() for item in items]

        def one(item: str) -> Any:
            return run_batch_then_singles(work, [item], name=str, crashed="crashed", attempts=mine, turns=turns)[0]

        with ThreadPoolExecutor(4) as threads:
            ended = {item: threads.submit(one, item) for item in "abcd" if item not in done}
        if dead.is_set():
            for item, future in ended.items():
                if future.exception() is None:
                    done[item] = future.result()
            raise Killed
        return {item: future.result() for item, future in ended.items()}

    done: dict[str, Any] = {}
    first, ends = True, 0
    while True:
        try:
            done |= worker()
            break
        except Killed:
            first, ends = False, ends + 1
    assert done == {"a": "A", "b": Failure("crashed"), "c": "C", "d": "D"}
    assert ends == 1 + MAX_ATTEMPTS  # once beside the others, then alone


def test_a_disk_that_is_full_is_no_items_fault(attempts: Attempts):
    def work(items: Sequence[str]) -> list[str]:
        raise OSError(errno.ENOSPC, "No space left on device", "/data/x")

    for items in (["a"], ["a", "b"]):
        with pytest.raises(WriteError, match="/data/x cannot be written: no room is left"):
            run_batch_then_singles(work, items, name=str, crashed="crashed", attempts=attempts)
