"""The vLLM engine on tiny real models: frames as given, answers equal to transformers', failures alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from microg.errors import ConfigError
from microg.models.vlm.base import Frames, Request, Sampling
from microg.models.vlm.engines import vllm as vllm_engine
from microg.models.vlm.engines.transformers import TransformersEngine
from microg.models.vlm.engines.vllm import VllmEngine
from tests.support.vllm_process import VllmProcess
from tests.support.vlm_requests import COUNTS, SCHEMA, clip, questions

# vLLM starts in most of a minute, on a busy machine in several
pytestmark = pytest.mark.timeout(900)
SHORT = Sampling(max_tokens=16)


@pytest.fixture(scope="session")
def vllm() -> Iterator[VllmProcess]:
    pytest.importorskip("vllm")
    with VllmProcess() as process:
        yield process


@pytest.fixture
def qwen(tiny_vlm: Callable[[str], Path]) -> Path:
    return tiny_vlm("qwen2_5_vl")


def texts(replies: dict[str, Any]) -> dict[str, Any]:
    return {key: (reply.text, reply.prompt_tokens, reply.completion_tokens) for key, reply in replies.items()}


# What needs no vLLM to run.


def test_vllm_is_given_the_frames_once_and_told_not_to_sample(qwen: Path):
    engine = VllmEngine(str(qwen))
    first, second = (engine._prompt(request) for request in questions([clip(0)], "What?", "Who is it?"))
    pixels, about = first["multi_modal_data"]["video"][0]
    assert np.array_equal(pixels, clip(0).pixels)
    assert about["do_sample_frames"] is False
    assert about["frames_indices"] == list(clip(0).indices)
    # questions about a clip share its name, and the tokens before the question
    assert first["multi_modal_uuids"] == second["multi_modal_uuids"]
    video = first["prompt_token_ids"].index(engine.chat.tokenizer.convert_tokens_to_ids("<|video_pad|>"))
    assert first["prompt_token_ids"][: video + 1] == second["prompt_token_ids"][: video + 1]


def test_the_same_pixels_at_other_times_are_another_video(qwen: Path):
    engine, shown = VllmEngine(str(qwen)), clip(0)
    later = Frames(shown.pixels, tuple(index + 1 for index in shown.indices), shown.fps, 91)
    names = [engine._prompt(request)["multi_modal_uuids"]["video"][0] for request in questions([shown, later], "What?")]
    assert names[0] != names[1]


def test_frames_are_images_where_that_is_asked(qwen: Path):
    engine = VllmEngine(str(qwen), frames_as="images", limit_mm_per_prompt={"image": 3, "video": 0})
    prompt = engine._prompt(questions([clip(0, 3)], "What?")[0])
    shown = np.stack([np.asarray(picture) for picture in prompt["multi_modal_data"]["image"]])
    assert np.array_equal(shown, clip(0, 3).pixels)
    image = engine.chat.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert prompt["prompt_token_ids"].count(image) == len(set(prompt["multi_modal_uuids"]["image"])) == 3


def test_vllm_is_started_for_the_machine_it_is_on(qwen: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(vllm_engine, "on_cpu", lambda: True)
    on_cpu = VllmEngine(str(qwen)).arguments()
    assert (on_cpu["max_model_len"], on_cpu["dtype"], on_cpu["enforce_eager"]) == (4096, "float32", True)
    assert on_cpu["kv_cache_memory_bytes"] == 64 << 20
    monkeypatch.setattr(vllm_engine, "on_cpu", lambda: False)
    on_gpu = VllmEngine(str(qwen), tensor_parallel=2, options={"enforce_eager": True}).arguments()
    assert (on_gpu["tensor_parallel_size"], on_gpu["gpu_memory_utilization"]) == (2, 0.9)
    assert on_gpu["distributed_executor_backend"] == "mp"
    over_nodes = VllmEngine(str(qwen), pipeline_parallel=2, over_nodes=True).arguments()
    assert (over_nodes["pipeline_parallel_size"], over_nodes["distributed_executor_backend"]) == (2, "ray")
    assert on_gpu["enforce_eager"] is True
    assert "kv_cache_memory_bytes" not in on_gpu


def test_without_vllm_the_engine_says_how_to_get_it(qwen: Path, monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> str:
        raise vllm_engine.PackageNotFoundError(name)

    monkeypatch.setattr(vllm_engine, "version", missing)
    with pytest.raises(ConfigError, match="uv sync"):
        VllmEngine(str(qwen)).load()


def test_a_model_that_is_not_there_is_told_before_vllm_starts(tmp_path: Path):
    with pytest.raises(ConfigError, match="there is no model folder"):
        VllmEngine(str(tmp_path / "nowhere")).load()


# What runs it.


@pytest.fixture(params=["qwen2_5_vl", "llava_next_video", "internvl"])
def folder(request: pytest.FixtureRequest, tiny_vlm: Callable[[str], Path]) -> Path:
    return tiny_vlm(request.param)


@pytest.mark.slow
def test_vllm_processes_the_pixels_that_were_sampled(vllm: VllmProcess, folder: Path):
    clips = [clip(count, count) for count in COUNTS]
    seen = vllm.seen(folder, questions(clips, "What?"))
    assert len(seen) == len(clips)
    for frames, pixels in zip(clips, seen, strict=True):
        assert np.array_equal(pixels, frames.pixels)


@pytest.mark.slow
def test_greedy_answers_are_those_of_transformers(vllm: VllmProcess, folder: Path):
    clips = [clip(count, count) for count in COUNTS]
    requests = [*questions(clips, "What is there?", "Who is it, and where?"), Request("t", "Hello?", "Be brief.")]
    expected = {reply.key: reply for reply in TransformersEngine(str(folder), threads=1).generate(requests, SHORT)}
    assert texts(vllm.ask(folder, requests, SHORT)) == texts(expected)


@pytest.mark.slow
def test_a_bad_row_in_a_batch_fails_alone(vllm: VllmProcess, qwen: Path):
    good = questions([clip(0), clip(1)], "What?")
    long = Request("long", "word " * 9000, frames=clip(0))
    torn = Frames(np.zeros((0, 4, 4, 3), np.uint8), (), 30.0, 90)
    replies = vllm.ask(qwen, [long, good[0], Request("torn", "What?", frames=torn), good[1]], SHORT)
    assert "maximum context length is 4096" in str(replies["long"].error)
    assert replies["torn"].status == "error"
    assert replies["torn"].error
    assert texts(vllm.ask(qwen, good, SHORT)) == {key: texts(replies)[key] for key in ("0/0", "1/0")}


def fail_on_short_videos(engine: Any) -> Callable[[], None]:
    """Make the model itself fail on videos of up to 3 frames, in this vLLM and in those that are started after it."""
    from vllm.model_executor.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration as Model

    inherited = Model.embed_multimodal

    def failing(self: Any, **kwargs: Any) -> Any:
        if any(grid[0] <= 2 for grid in kwargs["video_grid_thw"].tolist()):
            raise RuntimeError("broken kernel")
        return inherited(self, **kwargs)

    Model.embed_multimodal = failing

    def undo() -> None:
        Model.embed_multimodal = inherited

    return undo


@pytest.mark.slow
def test_a_row_that_breaks_the_model_fails_alone(vllm: VllmProcess, qwen: Path):
    requests = questions([clip(10), clip(11, 3), clip(12)], "What?")
    replies = vllm.ask(qwen, requests, SHORT, fail_on_short_videos)
    assert {key: reply.status for key, reply in replies.items()} == {"0/0": "ok", "1/0": "error", "2/0": "ok"}
    assert replies["1/0"].error == "RuntimeError: broken kernel"
    assert texts(vllm.ask(qwen, requests[:1], SHORT)) == {"0/0": texts(replies)["0/0"]}


@pytest.mark.slow
def test_a_model_that_breaks_on_everything_is_given_up(vllm: VllmProcess, qwen: Path):
    requests = questions([clip(number, 2) for number in range(20, 25)], "What?")
    with pytest.raises(ConfigError, match="broke down on 3 requests in a row"):
        vllm.ask(qwen, requests, SHORT, fail_on_short_videos)


@pytest.mark.slow
def test_answers_keep_to_a_json_schema_stop_words_and_seeds(vllm: VllmProcess, qwen: Path):
    requests = questions([clip(0), clip(1)], "What?")
    for reply in vllm.ask(qwen, requests, Sampling(max_tokens=80, json_schema=SCHEMA)).values():
        jsonschema.validate(json.loads(str(reply.text)), SCHEMA)
    whole = str(vllm.ask(qwen, requests[:1], SHORT)["0/0"].text)
    reply = vllm.ask(qwen, requests[:1], Sampling(max_tokens=16, stop=(whole[8:11],)))["0/0"]
    assert (reply.text, reply.finish_reason) == (whole[: whole.index(whole[8:11])], "stop")
    drawn = [texts(vllm.ask(qwen, requests, Sampling(max_tokens=8, temperature=1.0, seed=seed))) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.slow
def test_one_clips_questions_are_encoded_once(vllm: VllmProcess, qwen: Path):
    """Six questions of one clip: its frames pass the processor once."""
    shown = clip(77)
    seen = vllm.seen(qwen, questions([shown], "Who?", "What?", "Where?", "How many?", "Why?", "Is it?"))
    assert len(seen) == 1


@pytest.mark.slow
def test_an_architecture_that_vllm_lacks_is_a_clear_error(vllm: VllmProcess, qwen: Path, tmp_path: Path):
    import shutil

    folder = shutil.copytree(qwen, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["NoSuchModel"]}))
    with pytest.raises(ConfigError, match="vLLM cannot run"):
        vllm.ask(folder, [Request("k", "What?")], SHORT)
