"""Attempts are counted so that a row that kills its worker ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipelines import ledger
from pipelines.ledger import MAX_ATTEMPTS, AttemptLedger


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
    return SimpleNamespace(
        start=SimpleNamespace(remote=attempts.start), finish=SimpleNamespace(remote=attempts.finish)
    )  # fmt: skip


def test_a_row_is_given_up_after_its_last_attempt_and_not_before(handle: Any):
    assert [ledger.crashed_before(handle, "a") for _ in range(MAX_ATTEMPTS + 2)] == [False] * MAX_ATTEMPTS + [True] * 2


def test_a_row_that_ends_may_be_worked_on_again_any_number_of_times(handle: Any):
    for _ in range(3 * MAX_ATTEMPTS):
        assert not ledger.crashed_before(handle, "a")
        ledger.settled(handle, "a")
