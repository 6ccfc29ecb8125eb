"""Attempts are counted so that a row that kills its worker ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from microg.pipelines.core import attempts as ledger
from microg.pipelines.core.attempts import MAX_ATTEMPTS, AttemptLedger


def test_attempts_count_by_key_until_the_work_ends():
    attempts = AttemptLedger()
    assert [attempts.start("a"), attempts.start("a"), attempts.start("b")] == [1, 2, 1]
    attempts.finish("a")
    attempts.finish("never started")
    assert [attempts.start("a"), attempts.start("b")] == [1, 2]


@pytest.fixture
def handle(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A ledger called like a Ray actor, without Ray."""
    attempts = AttemptLedger()
    monkeypatch.setitem(__import__("sys").modules, "ray", SimpleNamespace(get=lambda value: value))
    return SimpleNamespace(start=SimpleNamespace(remote=attempts.start), finish=SimpleNamespace(remote=attempts.finish))


def test_a_row_is_given_up_after_its_last_attempt_and_not_before(handle: Any):
    assert [ledger.crashed_before(handle, "a") for _ in range(MAX_ATTEMPTS + 2)] == [False] * MAX_ATTEMPTS + [True] * 2


def test_a_row_that_ends_may_be_worked_on_again_any_number_of_times(handle: Any):
    for _ in range(3 * MAX_ATTEMPTS):
        assert not ledger.crashed_before(handle, "a")
        ledger.settled(handle, "a")


def grouped(work: Any, items: list[str], handle: Any = None) -> list[str]:
    return ledger.together_or_alone(
        work, items, name=str, failed=lambda item, error: f"{item}: {error}", crashed="crashed", ledger=handle
    )


def test_items_are_worked_on_together(handle: Any):
    calls: list[list[str]] = []
    for ledger_or_none in (handle, None):
        assert grouped(
            lambda items: calls.append(list(items)) or [i.upper() for i in items], ["a", "b"], ledger_or_none
        )
    assert calls == [["a", "b"]] * 2


def test_an_item_that_raises_fails_alone_and_the_others_succeed(handle: Any):
    def work(items: list[str]) -> list[str]:
        if "b" in items:
            raise ValueError("bad")
        return [item.upper() for item in items]

    assert grouped(work, ["a", "b", "c"], handle) == ["A", "b: ValueError: bad", "C"]
    assert grouped(work, ["b"]) == ["b: ValueError: bad"]


def test_an_item_that_kills_its_worker_is_given_up_and_the_others_succeed(handle: Any):
    class Killed(BaseException):
        """Stands for the end of the process."""

    def work(items: list[str]) -> list[str]:
        if "b" in items:
            raise Killed
        return [item.upper() for item in items]

    ends = 0
    while True:
        try:
            result = grouped(work, ["a", "b", "c"], handle)
            break
        except Killed:
            ends += 1
    assert result == ["A", "b: crashed", "C"]
    assert ends == 1 + MAX_ATTEMPTS  # once with the others, then alone
