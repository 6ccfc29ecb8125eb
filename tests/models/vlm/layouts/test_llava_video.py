"""LLaVA-Video, converted, computes what its authors published: a reference written here, from their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import Qwen2Config, Qwen2ForCausalLM, SiglipVisionConfig, SiglipVisionModel

from microg.demo.tiny_models.published import build_published
from microg.errors import ConfigError
from microg.models.vlm.architectures.llava_video import LlavaVideoConfig, LlavaVideoModel
from microg.models.vlm.base import Sampling
from microg.models.vlm.cards import folder_card
from microg.models.vlm.engines.transformers import TransformersEngine
from microg.models.vlm.layouts.convert import convert
from tests.support.vlm_requests import clip, questions

TOWER = "model.vision_tower.vision_tower.vision_model."


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_published("llava-video-7b", tmp_path_factory.mktemp("published") / "LLaVA-Video-7B-Qwen2")


@pytest.fixture(scope="module")
def engine(published: Path, tmp_path_factory: pytest.TempPathFactory) -> TransformersEngine:
    out = tmp_path_factory.mktemp("converted") / "llava-video"
    convert(str(published), str(out))
    found = folder_card(str(out))
    assert (found.engine, found.architecture) == ("transformers", "LlavaVideoForConditionalGeneration")
    return TransformersEngine(str(out), threads=1, **found.settings)


@pytest.fixture(scope="module")
def held(published: Path) -> dict[str, torch.Tensor]:
    return {name: value for file in published.glob("*.safetensors") for name, value in load_file(file).items()}


def below(held: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in held.items() if name.startswith(prefix)}


def published_features(held: dict[str, torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
    """Return (tokens, hidden) of frames (t, 3, side, side): encode, project, shrink, a newline after each row."""
    width, side = held[f"{TOWER}embeddings.patch_embedding.weight"].shape[0], pixels.shape[-1]
    inner = held[f"{TOWER}encoder.layers.0.mlp.fc1.weight"].shape[0]
    sizes = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": 2, "num_attention_heads": 16}
    own: dict[str, Any] = {**sizes, "image_size": side, "patch_size": 14, "vision_use_head": False}
    tower = SiglipVisionModel(SiglipVisionConfig(**own))
    tower.load_state_dict(below(held, TOWER))
    seen = tower.encoder(inputs_embeds=tower.embeddings(pixels)).last_hidden_state
    for layer in ("0", "2"):
        seen = seen @ held[f"model.mm_projector.{layer}.weight"].T + held[f"model.mm_projector.{layer}.bias"]
        seen = torch.nn.functional.gelu(seen) if layer == "0" else seen
    frames, rows = len(seen), side // 14
    grid = seen.view(frames, rows, rows, -1).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, size=[(rows + 1) // 2] * 2, mode="bilinear").permute(0, 2, 3, 1)
    tokens = []
    for frame in grid:
        for row in frame:
            tokens += [*row, held["model.image_newline"]]
    return torch.stack(tokens)


@pytest.mark.parametrize("count", [1, 8])
@torch.no_grad()
def test_answers_are_those_of_the_published_computation(
    published: Path, held: dict[str, torch.Tensor], engine: TransformersEngine, count: int
):
    config = json.loads((published / "config.json").read_text())
    qwen = Qwen2ForCausalLM(Qwen2Config(**{name: config[name] for name in config if name != "model_type"}))
    text = {name: value for name, value in held.items() if "vision" not in name and "mm_" not in name}
    text.pop("model.image_newline")
    qwen.load_state_dict(text)
    requests = questions([clip(count, count), clip(0, count)], "What does the person do?", "Who is there?")
    replies = {reply.key: reply.text for reply in engine.generate(requests, Sampling(max_tokens=8))}
    assert len(set(replies.values())) > 1
    embeddings, tokenizer = held["model.embed_tokens.weight"], engine.chat.tokenizer
    for request in requests:
        pixels = engine.chat.inputs([request], {})["pixel_values_videos"][0]
        before, after = (tokenizer(part)["input_ids"] for part in engine.chat.text(request).split("<video>"))
        video = published_features(held, pixels)
        shown = torch.cat([embeddings[before], video, embeddings[after]])
        answer: list[int] = []
        for _ in range(8):
            logits = qwen(inputs_embeds=torch.cat([shown, embeddings[answer]])[None]).logits[0, -1]
            answer.append(int(logits.argmax()))
        assert replies[request.key] == tokenizer.decode(answer)


def test_frames_are_pressed_into_a_square_as_its_authors_do(engine: TransformersEngine):
    frames = clip(3, 2)
    shown = engine.chat.inputs(questions([frames], "What?"), {})["pixel_values_videos"][0]
    side = shown.shape[-1]
    pressed = [
        np.asarray(Image.fromarray(each).resize((side, side), Image.Resampling.BICUBIC)) for each in frames.pixels
    ]
    difference = (shown.permute(0, 2, 3, 1) * 0.5 + 0.5) * 255 - torch.from_numpy(np.stack(pressed))
    assert difference.abs().max() <= 2


@pytest.mark.parametrize(("mode", "rows"), [("bilinear", 3), ("average", 2), ("max", 2)])
def test_features_are_shrunk_as_the_checkpoint_says(mode: str, rows: int):
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlavaVideoConfig(
        text_config={"model_type": "qwen2", "vocab_size": 8, "num_key_value_heads": 2, **sizes},
        vision_config={"model_type": "siglip_vision_model", "image_size": 70, "patch_size": 14, **sizes},
        spatial_pool_mode=mode,
    )
    grid = torch.arange(25.0).view(1, 25, 1)
    shrunk = LlavaVideoModel(config).apply_pooling(grid)
    assert shrunk.shape == (1, rows * rows, 1)
    expected = {"bilinear": None, "average": (0 + 1 + 5 + 6) / 4, "max": 6.0}[mode]
    assert expected is None or shrunk[0, 0, 0] == expected


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"mm_newline_position": "one_token"}, "mm_newline_position is 'one_token' instead of 'grid'"),
        ({"add_faster_video": True}, "add_faster_video"),
        ({"mm_vision_tower": "openai/clip-vit-large-patch14-336"}, "is not SigLIP so400m"),
        ({"vocab_size": 3}, "no embeddings to spare"),
    ],
)
def test_another_llava_is_refused(published: Path, tmp_path: Path, change: dict[str, object], complaint: str):
    for file in published.iterdir():
        (tmp_path / file.name).symlink_to(file)
    config = json.loads((published / "config.json").read_text())
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ConfigError, match=complaint):
        convert(str(tmp_path), str(tmp_path / "out"))
