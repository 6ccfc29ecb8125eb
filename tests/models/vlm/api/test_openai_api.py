"""The OpenAI-compatible engine against a server that misbehaves, its retries, and the cache of replies."""

from __future__ import annotations

import base64
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from microg.errors import ConfigError
from microg.models.vlm.api.cache import ResponseCache, generate_cached
from microg.models.vlm.api.openai import OpenAiEngine
from microg.models.vlm.api.response import RetryPolicy, retry_after_s
from microg.models.vlm.base import Frames, Reply, Request, Sampling, content_key
from tests.support.openai_server import OpenAiServer, completion, cut_json, failure, hang, page, reset, torn

KEY = "sk-test-0123456789"
QUICK = RetryPolicy(attempts=4, deadline_s=20, timeout_s=2, first_wait_s=0.01, longest_wait_s=0.05)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAiServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with OpenAiServer() as running:
        yield running


def _engine(server: OpenAiServer, retry: RetryPolicy = QUICK, **settings: object) -> OpenAiEngine:
    return OpenAiEngine("m", server.url, retry=retry, **settings)  # pyright: ignore[reportArgumentType]


def _ask(engine: OpenAiEngine, *prompts: str) -> dict[str, Reply]:
    replies = list(engine.generate([Request(prompt, prompt) for prompt in prompts], Sampling()))
    assert len(replies) == len(prompts)
    return {reply.key: reply for reply in replies}


def test_every_request_gets_one_reply_with_text_and_usage(server: OpenAiServer):
    prompts = [f"p{number}" for number in range(30)]
    server.latency_s = 0.01
    replies = _ask(_engine(server, concurrency=5), *prompts)
    assert {key: reply.text for key, reply in replies.items()} == {prompt: f"said: {prompt}" for prompt in prompts}
    first = replies["p0"]
    assert (first.status, first.prompt_tokens, first.completion_tokens, first.attempts) == ("ok", 7, 3, 1)
    assert 1 < server.most_at_once <= 5
    assert server.keys == {f"Bearer {KEY}"}


@pytest.mark.parametrize(
    "fault",
    [failure(429), failure(500), failure(503), torn(), cut_json(), page(), reset(), failure(408)],
    ids=["429", "500", "503", "torn", "cut json", "html", "reset", "408"],
)
def test_passing_faults_are_tried_again(server: OpenAiServer, fault):
    server.faults["p"] = [fault, fault]
    reply = _ask(_engine(server), "p")["p"]
    assert (reply.text, reply.status, reply.attempts) == ("said: p", "ok", 3)


def test_a_hanging_server_costs_one_timeout_and_not_the_answer(server: OpenAiServer):
    server.faults["p"] = [hang(60)]
    quick = RetryPolicy(attempts=3, deadline_s=20, timeout_s=0.3, first_wait_s=0.01)
    reply = _ask(_engine(server, quick), "p")["p"]
    assert (reply.text, reply.attempts) == ("said: p", 2)


def test_deadline_ends_a_request_that_never_succeeds_and_says_why(server: OpenAiServer):
    server.faults["p"] = [hang(60)] * 50
    policy = RetryPolicy(attempts=50, deadline_s=0.8, timeout_s=0.3, first_wait_s=0.01)
    replies = _ask(_engine(server, policy), "p", "fine")
    assert len(server.asked("p")) <= 4  # of 50 attempts, those that began in time
    assert replies["p"].status == "error"
    assert "did not answer in time" in str(replies["p"].error)
    assert replies["p"].text is None
    assert replies["fine"].status == "ok"


def test_attempts_end_and_the_last_problem_is_told(server: OpenAiServer):
    server.faults["p"] = [failure(500, "overheated")] * 50
    reply = _ask(_engine(server), "p")["p"]
    assert (reply.status, reply.attempts) == ("error", QUICK.attempts)
    assert str(reply.error).startswith("gave up after 4 attempts: HTTP 500")
    assert "overheated" in str(reply.error)
    assert len(server.asked("p")) == QUICK.attempts


def test_retry_after_is_honoured(server: OpenAiServer):
    server.faults["p"] = [failure(429, Retry_After="1")]
    assert _ask(_engine(server), "p")["p"].status == "ok"
    first, second = server.asked("p")
    assert second - first >= 1.0


