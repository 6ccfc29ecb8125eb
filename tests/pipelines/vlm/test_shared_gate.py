"""The shared gate: one pace and one account for engines in several Ray actors, one of which is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from microg.models.vlm.api.gate import Limits, Outcome, Permit, Wait
from microg.models.vlm.api.openai import OpenAiEngine
from microg.models.vlm.api.response import RetryPolicy
from microg.models.vlm.base import Reply, Request, Sampling
from microg.pipelines.vlm.shared_gate import GateActor, SharedGate, shared_gate
from tests.support.openai_server import OpenAiServer
from tests.support.prices import DOLLAR


@pytest.fixture(scope="module")
def actors(ray_session: None) -> Callable[[str, SharedGate, int], list[Any]]:
    """Return a function that starts engine actors: (server, gate, count)."""
    import ray

    class Asker:  # in here: workers cannot import a test's module
        def __init__(self, url: str, gate: SharedGate) -> None:
            retry = RetryPolicy(timeout_s=30)
            self._engine = OpenAiEngine("m", url, gate=gate, price=DOLLAR, retry=retry, concurrency=4)

        def ask(self, prefix: str, count: int) -> list[Reply]:
            requests = [Request(f"{prefix}{n}", f"{prefix}{n}") for n in range(count)]
            return list(self._engine.generate(requests, Sampling(max_tokens=1)))

        def process(self) -> int:
            return os.getpid()

    kind: Any = ray.remote(num_cpus=0.1)(Asker)
    return lambda url, gate, count: [kind.remote(url, gate) for _ in range(count)]


def _all(parts: list[Any]) -> list[Reply]:
    import ray

    return [reply for part in ray.get(parts) for reply in part]


def test_actors_share_one_pace_and_a_killed_one_holds_nothing_back(actors, tmp_path: Path):
    import ray

    limits = Limits(requests_per_minute=2400, concurrency=8, start=8)
    gate = shared_gate("pace", limits, cap=5_000.0, journal=str(tmp_path / "account.sqlite"))
    assert shared_gate("pace", limits).actor == gate.actor
    with OpenAiServer() as server:
        first, second, victim = actors(server.url, gate, 3)
        process: Any = ray.get(victim.process.remote())
        replies = _all([first.ask.remote("a", 30), second.ask.remote("b", 30)])
        assert all(reply.status == "ok" for reply in replies)
        times = sorted(at for at, _ in server.requests)
        assert len(times) == 60
        assert times[-1] - times[0] >= 59 / 40 * 0.7  # 2400 a minute over both actors; each for itself took half
        assert gate.status().spent == pytest.approx(600.0)

        server.latency_s = 60.0
        victim.ask.remote("v", 1)
        deadline = time.monotonic() + 30
        while not server.asked("v0") and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(int(process), signal.SIGKILL)
        server.latency_s = 0.0
        assert gate.status().held > 0  # until its lease ends
        assert all(reply.status == "ok" for reply in _all([first.ask.remote("c", 10), second.ask.remote("d", 10)]))
        assert len({body["messages"][0]["content"] for _, body in server.requests}) == 81
        assert len(server.requests) == 81


def test_actors_share_one_cap_that_is_never_exceeded(actors):
    gate = shared_gate("cap", Limits(concurrency=8, start=8), cap=1_000.0)
    with OpenAiServer() as server:
        first, second = actors(server.url, gate, 2)
        replies = _all([first.ask.remote("c", 80), second.ask.remote("d", 80)])
        assert 10 * len(server.requests) <= 1_000
    done = [reply for reply in replies if reply.status == "ok"]
    assert len(done) == len(server.requests) >= 85
    assert gate.status().spent == pytest.approx(10.0 * len(done))
    assert all("of the cap are spent" in str(reply.error) for reply in replies if reply.status == "error")


def test_a_worker_that_is_restarted_gets_back_what_it_held_and_what_it_waited_for():
    async def scenario() -> None:
        gate = GateActor(Limits(concurrency=1, start=1), 10.0, 0.0, None)
        first, second = ("worker", "1"), ("worker", "2")
        await gate.begin(first)
        assert isinstance(await gate.start(1, 3.0, 1000.0, None, first), Permit)
        waiting = asyncio.create_task(gate.start(1, 3.0, 1000.0, None, first))
        await asyncio.sleep(0.01)
        await gate.begin(second)
        assert isinstance(await waiting, Wait)  # of the life that was killed: nobody sends it
        permit = await gate.start(1, 3.0, 1000.0, 1.0, second)
        assert isinstance(permit, Permit)
        status = await gate.status()
        assert (status.spent, status.held, status.under_way) == (3.0, 3.0, 1)  # what was under way may have been billed
        await gate.finish(permit, Outcome("ok", cost=1.0))
        assert (await gate.status()).spent == 4.0

    asyncio.run(scenario())
