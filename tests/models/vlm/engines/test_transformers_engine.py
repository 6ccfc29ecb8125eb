"""The transformers engine on tiny real models: frames as given, one reply each, failures alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from microg.errors import ConfigError
from microg.models.vlm.base import Frames, Reply, Request, Sampling
from microg.models.vlm.cards import card, open_card
from microg.models.vlm.engines.checkpoint import frames_for_processor
from microg.models.vlm.engines.transformers import TransformersEngine
from tests.support.vlm_requests import COUNTS, SCHEMA, clip, questions

SHORT = Sampling(max_tokens=6)


@pytest.fixture(scope="module")
def folder(tiny_vlm: Callable[[str], Path]) -> Path:
    return tiny_vlm("qwen2_5_vl")


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[TransformersEngine]:
    engine = TransformersEngine(str(folder), threads=1)
    yield engine
    engine.close()


def answered(engine: TransformersEngine, requests: list[Request], sampling: Sampling = SHORT) -> dict[str, Reply]:
    replies = list(engine.generate(requests, sampling))
    assert sorted(reply.key for reply in replies) == sorted(request.key for request in requests)
    return {reply.key: reply for reply in replies}


@pytest.mark.parametrize("architecture", ["qwen2_5_vl", "internvl", "llava_next_video", "video_llava"])
def test_the_processor_gets_the_pixels_that_were_sampled_and_samples_no_more(
    architecture: str, tiny_vlm: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
):
    template = card("video-llava").settings["chat_template"] if architecture == "video_llava" else None
    engine = TransformersEngine(str(tiny_vlm(architecture)), threads=1, chat_template=template)
    kind = type(engine.chat.processor.video_processor)
    inherited, seen = kind._preprocess, []

    def spy(self: Any, videos: list[Any], **kwargs: Any) -> Any:
        seen.extend(np.asarray(video).transpose(0, 2, 3, 1) for video in videos)
        return inherited(self, videos=videos, **kwargs)

    monkeypatch.setattr(kind, "_preprocess", spy)
    # as other families' released processors say, which would thin 90 frames to their own liking
    monkeypatch.setattr(engine.chat.processor.video_processor, "do_sample_frames", True)
    monkeypatch.setattr(engine.chat.processor.video_processor, "num_frames", 4)
    clips = [clip(count, count) for count in COUNTS]
    replies = answered(engine, questions(clips, "What?"), Sampling(max_tokens=1))
    assert {reply.error for reply in replies.values()} == {None}
    assert len(seen) == len(clips)
    for frames, pixels in zip(clips, seen, strict=True):
        assert np.array_equal(pixels, frames.pixels)


def test_a_model_without_a_chat_template_says_where_to_give_one(tiny_vlm: Callable[[str], Path]):
    with pytest.raises(ConfigError, match="settings chat_template"):
        list(TransformersEngine(str(tiny_vlm("video_llava"))).generate([Request("k", "What?")], SHORT))


def test_video_llava_is_asked_as_it_was_trained():
    """Vicuna v1 as the released checkpoint's page writes it: USER, the video, the question, ASSISTANT."""
    import jinja2

    message = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Why?"}]}
    template = jinja2.Environment().from_string(card("video-llava").settings["chat_template"])
    assert template.render(messages=[message], add_generation_prompt=True) == "USER: <video>\nWhy? ASSISTANT:"


def test_answers_depend_on_the_frames_their_order_and_their_times(engine: TransformersEngine):
    shown = clip(0)
    backwards = Frames(shown.pixels[::-1], shown.indices, shown.fps, shown.num_frames)
    slower = Frames(shown.pixels, shown.indices, shown.fps / 4, shown.num_frames)
    replies = answered(engine, questions([shown, clip(1), backwards, slower], "What?"))
    assert len({reply.text for reply in replies.values()}) == 4


def test_a_batch_answers_as_its_requests_alone_and_counts_tokens(engine: TransformersEngine):
    requests = [*questions([clip(0), clip(1)], "What?", "Who is there, and what is held?"), Request("t", "No frames.")]
    together = answered(engine, requests)
    alone = {request.key: answered(engine, [request])[request.key] for request in requests}
    for key, reply in together.items():
        told = (reply.text, reply.prompt_tokens, reply.completion_tokens, reply.finish_reason)
        assert told == (alone[key].text, alone[key].prompt_tokens, alone[key].completion_tokens, "length")
        assert reply.completion_tokens == 6
    prompt = engine.chat.ids(engine.chat.text(requests[0]))
    # a video is one placeholder that becomes 5 pairs of 1 x 2 merged patches
    assert together["0/0"].prompt_tokens == len(prompt) - 1 + 5 * 2
    assert engine.estimate(requests[0], SHORT).tokens == (together["0/0"].prompt_tokens or 0) + 6


