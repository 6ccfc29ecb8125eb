"""Models with code of their own: asked as their authors ask them, the same answers, and no code without consent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from microg.errors import ConfigError
from microg.models.vlm.base import Frames, Reply, Request, Sampling
from microg.models.vlm.engines.checkpoint import Checkpoint, find, pictures
from microg.models.vlm.engines.repository.adaptations import ADAPTATIONS
from microg.models.vlm.engines.repository.consent import RepositoryCode
from microg.models.vlm.engines.repository.engine import RepositoryEngine
from microg.models.vlm.engines.repository.models import MODELS
from tests.support.vlm_requests import SCHEMA, clip, questions

# as the paper's column #f has them
FRAMES = {"mplug_owl3": 3, "internvideo2_5": 90}
SHORT = Sampling(max_tokens=6)
QUESTION = "What is the astronaut doing?"


@pytest.fixture(scope="module", params=sorted(FRAMES))
def architecture(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def engine(architecture: str, tiny_vlm: Callable[[str], Path]) -> Iterator[RepositoryEngine]:
    engine = RepositoryEngine(str(tiny_vlm(architecture)), trust_remote_code=True, threads=1)
    yield engine
    engine.close()


def answered(engine: RepositoryEngine, requests: list[Request], sampling: Sampling = SHORT) -> dict[str, Reply]:
    return {reply.key: reply for reply in engine.generate(requests, sampling)}


def page_of_mplug_owl3(model: Any, tokenizer: Any, frames: Frames) -> tuple[str, list[int]]:
    """The usage that the model's page shows; then the same by whole passes without a cache."""
    import torch

    processor = model.init_processor(tokenizer)
    messages = [{"role": "user", "content": f"<|video|>\n{QUESTION}"}, {"role": "assistant", "content": ""}]
    inputs = processor(messages, images=None, videos=[pictures(frames)])
    options = {"tokenizer": tokenizer, "max_new_tokens": 6, "decode_text": True}
    text = model.generate(**inputs, **options)[0]
    ids, offset, said = inputs["input_ids"], inputs["media_offset"], []
    with torch.no_grad():
        for _ in range(6):
            more = {"pixel_values": inputs["pixel_values"], "media_offset": offset, "use_cache": False}
            said.append(int(model(input_ids=ids, return_dict=True, **more).logits[0, -1].argmax()))
            ids = torch.cat([ids, torch.tensor([said[-1:]])], dim=1)
            offset = torch.cat([offset, offset[:, -1:]], dim=1)
    return text, said


