"""What a model is shown while it is tuned is what it is shown in generation, for every family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from microg.errors import ConfigError, WeightsError
from microg.models.vlm.base import Frames, Request
from microg.models.vlm.engines.checkpoint import Chat, find, load_chat
from microg.models.vlm.engines.transformers import load_model
from microg.models.vlm.tuning.adapters import (
    adapter_touches_vision,
    count_parameters,
    load_trainable_state,
    merge,
    prepare,
    save_adapter,
    trainable_state,
    with_adapter,
)
from microg.models.vlm.tuning.examples import answer_tokens, clip_example
from microg.models.vlm.tuning.families import family_of, linear_modules
from microg.models.vlm.tuning.loss import AnswerLoss
from microg.models.vlm.tuning.settings import AdapterSettings

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "llava", "llava_next_video", "llava_onevision", "internvl")
QUESTIONS = ("How many people are in the video?", "What is the astronaut doing now, exactly?", "Describe.")
ANSWERS = ("Two.", "An astronaut floats.", "yes")


def requests(frames: int = 4) -> list[Request]:
    pixels = np.random.default_rng(0).integers(0, 256, (frames, 56, 84, 3), np.uint8)
    shown = Frames(pixels, tuple(range(0, 10 * frames, 10)), 30.0, 90)
    return [Request(f"a_000:{number}", text, "", shown) for number, text in enumerate(QUESTIONS)]


def loaded(folder: Path) -> tuple[Any, Chat]:
    checkpoint = find(str(folder))
    return load_model(checkpoint, device="cpu"), load_chat(checkpoint)


def alone(model: Any, chat: Chat, request: Request, answer: str) -> torch.Tensor:
    """Return the logits before each token of an answer, of the whole model on the processor's own output."""
    inputs = dict(chat.inputs([request], {}))
    said = answer_tokens(chat, request, answer, model.generation_config.eos_token_id)
    prompt = inputs.pop("input_ids")
    inputs.pop("attention_mask")
    ids = torch.cat([prompt, torch.tensor([said[:-1]], dtype=torch.long)], 1)
    if "mm_token_type_ids" in inputs:
        more = torch.zeros(1, len(said) - 1, dtype=torch.long)
        inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], more], 1)
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=torch.ones_like(ids), **inputs).logits
    return found[0, prompt.shape[1] - 1 :]


@pytest.mark.parametrize("family", FAMILIES)
def test_questions_that_share_their_frames_have_the_logits_that_each_has_alone(
    family: str, tiny_vlm: Callable[[str], Path]
) -> None:
    model, chat = loaded(tiny_vlm(family))
    example = clip_example(model, chat, requests(), ANSWERS, {})
    with torch.no_grad():
        together = AnswerLoss(model).logits(example)
    order = np.argsort(example.row.owners, kind="stable")
    each = [alone(model, chat, request, answer) for request, answer in zip(requests(), ANSWERS, strict=True)]
    assert example.targets == sum(map(len, each))
    torch.testing.assert_close(together[order], torch.cat(each), rtol=1e-4, atol=1e-5)
    prompts = sum(chat.inputs([request], {})["input_ids"].shape[1] for request in requests())
    assert len(example.row.tokens) < prompts  # the frames are there once


def test_an_answer_ends_as_the_chat_template_ends_a_turn(tiny_vlm: Callable[[str], Path]) -> None:
    model, chat = loaded(tiny_vlm("qwen2_5_vl"))
    said = answer_tokens(chat, requests()[0], "Two.", model.generation_config.eos_token_id)
    assert chat.tokenizer.decode(said) == "Two.<|im_end|>"