def test_a_bad_row_in_a_batch_fails_alone(engine: TransformersEngine):
    good, narrow = questions([clip(0)], "What?")[0], np.zeros((9, 1, 300, 3), np.uint8)
    bad = Request("bad", "What?", frames=Frames(narrow, clip(0).indices, 30.0, 90))
    long = Request("long", "word " * 5000, frames=clip(0))
    replies = answered(engine, [bad, good, long])
    assert replies["0/0"].text == answered(engine, [good])["0/0"].text
    assert "aspect ratio" in str(replies["bad"].error)
    assert "the context 4096" in str(replies["long"].error)
    assert replies["bad"].text is replies["long"].text is None


def test_one_request_that_breaks_a_batch_fails_alone(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch):
    inherited = engine._decode

    def decode(batch: list[Request], *rest: Any) -> list[Reply]:
        if any(request.key == "1/0" for request in batch):
            raise RuntimeError("no memory")
        return inherited(batch, *rest)

    monkeypatch.setattr(engine, "_decode", decode)
    replies = answered(engine, questions([clip(0), clip(1), clip(2)], "What?"))
    assert {key: reply.status for key, reply in replies.items()} == {"0/0": "ok", "1/0": "error", "2/0": "ok"}
    assert replies["1/0"].error == "RuntimeError: no memory"


def test_greedy_is_greedy_whatever_the_checkpoint_prefers(engine: TransformersEngine, folder: Path, tmp_path: Path):
    opinionated = shutil.copytree(folder, tmp_path / "model")
    file = opinionated / "generation_config.json"
    taste = {"repetition_penalty": 5.0, "do_sample": True, "temperature": 3.0, "top_k": 2, "no_repeat_ngram_size": 1}
    file.write_text(json.dumps({**json.loads(file.read_text()), **taste}))
    requests = questions([clip(0), clip(3)], "What?")
    expected = answered(engine, requests)
    found = answered(TransformersEngine(str(opinionated), threads=1), requests)
    assert {key: reply.text for key, reply in found.items()} == {key: reply.text for key, reply in expected.items()}


def test_drawn_text_depends_on_the_seed_and_not_on_its_neighbours(engine: TransformersEngine):
    requests = questions([clip(0), clip(1)], "What?", "Who?")
    drawn = Sampling(max_tokens=6, temperature=1.0, seed=5)
    first = answered(engine, requests, drawn)
    alone = answered(engine, requests[2:3], drawn)
    assert alone["1/0"].text == first["1/0"].text
    other = answered(engine, requests[2:3], Sampling(max_tokens=6, temperature=1.0, seed=6))
    assert other["1/0"].text != first["1/0"].text


def test_a_stop_word_ends_the_answer_and_is_not_in_it(engine: TransformersEngine):
    request = questions([clip(0)], "What?")
    whole = answered(engine, request, Sampling(max_tokens=12))["0/0"].text or ""
    word = whole[8:11]
    reply = answered(engine, request, Sampling(max_tokens=12, stop=(word,)))["0/0"]
    assert (reply.text, reply.finish_reason) == (whole[: whole.index(word)], "stop")


def test_an_answer_is_cut_at_the_context_and_not_by_its_neighbours(folder: Path, engine: TransformersEngine):
    requests = questions([clip(0)], "What?", "What is there, and who holds it, and why, and for how long will that be?")
    lengths = [engine.estimate(request, Sampling(max_tokens=0)).tokens for request in requests]
    narrow = TransformersEngine(str(folder), context=max(lengths) + 5, threads=1)
    replies = answered(narrow, requests, Sampling(max_tokens=12))
    assert [replies[key].completion_tokens for key in ("0/0", "0/1")] == [12, 5]