def test_retry_after_past_the_deadline_gives_up_at_once(server: OpenAiServer):
    server.faults["p"] = [failure(429, Retry_After="900")]  # longer than a test may take
    reply = _ask(_engine(server), "p")["p"]
    assert (reply.status, reply.attempts) == ("error", 1)


def test_a_request_that_is_refused_is_not_sent_again(server: OpenAiServer):
    server.faults["bad"] = [failure(400, "too long")] * 9
    replies = _ask(_engine(server), "bad", "good")
    assert (replies["bad"].status, replies["bad"].attempts) == ("error", 1)
    assert "too long" in str(replies["bad"].error)
    assert replies["good"].status == "ok"


def test_an_answer_without_text_is_an_error_with_its_reason(server: OpenAiServer):
    server.faults["p"] = [(200, {}, completion(None, "content_filter"), None, 0.0)]
    reply = _ask(_engine(server), "p")["p"]
    assert (reply.status, reply.text) == ("error", None)
    assert "content_filter" in str(reply.error)


@pytest.mark.parametrize("fault", [failure(401), failure(404), failure(429, code="insufficient_quota")])
def test_what_no_request_can_survive_stops_the_run(server: OpenAiServer, fault):
    server.faults["p"] = [fault] * 9
    with pytest.raises(ConfigError, match=r"refuses model 'm'"):
        _ask(_engine(server, concurrency=1), "p", *map(str, range(20)))
    assert len(server.requests) == 1


def test_the_key_is_in_no_error_even_when_the_server_repeats_it(server: OpenAiServer):
    server.faults["row"] = [failure(400, f"key {KEY} is odd")]
    server.faults["all"] = [failure(401, f"wrong key {KEY}")]
    assert KEY not in str(_ask(_engine(server), "row")["row"])
    with pytest.raises(ConfigError) as raised:
        _ask(_engine(server), "all")
    assert KEY not in str(raised.value)
    assert raised.value.__cause__ is None
    assert KEY not in repr(_engine(server))
    assert KEY not in str(_engine(server).fingerprint())


def test_a_missing_key_is_told_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ConfigError, match="MY_KEY is not set"):
        _ask(OpenAiEngine("m", "https://api.example.org/v1", key_variable="MY_KEY"), "p")


def test_a_server_here_needs_no_key(server: OpenAiServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    assert _ask(_engine(server), "p")["p"].status == "ok"


@pytest.mark.parametrize("url", ["nonsense", "ftp://x/v1", "http://me:secret@host/v1"])
def test_urls_that_cannot_work_are_refused(url: str):
    with pytest.raises(ConfigError) as raised:
        OpenAiEngine("m", url)
    assert "secret" not in str(raised.value)


def test_leaving_early_stops_what_is_under_way(server: OpenAiServer):
    for number in range(1, 50):
        server.faults[str(number)] = [hang(60)]
    patient = RetryPolicy(timeout_s=60)
    replies = _engine(server, patient, concurrency=2).generate([Request(str(n), str(n)) for n in range(50)], Sampling())
    began = time.monotonic()
    next(replies)
    replies.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert time.monotonic() - began < 60 / 2  # before any answer that was under way came
    assert len(server.requests) < 10


def test_frames_are_sent_in_order_as_pictures_before_the_question(server: OpenAiServer):
    import cv2

    pixels = np.stack([np.full((16, 24, 3), value, np.uint8) for value in (10, 120, 240)])
    pixels[..., 2] = 0  # red and blue differ
    frames = Frames(pixels, (0, 45, 89), 30.0, 90)
    list(_engine(server).generate([Request("k", "What floats?", "Be brief.", frames)], Sampling(seed=3, stop=("\n",))))
    body = server.requests[0][1]
    assert (body["seed"], body["stop"], body["messages"][0]) == (3, ["\n"], {"role": "system", "content": "Be brief."})
    parts = body["messages"][1]["content"]
    assert parts[-1] == {"type": "text", "text": "What floats?"}
    for part, true in zip(parts[:-1], pixels, strict=True):
        raw = base64.b64decode(part["image_url"]["url"].removeprefix("data:image/jpeg;base64,"))
        seen = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)
        assert seen is not None
        assert np.abs(seen[..., ::-1].astype(int) - true).max() <= 4


