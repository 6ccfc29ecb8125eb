"""The thread that steps vLLM, on an engine of our own in its place: joined requests, refusals, breakdowns, the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from microg.errors import ConfigError
from microg.models.vlm.engines.vllm_loop import VllmLoop


class FakeEngine:
    """Answers all requests of a step together, after `gate` lets it; breaks on the word `break`, refuses `refuse`."""

    def __init__(self, gate: threading.Event) -> None:
        self.gate, self.waiting, self.steps = gate, {}, []
        self.busy = threading.Event()
        self.engine_core = SimpleNamespace(shutdown=lambda: None)

    def add_request(self, name: str, prompt: str, parameters: Any) -> None:
        if prompt == "ready refuse":
            raise ValueError("too long")
        self.waiting[name] = prompt

    def step(self) -> list[Any]:
        self.busy.set()
        assert self.gate.wait(timeout=60)
        self.steps.append(sorted(self.waiting.values()))
        if any(prompt.startswith("ready break") for prompt in self.waiting.values()):
            raise RuntimeError("broken kernel")
        done = [
            SimpleNamespace(request_id=name, finished=True, text=f"<{text}>") for name, text in self.waiting.items()
        ]
        self.waiting.clear()
        return done


class Started:
    """Starts engines and remembers them."""

    def __init__(self) -> None:
        self.engines: list[FakeEngine] = []
        self.gate = threading.Event()
        self.fails = False

    def __call__(self) -> Any:
        if self.fails:
            raise ConfigError("no memory is left")
        self.engines.append(FakeEngine(self.gate))
        return SimpleNamespace(llm_engine=self.engines[-1])


@pytest.fixture
def started() -> Started:
    return Started()


@pytest.fixture
def open_loop(started: Started) -> Iterator[Callable[[int], VllmLoop]]:
    loops: list[VllmLoop] = []

    def opened(most: int = 100) -> VllmLoop:
        loops.append(VllmLoop(started, lambda llm, prompt: f"ready {prompt['text']}", most))
        return loops[-1]

    yield opened
    started.gate.set()
    for loop in loops:
        loop.close()


def ask(loop: VllmLoop, *texts: str) -> list[Any]:
    return [loop.submit({"text": text}, None) for text in texts]


def outcomes(futures: list[Any]) -> list[str]:
    return [
        future.result().text if (error := future.exception(timeout=60)) is None else str(error) for future in futures
    ]


def test_requests_of_several_threads_are_answered_together(started: Started, open_loop: Any) -> None:
    loop = open_loop()
    (first,) = ask(loop, "a")
    assert started.engines[0].busy.wait(timeout=60)
    with ThreadPoolExecutor(2) as threads:
        others = [future.result() for future in [threads.submit(ask, loop, name) for name in "bc"]]
        started.gate.set()
    assert outcomes([first, *(future for each in others for future in each)]) == ["<ready a>", "<ready b>", "<ready c>"]
    assert started.engines[0].steps[-1] == ["ready b", "ready c"]


def test_a_refused_request_fails_alone(started: Started, open_loop: Any) -> None:
    started.gate.set()
    assert outcomes(ask(open_loop(), "a", "refuse", "b")) == ["<ready a>", "too long", "<ready b>"]
    assert len(started.engines) == 1


def test_a_request_that_breaks_the_engine_fails_alone_and_the_others_are_asked_again(
    started: Started, open_loop: Any
) -> None:
    loop = open_loop()
    futures = ask(loop, "a")
    futures += ask(loop, "b", "break", "c")
    started.gate.set()
    assert outcomes(futures) == ["<ready a>", "<ready b>", "broken kernel", "<ready c>"]
    assert outcomes(ask(loop, "d")) == ["<ready d>"]
    assert all(len(step) == 1 for engine in started.engines[1:] for step in engine.steps)


def test_an_engine_that_breaks_on_everything_is_given_up_and_says_so_to_all(started: Started, open_loop: Any) -> None:
    loop = open_loop()
    futures = ask(loop, *(f"break {number}" for number in range(5)))
    started.gate.set()
    said = outcomes(futures)
    assert said[:2] == ["broken kernel"] * 2
    assert all("broke down on 3 requests in a row" in each for each in said[2:])
    assert "broke down" in outcomes(ask(loop, "a"))[0]
    assert loop.ended


def test_a_restart_that_fails_ends_all(started: Started, open_loop: Any) -> None:
    loop = open_loop()
    futures = ask(loop, "a")
    futures += ask(loop, "break", "b")
    started.fails = True
    started.gate.set()
    assert outcomes(futures)[1:] == ["no memory is left"] * 2


def test_no_more_requests_are_under_way_than_there_is_room_for(started: Started, open_loop: Any) -> None:
    loop = open_loop(2)
    ask(loop, "a", "b")
    with ThreadPoolExecutor(1) as threads:
        third = threads.submit(ask, loop, "c")
        with pytest.raises(TimeoutError):
            third.result(timeout=0.2)
        started.gate.set()
        assert outcomes(third.result(timeout=60)) == ["<ready c>"]


def test_what_waits_when_the_engine_is_closed_fails(started: Started, open_loop: Any) -> None:
    loop = open_loop()
    futures = ask(loop, "a", "b")
    threading.Timer(0.2, started.gate.set).start()
    loop.close()
    assert set(outcomes([*futures, *ask(loop, "c")])) <= {"<ready a>", "<ready b>", "vLLM was closed"}
    assert outcomes(ask(loop, "c")) == ["vLLM was closed"]
