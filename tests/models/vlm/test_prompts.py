"""Prompts: released ones never change, rendering is pure, structured answers are checked."""

from __future__ import annotations

import pytest

from microg.errors import ConfigError
from microg.models.vlm import prompts
from microg.models.vlm.prompts import UNANSWERABLE, parse, prompt, read_json

# Released prompts. A change here is a change of published results: add a new version instead.
RELEASED = {
    "caption-short-v1": "5af840c4b0b92e10",
    "caption-v1": "5b84cc64cc9df6a6",
    "qa-check-v1": "ecaf8ee7d9434a58",
    "qa-kind-v1": "7f357eaa9dc30a98",
    "qa-propose-v1": "ad9e32040fc2444f",
    "qa-rank-v1": "c42339972c830b29",
    "screening-v1": "68b832b30647fb89",
    "vqa-json-v1": "4bfb2b38fdbf4c9f",
    "vqa-unanswerable-v1": "11d44760de515afe",
    "vqa-v1": "bfc793c697ddee7a",
}


def test_released_prompts_never_change():
    assert {name: prompt(name).hash for name in prompts.names()} == RELEASED


def test_the_hash_changes_with_every_character_that_reaches_the_model():
    text = "id: a-v1\ntask: vqa\nabout: x\nuser: 'Why {question}?'\nfields: [question]\n"
    first = parse("a-v1", text)
    assert parse("a-v1", text.replace("about: x", "about: y")).hash == first.hash
    for change in (("Why", "Why "), ("task: vqa", "task: text"), ("about: x", "about: x\nsystem: Be brief.")):
        assert parse("a-v1", text.replace(*change)).hash != first.hash


def test_what_is_filled_in_is_never_read_as_a_template():
    text = "id: a-v1\ntask: text\nabout: x\nuser: '{a} and {b} {c}'\nfields: [a, b]\n"
    assert parse("a-v1", text).render(a="{b}", b="{a}{0}%s") == "{b} and {a}{0}%s {c}"


@pytest.mark.parametrize("fields", [{}, {"question": "x", "other": "y"}])
def test_missing_and_unknown_fields_are_refused(fields):
    with pytest.raises(ConfigError, match=r"takes the fields \['question'\]"):
        prompt("vqa-v1").render(**fields)


def test_a_request_carries_the_rendered_text_and_the_system_message():
    request = prompt("vqa-v1").request("clip_000/0", question="What floats?")
    assert request.key == "clip_000/0"
    assert request.prompt.endswith("Question: What floats?")


def test_a_plain_reply_loses_only_the_space_around_it():
    assert prompt("vqa-v1").read("  A cup.\n") == "A cup."


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ('{"answerable": true, "answer": " A cup. "}', "A cup."),
        ('```json\n{"answerable": true, "answer": "A cup."}\n```', "A cup."),
        ('{"answerable": false, "answer": "I cannot tell."}', UNANSWERABLE),
    ],
)
def test_a_structured_reply_becomes_its_answer(reply, answer):
    assert prompt("vqa-json-v1").read(reply) == answer


@pytest.mark.parametrize(
    "reply",
    [
        "A cup.",
        "",
        '{"answer": "A cup."}',
        '{"answerable": "yes", "answer": "A cup."}',
        "[]",
        "null",
        '{"answerable": true, "answer": 3}',
        '{"answerable": true, "answer": "x", "more": 1}',
        '{"answerable": tru',
    ],
)
def test_a_reply_of_another_shape_is_an_error(reply):
    with pytest.raises(ValueError, match="the reply is not"):
        prompt("vqa-json-v1").read(reply)


def test_json_is_found_in_a_fence():
    assert read_json('```\n{"a": [1, 2]}\n```\n') == {"a": [1, 2]}


@pytest.mark.parametrize(
    "text",
    [
        "id: b-v1\ntask: vqa\nabout: x\nuser: y\n",
        "id: a\ntask: vqa\nabout: x\nuser: y\n",
        "- a\n",
        "a: [",
        "id: a-v1\ntask: vqa\nabout: x\nuser: y\nfields: [question]\n",
        "id: a-v1\ntask: vqa\nabout: x\nuser: y\nanswer_field: answer\n",
    ],
)
def test_a_bad_prompt_file_is_refused(text):
    with pytest.raises(ConfigError):
        parse("a-v1", text)


def test_an_unknown_prompt_is_told_with_those_there_are():
    with pytest.raises(ConfigError, match="caption-v1"):
        prompt("../secrets")