def test_retry_after_is_read_as_seconds_milliseconds_and_date():
    assert retry_after_s({"retry-after": "Wed, 21 Oct 2015 07:28:10 GMT"}, now=1445412480.0) == 10.0
    assert retry_after_s({"retry-after": "-5"}) == 0.0
    assert retry_after_s({"retry-after": "soon"}) is None
    assert retry_after_s({"retry-after": "nan"}) is None


def test_waits_grow_stay_bounded_and_differ():
    policy = RetryPolicy(first_wait_s=1, longest_wait_s=8)
    waits = [[policy.wait_s(attempt, None, random.Random(seed)) for attempt in range(1, 9)] for seed in range(20)]
    assert all(0.5 <= row[0] <= 1 and 4 <= row[7] <= 8 for row in waits)
    assert len({row[3] for row in waits}) == 20


def test_cached_replies_are_not_asked_again(server: OpenAiServer, tmp_path: Path):
    asked = [Request("a", "same"), Request("b", "same"), Request("c", "other")]
    with ResponseCache(tmp_path / "cache.sqlite") as cache:
        first = {reply.key: reply for reply in generate_cached(_engine(server), asked, Sampling(), cache)}
    assert len(server.requests) == 2
    with ResponseCache(tmp_path / "cache.sqlite") as cache:
        second = {reply.key: reply for reply in generate_cached(_engine(server), asked, Sampling(), cache)}
    assert len(server.requests) == 2
    assert {key: reply.text for key, reply in first.items()} == {key: reply.text for key, reply in second.items()}
    assert all(reply.cached and reply.attempts == 0 for reply in second.values())


def test_failures_are_not_cached(server: OpenAiServer, tmp_path: Path):
    server.faults["p"] = [failure(400)]
    with ResponseCache(tmp_path / "c.sqlite") as cache:
        assert next(generate_cached(_engine(server), [Request("p", "p")], Sampling(), cache)).status == "error"
        assert next(generate_cached(_engine(server), [Request("p", "p")], Sampling(), cache)).text == "said: p"


def test_the_cache_key_is_of_all_that_decides_an_answer(server: OpenAiServer):
    pixels = np.zeros((1, 4, 4, 3), np.uint8)
    frames = Frames(pixels, (0,), 30.0, 90)
    base = Request("k", "p", "s", frames)
    keys = {
        content_key(engine, request, sampling)
        for engine in (_engine(server), OpenAiEngine("other", server.url), OpenAiEngine("m", "http://127.0.0.1:1/v1"))
        for request in (
            base,
            Request("k", "q", "s", frames),
            Request("k", "p", "", frames),
            Request("k", "p", "s"),
            Request("k", "p", "s", Frames(pixels + 1, (0,), 30.0, 90)),
        )
        for sampling in (Sampling(), Sampling(temperature=1.0), Sampling(json_schema={"type": "object"}))
    }
    assert len(keys) == 3 * 5 * 3
    renamed = Request("another", "p", "s", frames)
    assert content_key(_engine(server), base, Sampling()) == content_key(_engine(server), renamed, Sampling())


def test_cache_survives_the_death_of_its_writer(tmp_path: Path):
    path = tmp_path / "c.sqlite"
    code = (
        "import os, signal, sys\nfrom microg.models.vlm.api.cache import ResponseCache\n"
        "from microg.models.vlm.base import Reply\n"
        "cache = ResponseCache(sys.argv[1])\n"
        "for n in range(20):\n    cache.put(str(n), Reply('', f't{n}'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    with ResponseCache(path) as cache:
        assert len(cache) == 20
        assert cache.get("7") == Reply("", "t7", attempts=0, cached=True, cost=0.0)


def test_a_file_that_is_no_cache_is_refused(tmp_path: Path):
    (tmp_path / "text.sqlite").write_text("this is no database " * 100)
    with pytest.raises(ConfigError, match="cannot be used"):
        ResponseCache(tmp_path / "text.sqlite")
    other = sqlite3.connect(tmp_path / "other.sqlite")
    other.execute("CREATE TABLE replies (x)")
    other.commit()
    other.close()
    with pytest.raises(ConfigError, match="cannot be used"):
        ResponseCache(tmp_path / "other.sqlite")
