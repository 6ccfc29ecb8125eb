"""A real vLLM server through the openai engine: exact frames, so the very answers of the same model in this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from microg.models.vlm.api.openai import OpenAiEngine
from microg.models.vlm.base import Reply, Request, Sampling
from microg.models.vlm.engines.transformers import TransformersEngine
from tests.support.vllm_server import vllm_server
from tests.support.vlm_requests import COUNTS, SCHEMA, clip, questions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
SHORT = Sampling(max_tokens=12)


@pytest.fixture(scope="module")
def folder(tiny_vlm: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose own taste in sampling would change every answer."""
    folder = shutil.copytree(tiny_vlm("qwen2_5_vl"), tmp_path_factory.mktemp("served") / "model")
    file = folder / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "repetition_penalty": 5.0, "top_k": 1}))
    return folder


@pytest.fixture(scope="module")
def url(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("vllm")
    log = tmp_path_factory.mktemp("log") / "vllm.log"
    limits = json.dumps({"video": 1, "image": 16})
    with vllm_server(folder, log, "--trust-request-mm-kwargs", "--limit-mm-per-prompt", limits) as url:
        yield url


def by_key(replies: Iterator[Reply]) -> dict[str, tuple[str | None, int | None]]:
    found = {reply.key: reply for reply in replies}
    assert [reply.error for reply in found.values()] == [None] * len(found)
    return {key: (reply.text, reply.prompt_tokens) for key, reply in found.items()}


def test_frames_as_a_video_are_the_frames_that_were_sampled(url: str, folder: Path):
    requests = questions([clip(count, count) for count in COUNTS], "What is there?")
    served = OpenAiEngine("tiny", url, frames_as="video", picture_format="png")
    expected = by_key(TransformersEngine(str(folder), threads=1).generate(requests, SHORT))
    assert by_key(served.generate(requests, SHORT)) == expected


def test_frames_as_images_are_the_frames_that_were_sampled(url: str, folder: Path):
    requests = questions([clip(count, count) for count in COUNTS if count <= 16], "What is there?")
    neutral = {"repetition_penalty": 1.0, "top_k": 0}
    served = OpenAiEngine("tiny", url, picture_format="png", extra_body=neutral)
    expected = by_key(TransformersEngine(str(folder), frames_as="images", threads=1).generate(requests, SHORT))
    assert by_key(served.generate(requests, SHORT)) == expected


def test_what_a_server_refuses_is_a_failed_row_beside_good_ones(url: str):
    served = OpenAiEngine("tiny", url, frames_as="video")
    requests = [*questions([clip(0)], "What?"), Request("long", "word " * 9000, frames=clip(0))]
    replies = {reply.key: reply for reply in served.generate(requests, SHORT)}
    assert replies["0/0"].status == "ok"
    assert "maximum context length" in str(replies["long"].error)


def test_a_served_answer_keeps_to_the_json_schema(url: str):
    served = OpenAiEngine("tiny", url, frames_as="video")
    for reply in served.generate(questions([clip(0)], "What?"), Sampling(max_tokens=400, json_schema=SCHEMA)):
        assert set(json.loads(str(reply.text))) == {"answerable", "answer"}
