"""Servers that are not quite OpenAI: one odd reply is one row with its reason, and never the run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from microg.errors import ConfigError
from microg.models.vlm.api.completion import read_completion
from microg.models.vlm.api.gemini import GeminiEngine
from microg.models.vlm.api.openai import OpenAiEngine
from microg.models.vlm.api.openai_batch import OpenAiBatch
from microg.models.vlm.api.response import RetryPolicy, TornAnswerError
from microg.models.vlm.base import Reply, Request, Sampling
from microg.models.vlm.prompts import parse, prompt
from microg.pipelines.vlm.answer_stage import reply_columns
from tests.support import gemini_server
from tests.support.model_server import Fault
from tests.support.openai_server import BatchServer, OpenAiServer, completion, failure
from tests.support.prices import DOLLAR

QUICK = RetryPolicy(attempts=2, deadline_s=20, timeout_s=5, first_wait_s=0.01, longest_wait_s=0.02)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")
    with BatchServer() as running:
        yield running


def _said(document: object) -> Fault:
    return 200, {}, json.dumps(document).encode(), None, 0.0


def _message(content: object, finish_reason: str = "stop", usage: object = None, **more: object) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, **more}
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish_reason}], "usage": usage}


def _read(document: object) -> Reply:
    return read_completion(json.dumps(document).encode(), {}).reply("odd")


def _ask(engine: OpenAiEngine, *prompts: str) -> dict[str, Reply]:
    replies = list(engine.generate([Request(prompt, prompt) for prompt in prompts], Sampling()))
    return {reply.key: reply for reply in replies}


def _answer(server: OpenAiServer, *faults: Fault, **settings: Any) -> Reply:
    """Return the reply to a request that meets `faults`, and check that the next one is answered as ever."""
    server.faults["odd"] = list(faults)
    replies = _ask(OpenAiEngine("m", server.url, retry=QUICK, concurrency=1, **settings), "odd", "plain")
    assert (replies["plain"].status, replies["plain"].text) == ("ok", "said: plain")
    return replies["odd"]


def _batch_answer(server: BatchServer, folder: Path, body: object) -> Reply:
    server.bodies["odd"] = body
    batch = OpenAiBatch(OpenAiEngine("m", server.url, price=DOLLAR), str(folder), poll_s=0.01)
    batch.submit([Request("odd", "odd"), Request("plain", "plain")], Sampling())
    (found,) = batch.pending()
    replies = {reply.key: reply for reply in batch.collect(found)}
    assert replies["plain"].text == "said: plain"
    return replies["odd"]


@pytest.mark.parametrize(
    ("name", "status", "text", "error"),
    [
        ("content-as-list", 200, "A man floats.", None),
        ("lone-surrogate", 200, "bad \ufffd end", None),
        ("http-403-moderation", 403, None, "Your input was flagged"),
        ("error-json-with-200", 200, None, "Provider returned error"),
    ],
)
def test_every_reply_of_the_collected_cases_is_one_row(
    server: BatchServer, cases: Path, tmp_path: Path, name: str, status: int, text: str | None, error: str | None
):
    body = (cases / "server" / f"{name}.json").read_bytes()
    batched = _batch_answer(server, tmp_path, json.loads(body)) if status == 200 else None
    for reply in filter(None, [_answer(server, *[(status, {}, body, None, 0.0)] * 9), batched]):
        assert (reply.status, reply.text) == ("ok" if error is None else "error", text)
        assert error is None or error in str(reply.error)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "Two "}, {"type": "text", "text": "men."}], "Two men."),
        ([{"type": "reasoning", "text": "hm"}, {"type": "output_text", "text": "Two."}], "Two."),
        ([{"text": "Two."}, {"type": "thinking", "thinking": "hm"}, None, 3], "Two."),
        (["Two", " men."], "Two men."),
        ({"type": "text", "text": "Two."}, "Two."),
    ],
)
def test_parts_of_text_are_joined_and_parts_of_thinking_left_out(content: object, text: str):
    assert _read(_message(content)).text == text


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (_message("", reasoning_content="He floats."), "no text (finish_reason stop); reasoning came beside it"),
        (_message(" \n", "length", reasoning="He"), "no text (finish_reason length); reasoning came beside it"),
        (_message([{"type": "thinking", "thinking": "hm"}]), "no text (finish_reason stop); reasoning"),
        (_message("", "content_filter"), "stopped by the server's filter (finish_reason content_filter)"),
        (_message("A man", "content_filter"), "stopped by the server's filter (finish_reason content_filter)"),
        (_message(None, refusal="I cannot."), "refused: I cannot."),
        (_message({"a": 1}), "no text"),
    ],
)
def test_an_answer_without_text_is_a_failed_row_with_its_reason(document: dict[str, Any], reason: str):
    reply = _read(document)
    assert (reply.status, reply.text) == ("error", None)
    assert reason in str(reply.error)


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": "12", "completion_tokens": "3"},
        {"prompt_tokens": "many", "completion_tokens": [3], "prompt_tokens_details": "none"},
        {"prompt_tokens": -1, "completion_tokens": 1e300, "prompt_tokens_details": {"cached_tokens": {}}},
        {"prompt_tokens": float("nan"), "completion_tokens": True},
        {"prompt_tokens": "9" * 5000, "completion_tokens": {}},
        "12",
        [1],
    ],
)
def test_no_count_of_tokens_loses_an_answer(usage: object):
    reply = _read(_message("Two.", usage=usage))
    assert (reply.status, reply.text) == ("ok", "Two.")
    stated = usage == {"prompt_tokens": "12", "completion_tokens": "3"}
    assert (reply.prompt_tokens, reply.completion_tokens) == ((12, 3) if stated else (None, None))


def test_a_price_and_counts_that_are_none_go_together(server: BatchServer, tmp_path: Path):
    document = _message("Two.", usage={"prompt_tokens": "many"})
    assert _answer(server, _said(document), price=DOLLAR).text == "Two."
    assert _batch_answer(server, tmp_path, document).text == "Two."


@pytest.mark.parametrize(
    "document",
    [
        {"error": {"message": "it broke", "code": 400}},
        {"choices": None, "error": "it broke"},
        {"choices": [], "detail": "it broke"},
        {"choices": [{"message": {"content": ""}, "finish_reason": "error", "error": {"message": "it broke"}}]},
        {"error": {"message": "upstream", "code": "502", "metadata": {"raw": "it broke"}}},
    ],
)
def test_an_error_under_status_200_is_told_in_the_servers_words(document: object):
    with pytest.raises(TornAnswerError, match=r"an error with HTTP 200: .*it broke"):
        _read(document)


def test_an_error_under_status_200_is_tried_again_where_its_code_passes(server: BatchServer):
    busy = _said({"error": {"message": "too many requests", "code": 429}})
    reply = _answer(server, busy)
    assert (reply.text, reply.attempts) == ("said: odd", 2)
    wrong = _said({"error": {"message": "too long", "code": 400}})
    assert _answer(server, wrong, wrong).attempts == 1


@pytest.mark.parametrize(
    "words", ["Your input was flagged", "Content violates usage guidelines", "blocked by our safety system"]
)
def test_a_403_that_speaks_of_the_input_fails_its_row_only_however_many_come(server: BatchServer, words: str):
    bad = [f"bad{number}" for number in range(20)]
    server.faults = {name: [failure(403, words)] * 9 for name in bad}
    replies = _ask(OpenAiEngine("m", server.url, retry=QUICK, concurrency=1), *bad, "plain")
    assert {replies[name].status for name in bad} == {"error"}
    assert all(words in str(replies[name].error) and replies[name].attempts == 1 for name in bad)
    assert replies["plain"].status == "ok"


def test_403_to_the_first_three_requests_is_a_refused_key_and_ends_the_run(server: BatchServer):
    names = [f"p{number}" for number in range(20)]
    server.faults = {name: [failure(403, "Forbidden")] * 9 for name in names}
    with pytest.raises(ConfigError, match=r"HTTP 403: .*Forbidden"):
        _ask(OpenAiEngine("m", server.url, retry=QUICK, concurrency=1), *names)
    assert len(server.requests) == 3


def test_403_and_404_after_an_answer_are_of_their_request(server: BatchServer):
    engine = OpenAiEngine("m", server.url, retry=QUICK, concurrency=1, give_up_after=100)
    odd = [f"odd{number}" for number in range(8)]
    server.faults = {name: [failure(403 + number % 2)] * 9 for number, name in enumerate(odd)}
    replies = _ask(engine, "plain", *odd, "last")
    assert [replies[name].status for name in odd] == ["error"] * 8
    assert replies["last"].status == "ok"


def test_one_forbidden_input_alone_is_a_row_so_that_a_resume_ends(server: BatchServer):
    server.faults["odd"] = [failure(403, "Forbidden")] * 9
    reply = _ask(OpenAiEngine("m", server.url, retry=QUICK), "odd")["odd"]
    assert (reply.status, reply.attempts) == ("error", 1)


def test_a_key_that_is_refused_in_the_middle_is_given_up_after_some_requests(server: BatchServer):
    names = [f"p{number}" for number in range(20)]
    server.faults = {name: [failure(403)] * 9 for name in names}
    replies = _ask(OpenAiEngine("m", server.url, retry=QUICK, concurrency=1, give_up_after=5), "plain", *names)
    assert len(server.requests) == 6
    assert "5 requests in a row failed" in str(replies["p19"].error)


def test_half_a_character_is_replaced_wherever_a_server_puts_it(server: BatchServer, tmp_path: Path):
    server.answer = lambda body: "said: plain"
    reply = _answer(server, _said(_message("a \ud83d b \ud83d\ude00", "st\udc00op")))
    assert (reply.text, reply.finish_reason) == ("a \ufffd b \U0001f600", "st\ufffdop")
    assert _batch_answer(server, tmp_path, _message("\ud83d b")).text == "\ufffd b"
    refused = _answer(server, _said(_message(None, refusal="no \ud83d")))
    assert str(refused.error) == "refused: no \ufffd"
    told = _answer(server, *[(400, {}, b'{"error": {"message": "bad \\ud83d"}}', None, 0.0)] * 2)
    str(told.error).encode()
    structured = parse("x-v1", "{id: x-v1, task: vqa, about: a, user: u, json_schema: {properties: {a: {}}}}")
    row = reply_columns(structured.replaced(answer_field="a"), Reply("k", r'{"a": "\ud83d b"}'))
    assert row["text"] == "\ufffd b"


def test_what_a_filter_of_gemini_cut_off_is_a_failed_row(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GEMINI_API_KEY", "x")
    with gemini_server.GeminiServer() as server:
        server.faults = {
            "cut": [(200, {}, gemini_server.content("A man", "SAFETY"), None, 0.0)],
            "half": [(200, {}, gemini_server.content("a \ud83d b"), None, 0.0)],
        }
        engine = GeminiEngine("m", server.url, retry=QUICK)
        replies = {reply.key: reply for reply in engine.generate([Request(k, k) for k in server.faults], Sampling())}
    assert (replies["cut"].status, replies["half"].text) == ("error", "a \ufffd b")
    assert "SAFETY" in str(replies["cut"].error)


def test_an_empty_answer_of_any_engine_is_a_failed_row():
    for text in ("", " \n\t"):
        row = reply_columns(prompt("vqa-v1"), Reply("k", text, finish_reason="stop", completion_tokens=1))
        assert (row["status"], row["text"]) == ("error", None)
        assert row["error"] == "the answer is empty (finish_reason stop)"


def test_a_line_of_a_batch_may_hold_any_character_of_unicode(server: BatchServer, tmp_path: Path):
    reply = _batch_answer(server, tmp_path, json.loads(completion("one\u2028two\x85three")))
    assert reply.text == "one\u2028two\x85three"