def test_only_the_answers_count_in_the_loss(tiny_vlm: Callable[[str], Path]) -> None:
    model, chat = loaded(tiny_vlm("qwen2_5_vl"))
    example = clip_example(model, chat, requests()[:1], ANSWERS[:1], {})
    with torch.no_grad():
        loss, logits = AnswerLoss(model)(example), alone(model, chat, requests()[0], ANSWERS[0])
    said = torch.tensor(answer_tokens(chat, requests()[0], ANSWERS[0], model.generation_config.eos_token_id))
    assert loss.item() == pytest.approx(
        torch.nn.functional.cross_entropy(logits, said, reduction="sum").item(), rel=1e-5
    )


def test_adapters_lie_on_the_language_model_and_elsewhere_only_when_told(tiny_vlm: Callable[[str], Path]) -> None:
    model, _ = loaded(tiny_vlm("llava_onevision"))
    family = family_of("llava_onevision")
    plain = linear_modules(model, family, vision=False, projector=False)
    assert plain
    assert all(name.startswith("model.language_model.") for name in plain)
    more = linear_modules(model, family, vision=True, projector=True)
    prefixes = {name.split(".")[1] for name in set(more) - set(plain)}
    assert prefixes == {"vision_tower", "multi_modal_projector"}
    with pytest.raises(ConfigError, match="models of type 'bert' cannot be tuned"):
        family_of("bert")


@pytest.mark.parametrize("vision", [False, True])
def test_merged_adapters_say_what_they_said_apart(
    vision: bool, tiny_vlm: Callable[[str], Path], tmp_path: Path
) -> None:
    model, chat = loaded(tiny_vlm("qwen2_5_vl"))
    torch.manual_seed(1)
    tuned = prepare(model, "lora", AdapterSettings(rank=4, vision=vision), checkpointing=False).eval()
    learns, parameters = count_parameters(tuned)
    assert 0 < learns < parameters / 2
    with torch.no_grad():
        for value in tuned.parameters():
            if value.requires_grad:
                value.normal_(0, 0.05)
    example = clip_example(model, chat, requests(), ANSWERS, {})
    with torch.no_grad():
        before = AnswerLoss(tuned).logits(example)
    save_adapter(tuned, trainable_state(tuned), tmp_path / "adapter")
    assert adapter_touches_vision(tmp_path / "adapter") is vision
    fresh, _ = loaded(tiny_vlm("qwen2_5_vl"))
    with torch.no_grad():
        untuned = AnswerLoss(fresh).logits(example)
    plain, report = merge(with_adapter(fresh, tmp_path / "adapter"))
    with torch.no_grad():
        after = AnswerLoss(plain).logits(example)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)
    assert (untuned - before).abs().max() > 0.01
    assert report.merged == len(
        linear_modules(loaded(tiny_vlm("qwen2_5_vl"))[0], family_of("qwen2_5_vl"), vision=vision, projector=False)
    )
    assert report.unchanged == 0


def test_adapters_of_another_model_and_states_of_other_parameters_are_refused(
    tiny_vlm: Callable[[str], Path], tmp_path: Path
) -> None:
    model, _ = loaded(tiny_vlm("llava_onevision"))
    tuned = prepare(model, "lora", AdapterSettings(rank=4, vision=True), checkpointing=False)
    save_adapter(tuned, trainable_state(tuned), tmp_path / "adapter")
    with pytest.raises(WeightsError, match="is not of this model"):
        with_adapter(loaded(tiny_vlm("qwen2_5_vl"))[0], tmp_path / "adapter")
    with pytest.raises(WeightsError, match="of other parameters"):
        load_trainable_state(tuned, {"x": torch.zeros(1)})
    with pytest.raises(WeightsError, match="holds no adapter"):
        adapter_touches_vision(tmp_path)


def test_method_full_tunes_the_language_model_and_keeps_the_picture_encoder(tiny_vlm: Callable[[str], Path]) -> None:
    model = prepare(loaded(tiny_vlm("qwen2_5_vl"))[0], "full", AdapterSettings(), checkpointing=False)
    learns = [name for name, value in model.named_parameters() if value.requires_grad]
    assert any(name.startswith("model.language_model.") for name in learns)
    assert not any(name.startswith("model.visual.") for name in learns)
