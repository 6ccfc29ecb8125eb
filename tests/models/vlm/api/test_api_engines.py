"""Both API engines against servers that fail in every way: one reply each, bounded retries, costs, no key anywhere."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import random
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from microg.errors import ConfigError
from microg.models.vlm.api.budget import Budget
from microg.models.vlm.api.cache import ResponseCache, generate_cached
from microg.models.vlm.api.engine import ApiEngine
from microg.models.vlm.api.gate import Limits, LocalGate
from microg.models.vlm.api.gemini import GeminiEngine
from microg.models.vlm.api.openai import OpenAiEngine
from microg.models.vlm.api.response import RetryPolicy
from microg.models.vlm.base import Frames, Reply, Request, Sampling
from microg.models.vlm.cards import card, open_card
from microg.models.vlm.prices import price_of
from tests.support import gemini_server, model_server, openai_server
from tests.support.model_server import Fault, ModelServer
from tests.support.prices import DOLLAR

KEY = "sk-secret-XyZ-0123456789"
QUICK = RetryPolicy(attempts=4, deadline_s=20, timeout_s=5, first_wait_s=0.01, longest_wait_s=0.03)


@dataclass
class Provider:
    """An engine, a server that speaks its protocol, and the faults that this protocol can have."""

    name: str
    server: ModelServer
    too_many: Callable[[float], Fault]
    broken: Fault
    hang: Fault
    good: bytes

    def engine(self, **settings: Any) -> ApiEngine:
        kind = OpenAiEngine if self.name == "openai" else GeminiEngine
        variable = "OPENAI_API_KEY" if self.name == "openai" else "GEMINI_API_KEY"
        return kind("m", self.server.url, variable, **{"retry": QUICK, **settings})

    def faults(self) -> dict[str, Fault]:
        return {
            "429": self.too_many(0.05),
            "500": self.broken,
            "hang": self.hang,
            "cut": model_server.cut(self.good),
            "torn": model_server.torn(self.good),
            "html": model_server.page(),
            "reset": model_server.reset(),
        }


@pytest.fixture(params=["openai", "gemini"])
def provider(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    if request.param == "openai":
        with openai_server.OpenAiServer() as server:
            limited = lambda after: openai_server.failure(429, Retry_After=str(after))  # noqa: E731
            yield Provider(
                "openai",
                server,
                limited,
                openai_server.failure(500),
                openai_server.hang(60),
                openai_server.completion("never whole"),
            )
    else:
        with gemini_server.GeminiServer() as server:
            limited = lambda after: gemini_server.failure(429, "slow", "RESOURCE_EXHAUSTED", f"{after}s")  # noqa: E731
            yield Provider(
                "gemini",
                server,
                limited,
                gemini_server.failure(500),
                gemini_server.hang(60),
                gemini_server.content("never whole"),
            )


def _ask(engine: ApiEngine, *prompts: str, sampling: Sampling | None = None) -> dict[str, Reply]:
    replies = list(engine.generate([Request(prompt, prompt) for prompt in prompts], sampling or Sampling()))
    assert len(replies) == len(prompts)
    return {reply.key: reply for reply in replies}


def test_through_a_storm_of_faults_every_request_ends_once_and_is_never_retried_without_end(provider: Provider):
    chance = random.Random(provider.name)
    kinds = provider.faults()
    quick = sorted(set(kinds) - {"hang"})
    asked = {
        f"p{number}": [chance.choice(quick) for _ in range(chance.choice((0, 0, 1, 2, 3, 9)))] for number in range(24)
    }
    asked |= {"hang once": ["hang"], "hang and fail": ["hang", "500", "cut"]}
    provider.server.faults = {prompt: [kinds[kind] for kind in sequence] for prompt, sequence in asked.items()}
    patient = replace(QUICK, timeout_s=2.0)
    engine = provider.engine(concurrency=16, give_up_after=100, retry=patient)
    replies = list(engine.generate([Request(prompt, prompt) for prompt in asked], Sampling()))
    assert Counter(reply.key for reply in replies) == dict.fromkeys(asked, 1)
    sent = Counter(provider.server.prompt_of(body) for _, body in provider.server.requests)
    for reply in replies:
        faults = len(asked[reply.key])
        if faults < QUICK.attempts:
            assert (reply.status, reply.text, reply.attempts) == ("ok", f"said: {reply.key}", faults + 1)
        else:
            assert reply.status == "error"
            assert str(reply.error).startswith("gave up after 4 attempts: ")
        assert sent[reply.key] == reply.attempts <= QUICK.attempts


@pytest.mark.parametrize("kind", ["429", "500", "hang", "cut", "torn", "html", "reset"])
def test_a_fault_that_stays_is_told_by_its_reason(provider: Provider, kind: str):
    provider.server.faults["p"] = [provider.faults()[kind]] * 50
    quick = RetryPolicy(attempts=2, deadline_s=20, timeout_s=0.3, first_wait_s=0.01)
    reply = _ask(provider.engine(retry=quick), "p")["p"]
    assert (reply.status, reply.attempts, reply.text) == ("error", 2, None)
    reason = {"429": "HTTP 429", "500": "HTTP 500", "hang": "did not answer in time", "reset": "connection failed"}
    assert reason.get(kind, "") in str(reply.error)
    assert len(str(reply.error)) > len("gave up after 2 attempts: ") + 5


def test_a_wait_that_the_server_asks_for_holds_all_requests_back(provider: Provider):
    provider.server.faults["first"] = [provider.too_many(0.6)]
    engine = provider.engine(concurrency=1)
    assert all(reply.status == "ok" for reply in _ask(engine, "first", "second").values())
    first, again = provider.server.asked("first")
    assert again - first >= 0.6


def test_a_server_that_is_gone_is_not_asked_thousands_of_times(provider: Provider):
    for number in range(60):
        provider.server.faults[f"p{number}"] = [provider.broken] * 50
    quick = RetryPolicy(attempts=2, deadline_s=5, timeout_s=1, first_wait_s=0.001, longest_wait_s=0.001)
    replies = _ask(provider.engine(retry=quick, give_up_after=5, concurrency=2), *(f"p{n}" for n in range(60)))
    assert all(reply.status == "error" for reply in replies.values())
    assert len(provider.server.requests) <= 2 * 7
    unsent = [reply for reply in replies.values() if reply.attempts == 0]
    assert len(unsent) >= 53
    assert all("requests in a row failed before it, the last: gave up" in str(reply.error) for reply in unsent)


def test_replies_stream_in_a_running_event_loop(provider: Provider):
    async def run() -> list[Reply]:
        engine = provider.engine()
        return [reply async for reply in engine.stream([Request(str(n), str(n)) for n in range(5)], Sampling())]

    assert {reply.text for reply in asyncio.run(run())} == {f"said: {n}" for n in range(5)}


def test_frames_arrive_exactly_and_in_order_as_png(provider: Provider):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3)).astype(np.uint8)
    frames = Frames(pixels, (0, 45, 89), 30.0, 90)
    asked = [Request(f"q{n}", f"q{n}", "Be brief.", frames) for n in range(2)]
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
    sampling = Sampling(max_tokens=50, seed=3, stop=("\n",), json_schema=schema)
    assert all(reply.status == "ok" for reply in provider.engine(picture_format="png").generate(asked, sampling))
    for _, body in provider.server.requests:
        if provider.name == "openai":
            parts = body["messages"][1]["content"][:-1]
            data = [part["image_url"]["url"].removeprefix("data:image/png;base64,") for part in parts]
            assert body["response_format"]["json_schema"]["schema"] == schema
            assert (body["max_tokens"], body["temperature"], body["seed"], body["stop"]) == (50, 0.0, 3, ["\n"])
        else:
            data = [part["inlineData"]["data"] for part in body["contents"][0]["parts"][:-1]]
            config = body["generationConfig"]
            assert (config["responseMimeType"], config["responseJsonSchema"]) == ("application/json", schema)
            assert (config["maxOutputTokens"], config["temperature"], config["seed"]) == (50, 0.0, 3)
            assert config["stopSequences"] == ["\n"]
            assert body["systemInstruction"]["parts"] == [{"text": "Be brief."}]
        seen = [
            cv2.imdecode(np.frombuffer(base64.urlsafe_b64decode(_urlsafe(one)), np.uint8), cv2.IMREAD_COLOR)
            for one in data
        ]
        assert np.array_equal(np.stack(seen)[..., ::-1], pixels)  # pyright: ignore[reportArgumentType, reportCallIssue]


def _urlsafe(text: str) -> str:
    return text.replace("+", "-").replace("/", "_")


def test_costs_follow_the_tokens_and_failures_that_may_be_billed_count_in_full(provider: Provider):
    cut = provider.faults()["cut"]
    provider.server.faults = {"free": [provider.broken], "perhaps": [cut]}
    engine = provider.engine(price=DOLLAR)
    replies = _ask(engine, "plain", "free", "perhaps", sampling=Sampling(max_tokens=5))
    assert (replies["plain"].cost, replies["free"].cost) == (10.0, 10.0)
    bound = engine.estimate(Request("perhaps", "perhaps"), Sampling(max_tokens=5)).cost
    assert bound is not None
    assert replies["perhaps"].cost == 10.0 + bound


def test_the_cap_on_costs_holds_with_many_requests_under_way_through_faults(provider: Provider):
    chance = random.Random(3)
    faults = provider.faults()
    for number in range(80):
        kinds = [faults[chance.choice(["500", "cut", "reset"])] for _ in range(chance.choice((0, 0, 1)))]
        provider.server.faults[f"p{number:02}"] = kinds
    budget = Budget(2_000.0)
    engine = provider.engine(concurrency=16, price=DOLLAR, gate=LocalGate(Limits(start=16), budget))
    replies = _ask(engine, *(f"p{number:02}" for number in range(80)), sampling=Sampling(max_tokens=5))
    most_billed = 10 * len(provider.server.requests)  # each request costs 10 at most here
    stopped = [reply for reply in replies.values() if reply.status == "error"]
    assert budget.spent <= 2_000.0
    assert budget.held == 0
    assert sum(reply.cost or 0 for reply in replies.values()) == pytest.approx(budget.spent)
    assert stopped or budget.spent >= most_billed / 10
    tight = provider.engine(price=DOLLAR, gate=LocalGate(budget=Budget(100.0)))
    replies = _ask(tight, *(f"q{number:02}" for number in range(10)), sampling=Sampling(max_tokens=5))
    done = [reply for reply in replies.values() if reply.status == "ok"]
    assert 0 < len(done) < 10
    assert all("of the cap are spent" in str(reply.error) for reply in replies.values() if reply.status == "error")


def test_a_cap_needs_a_price():
    with pytest.raises(ConfigError, match="MICROG_PRICES"):
        open_card(card("gpt-4o").replaced(hub_id="new-model"), max_cost=1.0)
    assert open_card(card("gpt-4o"), max_cost=1.0).fingerprint()["model"] == "gpt-4o-2024-08-06"


def test_an_engine_is_opened_from_its_card_and_bad_settings_are_named():
    engine = open_card(card("gpt-5"), base_url="http://127.0.0.1:1/v1")
    assert isinstance(engine, OpenAiEngine)
    body = engine.body(Request("k", "p"), Sampling())
    assert "temperature" not in body
    assert body["extra_body"] == {"reasoning_effort": "minimal"}
    patient = open_card(card("gpt-5"), retry={"attempts": 2})  # as `--set settings.retry.attempts=2` gives it
    assert isinstance(patient, OpenAiEngine)
    assert patient.retry == RetryPolicy(attempts=2)
    with pytest.raises(ConfigError, match="retry has no tries"):
        open_card(card("gpt-5"), retry={"tries": 2})
    with pytest.raises(ConfigError, match="no setting colour"):
        open_card(card("gpt-4o"), colour="red")
    with pytest.raises(ConfigError, match="cannot run"):
        open_card(card("gemini-1.5-pro"))


def test_a_video_of_exact_frames_is_written_as_vllm_reads_it(monkeypatch: pytest.MonkeyPatch):
    frames = Frames(np.zeros((3, 8, 8, 3), np.uint8), (0, 45, 89), 30.0, 90)
    engine = OpenAiEngine("m", "http://127.0.0.1:1/v1", frames_as="video", picture_format="png")
    body = engine.body(Request("k", "p", frames=frames), Sampling())
    url = body["messages"][0]["content"][0]["video_url"]["url"]
    assert url.startswith("data:video/jpeg;base64,")
    assert len(url.split(",")) == 1 + 3
    assert body["extra_body"]["media_io_kwargs"]["video"] == {
        "num_frames": -1,
        "fps": 30.0,
        "frames_indices": [0, 45, 89],
        "total_num_frames": 90,
        "duration": 3.0,
        "do_sample_frames": False,
    }


def test_every_price_has_a_source_and_a_day_and_bounds_what_a_request_costs():
    for name in ("gpt-4o-2024-08-06", "gpt-5-2025-08-07", "gemini-2.5-pro", "gemini-3.8-flash", "gpt-6.1-sol"):
        price = price_of(name)
        assert price is not None
        assert price.source.startswith("https://")
        frames = Frames(np.zeros((9, 480, 854, 3), np.uint8), tuple(range(9)), 30.0, 90)
        engine = OpenAiEngine("m", price=price)
        bound = engine.estimate(Request("k", "What floats?", frames=frames), Sampling(max_tokens=100))
        assert bound.cost is not None
        assert bound.cost >= price.cost(9 * price.picture.count(854, 480) + 5, 100)
        assert 0 < price.cost(1000, 10, batch=True) < price.cost(1000, 10)
    assert price_of("unheard-of") is None
    assert price_of("gemini-2.5-pro").cost(300_000, 0) == pytest.approx(0.75)  # pyright: ignore[reportOptionalMemberAccess]


def test_a_price_table_of_ones_own_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    row = {
        "models": ["gpt-4o"],
        "input": 1.0,
        "output": 2.0,
        "picture": {"rule": "fixed", "tokens": 1},
        "source": "contract",
        "read": "2026-01-01",
    }
    (tmp_path / "prices.yaml").write_text(json.dumps([row]))
    monkeypatch.setenv("MICROG_PRICES", str(tmp_path / "prices.yaml"))
    assert price_of("gpt-4o").input == 1.0  # pyright: ignore[reportOptionalMemberAccess]
    (tmp_path / "bad.yaml").write_text("- {models: []}")
    monkeypatch.setenv("MICROG_PRICES", str(tmp_path / "bad.yaml"))
    with pytest.raises(ConfigError, match="is not valid"):
        price_of("gpt-4o")


def test_the_key_is_in_no_log_reply_cache_account_error_or_repr(
    provider: Provider, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
):
    caplog.set_level(logging.DEBUG)
    for name in ("openai", "httpx", "httpx2", "httpcore", "httpcore2", "google_genai", "asyncio"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    echo = json.dumps({"error": {"message": f"your key {KEY} is odd", "code": 400, "status": "x"}}).encode()
    provider.server.faults = {
        "row": [(400, {}, echo, None, 0.0)],
        "again": [(500, {}, echo, None, 0.0)] * 9,
        "torn": [(200, {}, f"<html>{KEY}".encode(), None, 0.0)] * 9,
        "reset": [model_server.reset()],
    }
    engine = provider.engine(price=DOLLAR, gate=LocalGate(budget=Budget(9e9, journal=tmp_path / "account.sqlite")))
    with ResponseCache(tmp_path / "cache.sqlite") as cache:
        asked = [Request(prompt, prompt) for prompt in ("fine", *provider.server.faults)]
        replies = list(generate_cached(engine, asked, Sampling(), cache))
    provider.server.faults["all"] = [(401, {}, echo, None, 0.0)]
    with pytest.raises(ConfigError) as raised:
        _ask(engine, "all")
    shown = "".join(traceback.format_exception(raised.value))
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    printed = capfd.readouterr()
    assert {reply.status for reply in replies} == {"ok", "error"}
    for text in (caplog.text, repr(replies), shown, repr(engine), str(engine.fingerprint()), *printed):
        assert KEY not in text
    assert KEY.encode() not in written
    assert provider.server.keys == {f"Bearer {KEY}" if provider.name == "openai" else KEY}


def test_the_cache_takes_writers_of_several_processes_one_of_which_is_killed_while_writing(tmp_path: Path):
    path = tmp_path / "c.sqlite"
    code = (
        "import sys\nfrom microg.models.vlm.api.cache import ResponseCache\nfrom microg.models.vlm.base import Reply\n"
        "cache = ResponseCache(sys.argv[1])\nprint('ready', flush=True)\n"
        "for n in range(int(sys.argv[3])):\n"
        "    cache.put(f'{n}', Reply('', f't{n}'))\n    cache.put(f'{sys.argv[2]}-{n}', Reply('', f't{n}' * 2000))\n"
    )
    run = [sys.executable, "-c", code, str(path)]
    victim = subprocess.Popen([*run, "victim", "1000000"], stdout=subprocess.PIPE)
    others = [subprocess.Popen([*run, name, "20"]) for name in ("a", "b")]
    assert victim.stdout is not None
    victim.stdout.readline()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with ResponseCache(path) as cache:
            if len(cache) > 30:
                break
        time.sleep(0.02)
    victim.kill()
    victim.wait()
    victim.stdout.close()
    assert [other.wait(60) for other in others] == [0, 0]
    with ResponseCache(path) as cache:
        for name in ("a", "b"):
            for n in range(20):
                assert cache.get(f"{name}-{n}") == Reply("", f"t{n}" * 2000, attempts=0, cached=True, cost=0.0)
        assert all(cache.get(str(n)) == Reply("", f"t{n}", attempts=0, cached=True, cost=0.0) for n in range(20))


def test_a_key_does_not_follow_a_redirect_to_another_host(provider: Provider):
    elsewhere: Any = type(provider.server)
    with elsewhere() as other:
        place = f"{other.url.replace('127.0.0.1', 'localhost')}/elsewhere"
        provider.server.faults["p"] = [(307, {"Location": place}, b"", None, 0.0)] * 9
        _ask(provider.engine(), "p")
        assert any(KEY in key for key in provider.server.keys)
        assert not any(KEY in key for key in other.keys)
