"""OpenAI's batch mode: half the price, resumable, nothing paid for twice, every request answered or an error."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from microg.errors import ConfigError
from microg.models.vlm.api.budget import Budget
from microg.models.vlm.api.openai import OpenAiEngine
from microg.models.vlm.api.openai_batch import BatchError, OpenAiBatch
from microg.models.vlm.base import Reply, Request, Sampling
from tests.support.openai_server import BatchServer
from tests.support.prices import DOLLAR

KEY = "sk-secret-XyZ-0123456789"


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with BatchServer() as server:
        yield server


def _batch(server: BatchServer, folder: Path, **settings: Any) -> OpenAiBatch:
    return OpenAiBatch(OpenAiEngine("m", server.url, price=DOLLAR), str(folder), poll_s=0.01, **settings)


def answered(batch: OpenAiBatch, requests: Sequence[Request], about: dict[str, Any] | None = None) -> list[Reply]:
    """Submit what is not under way, and collect everything."""
    known = {name for found in batch.pending() for name in found.requests}
    batch.submit([request for request in requests if request.key not in known], Sampling(), about)
    replies = []
    for found in batch.pending():
        part = batch.collect(found)
        batch.done(found, part)
        replies += part
    return replies


ASKED = [Request("a", "one"), Request("b", "two"), Request("c", "one"), Request("d", "bad")]


def test_a_batch_answers_each_request_once_at_its_own_price(batches: BatchServer, tmp_path: Path):
    seen: list[int] = []
    half = DOLLAR.replaced(batch=0.5)
    engine = OpenAiBatch(
        OpenAiEngine("m", batches.url, price=half),
        str(tmp_path),
        poll_s=0.01,
        report=lambda counts: seen.append(counts["completed"]),
    )
    replies = {reply.key: reply for reply in answered(engine, ASKED)}
    assert {key: reply.text for key, reply in replies.items()} == {
        "a": "said: one",
        "b": "said: two",
        "c": "said: one",
        "d": None,
    }
    assert (replies["a"].cost, replies["c"].cost, replies["c"].cached) == (5.0, 0.0, True)
    assert "too long" in str(replies["d"].error)
    assert len(batches.batches) == 1
    assert len(seen) >= 2


def test_a_batch_is_resumed_and_not_submitted_again(batches: BatchServer, tmp_path: Path):
    _batch(batches, tmp_path).submit(ASKED, Sampling(), {"a": {"place": 1}})  # then the process died
    (found,) = _batch(batches, tmp_path).pending()
    assert sorted(found.requests) == ["a", "b", "c", "d"]
    assert found.about == {"a": {"place": 1}, "b": None, "c": None, "d": None}
    assert len(answered(_batch(batches, tmp_path), ASKED)) == 4
    assert len(batches.batches) == 1
    assert _batch(batches, tmp_path).pending() == []


def _without_number(folder: Path) -> None:
    """Change the state as if the process had died before it could write the batch's number down."""
    (state,) = folder.glob("batch-*.json")
    kept = json.loads(state.read_text())
    del kept["batch_id"]
    state.write_text(json.dumps(kept))


def test_a_batch_whose_number_was_never_written_down_is_found_again(batches: BatchServer, tmp_path: Path):
    _batch(batches, tmp_path).submit(ASKED, Sampling())
    _without_number(tmp_path)
    assert len(answered(_batch(batches, tmp_path), ASKED)) == 4
    assert len(batches.batches) == 1


def test_a_batch_that_never_reached_the_service_is_forgotten_and_its_money_free(batches: BatchServer, tmp_path: Path):
    journal = tmp_path / "account.sqlite"
    with closing(Budget(1500.0, journal=journal)) as budget:
        _batch(batches, tmp_path, budget=budget).submit(ASKED, Sampling())
    _without_number(tmp_path)
    batches.batches.clear()
    with closing(Budget(1500.0, journal=journal)) as budget:
        again = _batch(batches, tmp_path, budget=budget)
        assert again.pending() == []
        assert len(answered(again, ASKED)) == 4
        assert (budget.spent, budget.held) == (20.0, 0.0)


@pytest.mark.parametrize("status", ["failed", "expired", "cancelled"])
def test_a_batch_that_ends_badly_leaves_error_rows_and_is_tried_anew_next_time(batches, tmp_path: Path, status: str):
    batches.end_as = status
    replies = answered(_batch(batches, tmp_path), ASKED)
    assert [reply.status for reply in replies] == ["error"] * 4
    assert all(status in str(reply.error) for reply in replies)
    batches.end_as = "completed"
    again = answered(_batch(batches, tmp_path), ASKED)
    assert sorted(reply.status for reply in again) == ["error", "ok", "ok", "ok"]


def test_a_batch_that_may_cost_more_than_is_left_is_not_submitted(batches: BatchServer, tmp_path: Path):
    with pytest.raises(ConfigError, match="may cost up to"):
        answered(_batch(batches, tmp_path, budget=Budget(10.0)), ASKED)
    assert not batches.batches
    budget = Budget(1e6)
    answered(_batch(batches, tmp_path, budget=budget), ASKED)
    assert (budget.spent, budget.held) == (20.0, 0.0)


def test_a_batch_service_that_refuses_the_key_says_so_without_it(batches, tmp_path: Path):
    batches.refuse = True
    with pytest.raises(BatchError) as raised:
        answered(_batch(batches, tmp_path), ASKED)
    shown = "".join(traceback.format_exception(raised.value))
    assert "OPENAI_API_KEY" in shown
    assert KEY not in shown
    assert not any(KEY in path.read_text() for path in tmp_path.rglob("*.json"))