def page_of_internvideo2_5(model: Any, tokenizer: Any, frames: Frames) -> tuple[str, list[int]]:
    """The usage that the model's page shows, frames filled up to 92; then the same by whole passes without a cache."""
    import torch
    from torchvision import transforms

    side = model.config.force_image_size
    prepare = transforms.Compose(
        [
            transforms.Resize((side, side), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    squares = [prepare(each) for each in pictures(frames)]
    pixels = torch.stack([*squares, squares[-1], squares[-1]])
    question = "".join(f"Frame{number}: <image>\n" for number in range(1, 93)) + QUESTION
    text = model.chat(tokenizer, pixels, question, {"max_new_tokens": 6}, num_patches_list=[1] * 92)
    parts = question.split("<image>")
    marked = f"<img>{'<IMG_CONTEXT>' * 16}</img>".join(parts)
    told = model.conv_template.system_message
    prompt = f"<|im_start|>system\n{told}<|im_end|>\n<|im_start|>user\n{marked}<|im_end|>\n<|im_start|>assistant\n"
    ids, said = tokenizer(prompt, return_tensors="pt")["input_ids"], []
    embed = model.language_model.get_input_embeddings()
    with torch.no_grad():
        x = embed(ids)
        x[ids == tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")] = model.extract_feature(pixels).flatten(0, 1)
        for _ in range(6):
            logits = model.language_model(inputs_embeds=x, use_cache=False, return_dict=True).logits
            said.append(int(logits[0, -1].argmax()))
            x = torch.cat([x, embed(torch.tensor([said[-1:]]))], dim=1)
    return text, said


def test_the_engine_answers_as_the_models_page_does_and_as_whole_passes_do(architecture: str, engine: RepositoryEngine):
    frames = clip(0, FRAMES[architecture])
    reply = answered(engine, [Request("k", QUESTION, frames=frames)])["k"]
    page = {"mplug_owl3": page_of_mplug_owl3, "internvideo2_5": page_of_internvideo2_5}[architecture]
    text, said = page(engine.load().model, engine.chat.tokenizer, frames)
    assert reply.error is None
    assert reply.text == text == engine.chat.decode(said)
    assert (reply.completion_tokens, reply.finish_reason) == (6, "length")


def test_answers_depend_on_the_frames(architecture: str, engine: RepositoryEngine):
    requests = questions([clip(seed) for seed in range(3)], QUESTION, "Who is there?")
    texts = {key: reply.text for key, reply in answered(engine, requests, Sampling(max_tokens=12)).items()}
    assert all(len({texts[f"{number}/{text}"] for number in range(3)}) > 1 for text in range(2))


def test_frames_reach_the_model_as_they_were_sampled(architecture: str, engine: RepositoryEngine):
    """One colour a frame is one colour after any resize: the model is shown each frame, in order."""
    import numpy as np

    colours = np.random.default_rng(0).integers(0, 256, (FRAMES[architecture], 1, 1, 3)).astype(np.uint8)
    pixels = colours.repeat(48, 1).repeat(64, 2)
    frames = Frames(pixels, tuple(range(len(pixels))), 30.0, 90)
    seen = engine.chat.inputs([Request("k", QUESTION, frames=frames)], {})["pixel_values"].numpy()
    mean, std = ((0.5,) * 3,) * 2 if architecture == "mplug_owl3" else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    back = (seen.mean(axis=(2, 3)) * std + mean) * 255
    assert np.allclose(back[: len(pixels)], colours[:, 0, 0], atol=0.01)
    assert len(back) == {"mplug_owl3": 3, "internvideo2_5": 92}[architecture]
    assert np.array_equal(back[len(pixels) :], back[len(pixels) - 1][None].repeat(len(back) - len(pixels), 0))


def test_a_request_that_fails_is_one_row(architecture: str, engine: RepositoryEngine):
    mark = {"mplug_owl3": "<|image|>", "internvideo2_5": "<IMG_CONTEXT>"}[architecture]
    bad = Request("bad", f"What is {mark}?", frames=clip(0))
    long = Request("long", "word " * 5000)
    replies = answered(engine, [bad, long, Request("plain", "No frames."), Request("told", "Who?", system="Be brief.")])
    assert {key: reply.status for key, reply in replies.items()} == {
        "bad": "error",
        "long": "error",
        "plain": "ok",
        "told": "ok",
    }
    assert "the context 4096" in str(replies["long"].error)
    assert answered(engine, [Request("again", "No frames.")])["again"].text == replies["plain"].text


def test_stop_words_seeds_and_shapes_of_answers_are_kept(architecture: str, engine: RepositoryEngine):
    request = [Request("k", QUESTION)]
    whole = answered(engine, request, Sampling(max_tokens=12))["k"].text or ""
    word = whole[8:11]
    stopped = answered(engine, request, Sampling(max_tokens=12, stop=(word,)))["k"]
    assert (stopped.text, stopped.finish_reason) == (whole[: whole.index(word)], "stop")
    drawn = [
        answered(engine, request, Sampling(max_tokens=6, temperature=1.0, seed=seed))["k"].text for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    shaped = answered(engine, request, Sampling(max_tokens=80, json_schema=SCHEMA))["k"]
    jsonschema.validate(json.loads(str(shaped.text)), SCHEMA)


def test_nothing_of_the_code_is_imported_without_consent(architecture: str, tiny_vlm: Callable[[str], Path], tmp_path):
    folder = shutil.copytree(tiny_vlm(architecture), tmp_path / "model")
    for file in folder.glob("*.py"):
        file.write_text(file.read_text() + f"\nimport pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    engine = RepositoryEngine(str(folder))
    for act in (engine.check_consent, engine.load, lambda: answered(engine, [Request("k", "What?")])):
        with pytest.raises(ConfigError, match=r"runs code of its own \(.*configuration_") as caught:
            act()
        assert f"read it at {folder}" in str(caught.value.fix)
        assert "--trust-remote-code" in str(caught.value.fix)
    engine.fingerprint()
    engine.estimate(Request("k", "What?", frames=clip(0)), SHORT)
    assert not (tmp_path / "ran").exists()
    RepositoryEngine(str(folder), trust_remote_code=True).load()
    assert (tmp_path / "ran").exists()


def test_the_exact_code_and_what_makes_it_run_are_in_the_fingerprint(
    architecture: str, engine: RepositoryEngine, tiny_vlm: Callable[[str], Path], tmp_path: Path
):
    found = engine.fingerprint()
    assert found["code"]["identity"] == engine.check_consent() == RepositoryCode.of(engine.checkpoint).identity
    assert found["adaptations"]
    assert set(found["adaptations"]) <= set(ADAPTATIONS)
    folder = shutil.copytree(tiny_vlm(architecture), tmp_path / "model")
    (folder / found["code"]["files"][0]).open("a").write("\n")
    assert RepositoryEngine(str(folder), trust_remote_code=True).check_consent() != engine.check_consent()


def test_code_on_the_hub_is_known_by_its_commit_and_read_at_its_page():
    config = {
        "auto_map": {"AutoConfig": "configuration_a.A", "AutoModel": "modeling_a.B", "AutoTokenizer": ["x.Y", None]}
    }
    code = RepositoryCode.of(Checkpoint("me/model", "c0ffee", config, Path("nowhere")))
    assert (code.files, code.identity) == (("configuration_a.py", "modeling_a.py"), "commit:c0ffee")
    with pytest.raises(
        ConfigError, match=r"me/model runs code of its own \(configuration_a\.py, modeling_a\.py\)"
    ) as no:
        code.require_consent(False)
    assert "/me/model/tree/c0ffee" in str(no.value.fix)


@pytest.mark.parametrize(
    ("classes", "complaint"),
    [
        (None, "brings no code of its own"),
        (["AutoModel"], "brings no code of its own"),
        ({"AutoConfig": "a.B", "AutoModel": "me/other--a.C"}, "lies in another repository, me/other"),
        ({"AutoConfig": "a.B", "AutoModel": "a.C"}, "nobody here knows how to ask a.C"),
        ({"AutoConfig": "a.B", "AutoModel": "antigravity:fly"}, "nobody here knows how to ask antigravity:fly"),
    ],
)
def test_code_that_is_not_there_not_pinned_or_not_known_is_refused(tmp_path: Path, classes: Any, complaint: str):
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": classes}))
    with pytest.raises(ConfigError, match=complaint):
        RepositoryEngine(str(tmp_path), trust_remote_code=True).check_consent()


def test_weights_that_do_not_fit_the_code_are_named_and_others_than_safetensors_are_not_read(
    tiny_vlm: Callable[[str], Path], tmp_path: Path
):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_vlm("internvideo2_5"), tmp_path / "model")
    file = folder / "model.safetensors"
    weights = load_file(file)
    name, value = next(iter(weights.items()))
    # heads of the published checkpoint's training have no place in its code
    save_file({**weights, "track_embed.weight": value.clone()}, file)
    RepositoryEngine(str(folder), trust_remote_code=True).load()
    for changed, complaint in (
        (
            {**weights, "strange.weight": value.clone()},
            "has more than the code takes: 1 weights, such as strange.weight",
        ),
        ({other: each for other, each in weights.items() if other != name}, f"lacks 1 weights, such as {name}"),
    ):
        save_file(changed, file)
        with pytest.raises(ConfigError, match=complaint):
            RepositoryEngine(str(folder), trust_remote_code=True).load()
    file.write_bytes(b"no weights")
    with pytest.raises(ConfigError, match=r"model\.safetensors cannot be read"):
        RepositoryEngine(str(folder), trust_remote_code=True).load()
    file.rename(folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"holds no \*\.safetensors"):
        RepositoryEngine(str(folder), trust_remote_code=True).load()


def test_a_package_that_the_code_needs_and_that_is_missing_is_named(tiny_vlm: Callable[[str], Path], tmp_path: Path):
    folder = shutil.copytree(tiny_vlm("internvideo2_5"), tmp_path / "model")
    file = folder / "modeling_intern_vit.py"
    file.write_text(file.read_text() + "\nimport nowhere_to_be_found\n")
    with pytest.raises(ConfigError, match=r"cannot be run.*nowhere_to_be_found"):
        RepositoryEngine(str(folder), trust_remote_code=True).load()


def test_settings_that_mean_nothing_here_are_refused(tmp_path: Path):
    refused: list[dict[str, Any]] = [{"frames_as": "images"}, {"chat_template": "{{ 1 }}"}, {"processor": {"size": 1}}]
    for more in refused:
        with pytest.raises(ConfigError, match="prepares frames and prompts"):
            RepositoryEngine(str(tmp_path), **more)


def test_transformers_stays_as_it_is_for_other_models(engine: RepositoryEngine):
    import torch
    from transformers import DynamicCache, GenerationMixin, PreTrainedModel

    engine.load()
    assert not hasattr(DynamicCache, "seen_tokens")
    assert not issubclass(PreTrainedModel, GenerationMixin)
    assert torch.get_default_dtype() == torch.float32


def test_stand_ins_name_the_classes_that_the_published_repositories_have(tiny_vlm: Callable[[str], Path]):
    found = {RepositoryCode.of(find(str(tiny_vlm(name)))).classes["AutoModel"] for name in FRAMES}
    assert found == set(MODELS)
