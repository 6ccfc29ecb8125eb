"""Video-ChatGPT, put together from its three parts, computes what its authors published: a reference written here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from microg.demo.tiny_models.published import build_published
from microg.errors import ConfigError, MicrogError
from microg.models.vlm.base import Frames, Request, Sampling
from microg.models.vlm.cards import folder_card
from microg.models.vlm.engines.transformers import TransformersEngine
from microg.models.vlm.layouts.convert import convert
from tests.support.vlm_requests import clip, questions

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
SIDE = 56


class Parts:
    """The published parts, where they lie."""

    def __init__(self, folder: Path) -> None:
        self.base = folder / "LLaVA-7B-Lightening-v1-1"
        self.vision = folder / "clip-vit-large-patch14"
        self.projector = folder / "video_chatgpt-7B.bin"

    def convert(self, out: Path) -> Any:
        parts = {"vision": str(self.vision), "projector": str(self.projector)}
        return convert(str(self.base), str(out), parts)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return Parts(build_published("video-chatgpt", tmp_path_factory.mktemp("parts") / "published"))


@pytest.fixture(scope="module")
def folder(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "video-chatgpt"
    report = parts.convert(out)
    assert set(report.replaced) == {f"model.{name}" for name in ("embed_tokens.weight", *_PROJECTOR)}
    return out


@pytest.fixture(scope="module")
def engine(folder: Path) -> TransformersEngine:
    return TransformersEngine(str(folder), dtype="float32", threads=1, **folder_card(str(folder)).settings)


_PROJECTOR = ("mm_projector.bias", "mm_projector.weight")


def published_features(parts: Parts, frames: Frames) -> torch.Tensor:
    """Return (100 + patches, hidden of LLaMA), step by step as the authors' inference does, from their files."""
    config = json.loads((parts.vision / "config.json").read_text())["vision_config"]
    tower = CLIPVisionModel(CLIPVisionConfig(**config))
    held = load_file(parts.vision / "model.safetensors")
    own = {name.removeprefix("vision_model."): value for name, value in held.items() if name.startswith("vision_model")}
    tower.load_state_dict({name: value.half().float() for name, value in own.items()})
    pixels = torch.from_numpy(frames.pixels).permute(0, 3, 1, 2).float()
    pixels = torch.nn.functional.interpolate(pixels, size=(SIDE, SIDE)).to(torch.uint8)
    seen = tower((pixels / 255 - MEAN) / STD, output_hidden_states=True).hidden_states[-2][:, 1:]
    count, _, width = seen.shape
    temporal = torch.cat([seen.mean(1), torch.zeros(100 - count, width)])
    learnt = {name: value.float() for name, value in torch.load(parts.projector, weights_only=True).items()}
    tokens = torch.cat([temporal, seen.mean(0)])
    return tokens @ learnt["model.mm_projector.weight"].T + learnt["model.mm_projector.bias"]


def published_answer(parts: Parts, engine: TransformersEngine, request: Request, length: int) -> list[int]:
    """Return the tokens of a greedy answer, one full pass a token."""
    config = json.loads((parts.base / "config.json").read_text())
    learnt = torch.load(parts.projector, weights_only=True)
    embeddings = learnt["model.embed_tokens.weight"].float()
    held: dict[str, torch.Tensor] = {}
    for file in parts.base.glob("*.bin"):
        held |= torch.load(file, weights_only=True)
    llama = LlamaForCausalLM(LlamaConfig(**{name: config[name] for name in config if name != "model_type"}))
    kept = {name: value.float() for name, value in held.items() if "projector" not in name and "inv_freq" not in name}
    llama.load_state_dict(kept)
    assert request.frames is not None
    before, after = engine.chat.text(request).split("<vid_patch>")
    tokenizer = engine.chat.tokenizer
    ids = [tokenizer(text, add_special_tokens=not at)["input_ids"] for at, text in enumerate((before, after))]
    video = published_features(parts, request.frames)
    shown = torch.cat([embeddings[ids[0]], video, embeddings[ids[1]]])
    answer: list[int] = []
    for _ in range(length):
        logits = llama(inputs_embeds=torch.cat([shown, embeddings[answer]])[None]).logits[0, -1]
        answer.append(int(logits.argmax()))
    return answer


@pytest.mark.parametrize("count", [1, 3, 9])
@torch.no_grad()
def test_answers_are_those_of_the_published_computation(parts: Parts, engine: TransformersEngine, count: int):
    requests = questions([clip(count, count)], "What does the person do?", "Who is there?")
    replies = {reply.key: reply for reply in engine.generate(requests, Sampling(max_tokens=8))}
    for request in requests:
        expected = published_answer(parts, engine, request, 8)
        assert replies[request.key].text == engine.chat.tokenizer.decode(expected)
    assert len({reply.text for reply in replies.values()}) == 2


@torch.no_grad()
def test_a_video_is_a_token_for_each_of_100_frames_and_one_for_each_place(parts: Parts, engine: TransformersEngine):
    frames = clip(5, 3)
    inputs = engine.chat.inputs(questions([frames], "What?"), {})
    features = engine.load().video_features(inputs["pixel_values_videos"])[0]
    assert features.shape[0] == 100 + (SIDE // 14) ** 2
    assert torch.allclose(features, published_features(parts, frames), atol=1e-4)
    assert (inputs["input_ids"] == engine.load().config.video_token_id).sum() == features.shape[0]


def test_the_question_comes_before_the_video(engine: TransformersEngine):
    (request,) = questions([clip(1, 3)], "Why?")
    assert engine.chat.text(request).endswith(
        "based on the provided video. USER: Why?\n<vid_start><vid_patch><vid_end> ASSISTANT:"
    )
    asked = Request("k", "Why?", system="Be brief.")
    assert engine.chat.text(asked) == "Be brief. USER: Why? ASSISTANT:"


def test_more_frames_than_the_model_has_tokens_for_fail_their_row_only(engine: TransformersEngine):
    replies = list(engine.generate(questions([clip(1, 101), clip(2, 3)], "What?"), Sampling(max_tokens=2)))
    assert [reply.status for reply in replies] == ["error", "ok"]
    assert "100 frames at most, not 101" in str(replies[0].error)


def test_a_part_that_is_not_given_or_another_models_is_refused(parts: Parts, tmp_path: Path):
    with pytest.raises(ConfigError, match="needs --part vision=PATH"):
        convert(str(parts.base), str(tmp_path / "out"))
    other = tmp_path / "other.bin"
    learnt = torch.load(parts.projector, weights_only=True)
    torch.save({**learnt, "model.embed_tokens.weight": learnt["model.embed_tokens.weight"][:-3]}, other)
    given = {"vision": str(parts.vision), "projector": str(other)}
    with pytest.raises(MicrogError, match=r"model\.embed_tokens\.weight is of shape"):
        convert(str(parts.base), str(tmp_path / "out"), given)
    torch.save({**learnt, "args": Path("x")}, other)
    with pytest.raises(MicrogError, match="more than tensors"):
        convert(str(parts.base), str(tmp_path / "out"), given)
    assert {file.name for file in tmp_path.iterdir()} == {"other.bin"}
