"""Tiny models are real ones: transformers loads them from their folder, and what they say depends on the frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microg import storage
from microg.demo.tiny_models import ARCHITECTURES, build
from microg.errors import ConfigError
from microg.models.vlm.cards import card


@pytest.fixture(params=sorted(ARCHITECTURES))
def architecture(request: pytest.FixtureRequest) -> str:
    return request.param


def hashes(folder: Path) -> dict[str, str]:
    return {file.name: storage.sha256(file) for file in folder.iterdir()}


def colours(seed: int, count: int = 8) -> np.ndarray:
    """Frames (count, 60, 96, 3), each of one colour."""
    return np.random.default_rng(seed).integers(0, 256, (count, 1, 1, 3)).astype(np.uint8).repeat(60, 1).repeat(96, 2)


def answer(processor: Any, model: Any, pixels: np.ndarray, words: str = "What is there?") -> str:
    takes_video = getattr(processor, "video_processor", None) is not None
    shown = [{"type": "video"}] if takes_video else [{"type": "image"}] * len(pixels)
    message = {"role": "user", "content": [*shown, {"type": "text", "text": words}]}
    template = processor.chat_template or card("video-llava").settings["chat_template"]
    prompt = processor.apply_chat_template(
        [message], chat_template=template, add_generation_prompt=True, tokenize=False
    )
    about = {"total_num_frames": 90, "fps": 30.0, "frames_indices": list(range(len(pixels))), "duration": 3.0}
    video = {"videos": [pixels], "video_metadata": [about], "do_sample_frames": False}
    inputs = processor(text=[prompt], return_tensors="pt", **(video if takes_video else {"images": list(pixels)}))
    produced = model.generate(**inputs, max_new_tokens=12)[0, inputs["input_ids"].shape[1] :]
    return processor.decode(produced, skip_special_tokens=True)


def test_a_tiny_model_loads_as_its_architecture_and_sees_its_frames(architecture: str, tiny_vlm: Callable[[str], Path]):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = tiny_vlm(architecture)
    if list(folder.glob("*.py")):
        pytest.skip("its own code runs it: tests/models/vlm/engines/repository")
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert model.config.model_type == architecture
    said = [answer(processor, model, colours(seed)) for seed in range(3)]
    assert len(set(said)) == 3
    assert all(text.strip() and text.isascii() and text.isprintable() for text in said)
    assert answer(processor, model, colours(0)) == said[0]
    assert answer(processor, model, colours(0), "Who?") != said[0]


def test_the_same_arguments_give_the_same_files_and_another_seed_other_weights(
    architecture: str, tiny_vlm: Callable[[str], Path], tmp_path: Path
):
    first = hashes(tiny_vlm(architecture))
    assert hashes(build(architecture, tmp_path / "again")) == first
    other = hashes(build(architecture, tmp_path / "other", seed=1))
    assert [name for name in first if first[name] != other[name]] == ["model.safetensors"]


def test_sizes_and_texts_are_the_callers(tmp_path: Path):
    from transformers import AutoConfig, AutoTokenizer

    folder = build("qwen2_5_vl", tmp_path, texts=["weightless zero"] * 9, hidden=64, layers=3, heads=2, side=84)
    config, tokenizer = AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert (config.text_config.hidden_size, config.text_config.num_hidden_layers) == (64, 3)
    assert tokenizer.tokenize("weightless zero 42") == ["weightless", "Ġzero", "Ġ", "4", "2"]
    assert tokenizer.decode(tokenizer.encode("naïve ☃")) == "naïve ☃"


@pytest.mark.parametrize("change", [{"hidden": 100}, {"heads": 3, "hidden": 96}, {"side": 60}, {"vision_hidden": 20}])
def test_a_size_that_cannot_be_is_refused(tmp_path: Path, change: dict[str, Any]):
    with pytest.raises(ConfigError, match="multiple"):
        build("qwen2_5_vl", tmp_path, **change)


def test_an_unknown_architecture_is_told_with_those_there_are(tmp_path: Path):
    with pytest.raises(ConfigError, match="qwen2_5_vl"):
        build("gpt2", tmp_path)