def test_a_stop_word_of_one_row_leaves_its_count_to_itself(engine: TransformersEngine):
    requests = questions([clip(0), clip(1)], "What?")
    whole = answered(engine, requests, Sampling(max_tokens=12))
    word = str(whole["0/0"].text)[8:11]
    assert word not in str(whole["1/0"].text)
    stopping = Sampling(max_tokens=12, stop=(word,))
    together, alone = answered(engine, requests, stopping), answered(engine, requests[:1], stopping)
    assert together["0/0"].text == alone["0/0"].text
    assert together["1/0"].completion_tokens == 12


def test_an_answer_keeps_to_the_json_schema_asked_for(engine: TransformersEngine):
    sampling = Sampling(max_tokens=80, json_schema=SCHEMA)
    for reply in answered(engine, questions([clip(0), clip(1)], "What?"), sampling).values():
        jsonschema.validate(json.loads(str(reply.text)), SCHEMA)
        assert reply.finish_reason == "stop"


def test_the_fingerprint_names_content_and_settings_not_places(
    engine: TransformersEngine, folder: Path, tmp_path: Path
):
    copied = shutil.copytree(folder, tmp_path / folder.name)
    assert TransformersEngine(str(copied), batch_size=1).fingerprint() == engine.fingerprint()
    assert str(folder.parent) not in json.dumps(engine.fingerprint())
    assert TransformersEngine(str(copied), dtype="bfloat16").fingerprint() != engine.fingerprint()
    (other := tmp_path / "other" / folder.name).parent.mkdir()
    shutil.copytree(folder, other)
    (other / "chat_template.jinja").write_text("{{ messages[0]['content'][0]['text'] }}")
    assert TransformersEngine(str(other)).fingerprint() != engine.fingerprint()


def test_what_no_request_can_survive_is_an_error_of_the_whole(folder: Path, tmp_path: Path):
    request = [Request("k", "What?")]
    with pytest.raises(ConfigError, match="there is no model folder"):
        list(TransformersEngine(str(tmp_path / "nowhere")).generate(request, SHORT))
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}')
    with pytest.raises(ConfigError, match="cannot load"):
        list(TransformersEngine(str(tmp_path)).generate(request, SHORT))
    with pytest.raises(ConfigError, match="no number format"):
        TransformersEngine(str(folder), dtype="float99").load()
    with pytest.raises(ConfigError, match="no torch device"):
        TransformersEngine(str(folder), device="abacus").load()


def test_a_hub_model_that_is_not_here_is_a_clear_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    engine = open_card(card("smolvlm2-2.2b").replaced(hub_id="nobody/nothing"))
    with pytest.raises(ConfigError, match="hf download nobody/nothing"):
        engine.fingerprint()


def test_qwens_text_follows_the_last_moment_of_a_video(engine: TransformersEngine):
    """What Qwen's own code and vLLM do: one past the largest position of the video, its time included."""
    import torch

    model = engine.load()
    inputs = engine.chat.inputs(questions([clip(0, 9)], "What?"), {})
    passed = {name: value for name, value in inputs.items() if name not in ("pixel_values_videos", "input_ids")}
    positions, ahead = model.model.get_rope_index(inputs["input_ids"], **passed)
    video = inputs["mm_token_type_ids"][0] == 2
    last = int(video.nonzero().max())
    # 5 pairs of frames, 2 of 3 seconds apart, at the model's 4 positions a second
    assert positions[0, 0, video].unique().tolist() == [
        int(positions[0, 0, video].min()) + int(k * 8 / 3) for k in range(5)
    ]
    assert torch.equal(positions[:, 0, last + 1], positions[:, 0, video].max().repeat(3) + 1)
    assert int(ahead) == int(positions.max()) + 1 - inputs["input_ids"].shape[1]
    padded = engine.chat.inputs(questions([clip(0, 9)], "What?", "And who is that, over there?"), {})
    rest = {name: value for name, value in padded.items() if name not in ("pixel_values_videos", "input_ids")}
    both, _ = model.model.get_rope_index(padded["input_ids"], **rest)
    assert torch.equal(both[:, 0, padded["attention_mask"][0] == 1], positions[:, 0])


def test_frames_are_shown_as_images_where_a_model_takes_no_video():
    frames = clip(0, 3)
    shown = frames_for_processor([frames], "images")["images"]
    assert np.array_equal(np.stack([np.asarray(picture) for picture in shown[0]]), frames.pixels)
