"""OpenAI's batch mode: half the price, resumable, nothing paid for twice, every request answered or an error."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from microg.errors import ConfigError
from models.vlm.base import Request, Sampling
from models.vlm.budget import Budget
from models.vlm.openai_api import OpenAiEngine
from models.vlm.openai_batch import BatchError, OpenAiBatch
from tests.openai_server import BatchServer
from tests.prices import DOLLAR

KEY = "sk-secret-XyZ-0123456789"


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with BatchServer() as server:
        yield server


def _batch(server: BatchServer, folder: Path, **settings: Any) -> OpenAiBatch:
    return OpenAiBatch(OpenAiEngine("m", server.url, price=DOLLAR), str(folder), poll_s=0.01, **settings)


ASKED = [Request("a", "one"), Request("b", "two"), Request("c", "one"), Request("d", "bad")]


def test_a_batch_answers_each_request_once_at_its_own_price(batches: BatchServer, tmp_path: Path):
    seen: list[int] = []
    half = DOLLAR.replaced(batch=0.5)
    engine = OpenAiBatch(
        OpenAiEngine("m", batches.url, price=half), str(tmp_path), poll_s=0.01,
        report=lambda counts: seen.append(counts["completed"]),
    )  # fmt: skip
    replies = {reply.key: reply for reply in engine.generate(ASKED, Sampling())}
    assert {key: reply.text for key, reply in replies.items()} == {
        "a": "said: one", "b": "said: two", "c": "said: one", "d": None,
    }  # fmt: skip
    assert (replies["a"].cost, replies["c"].cost, replies["c"].cached) == (5.0, 0.0, True)
    assert "too long" in str(replies["d"].error)
    assert len(batches.batches) == 1
    assert len(seen) >= 2


def test_a_batch_is_resumed_and_not_submitted_again(batches: BatchServer, tmp_path: Path):
    first = _batch(batches, tmp_path)
    first._submit(first._plan(ASKED, Sampling())[0], Sampling())  # then the process died
    replies = list(_batch(batches, tmp_path).generate(ASKED, Sampling()))
    assert len(replies) == 4
    assert len(batches.batches) == 1
    list(_batch(batches, tmp_path).generate(ASKED, Sampling()))  # collected before: still the same batch
    assert len(batches.batches) == 1


def test_a_batch_whose_number_was_never_written_down_is_found_again(batches: BatchServer, tmp_path: Path):
    first = _batch(batches, tmp_path)
    first._submit(first._plan(ASKED, Sampling())[0], Sampling())
    (state,) = tmp_path.glob("batch-*.json")
    kept = json.loads(state.read_text())
    del kept["batch_id"]
    state.write_text(json.dumps(kept))  # as if the process had died after the server took the batch
    assert len(list(_batch(batches, tmp_path).generate(ASKED, Sampling()))) == 4
    assert len(batches.batches) == 1


@pytest.mark.parametrize("status", ["failed", "expired", "cancelled"])
def test_a_batch_that_ends_badly_leaves_error_rows_and_is_tried_anew_next_time(batches, tmp_path: Path, status: str):
    batches.end_as = status
    replies = list(_batch(batches, tmp_path).generate(ASKED, Sampling()))
    assert [reply.status for reply in replies] == ["error"] * 4
    assert all(status in str(reply.error) for reply in replies)
    batches.end_as = "completed"
    again = list(_batch(batches, tmp_path).generate(ASKED, Sampling()))
    assert sorted(reply.status for reply in again) == ["error", "ok", "ok", "ok"]


def test_a_batch_that_may_cost_more_than_is_left_is_not_submitted(batches: BatchServer, tmp_path: Path):
    with pytest.raises(ConfigError, match="may cost up to"):
        list(_batch(batches, tmp_path, budget=Budget(10.0)).generate(ASKED, Sampling()))
    assert not batches.batches
    budget = Budget(1e6)
    list(_batch(batches, tmp_path, budget=budget).generate(ASKED, Sampling()))
    assert (budget.spent, budget.held) == (20.0, 0.0)


def test_a_batch_service_that_refuses_the_key_says_so_without_it(batches, tmp_path: Path):
    batches.refuse = True
    with pytest.raises(BatchError) as raised:
        list(_batch(batches, tmp_path).generate(ASKED, Sampling()))
    shown = "".join(traceback.format_exception(raised.value))
    assert "OPENAI_API_KEY" in shown
    assert KEY not in shown
    assert not any(KEY in path.read_text() for path in tmp_path.rglob("*.json"))
