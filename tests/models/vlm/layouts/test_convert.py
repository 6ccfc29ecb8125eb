"""Conversion: a published layout becomes a model that an engine loads, with the same answers, or is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from microg.demo.tiny_models.published import build_published
from microg.errors import ConfigError, MicrogError, WriteError
from microg.models.vlm.cards import folder_card
from microg.models.vlm.engines.checkpoint import find, load_chat
from microg.models.vlm.engines.transformers import load_model
from microg.models.vlm.layouts import convert as conversion
from microg.models.vlm.layouts.convert import convert
from tests.support.processes import microg
from tests.support.vlm_requests import clip, questions


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_published("tarsier2-recap-7b", tmp_path_factory.mktemp("published") / "Tarsier2-Recap-7b")


@pytest.fixture(scope="module")
def converted(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("converted") / "tarsier2"
    convert(str(published), str(out))
    return out


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "copy"))


def test_the_published_tarsier2_has_the_names_that_its_readers_know(published: Path):
    config = json.loads((published / "config.json").read_text())
    assert (config["architectures"], config["model_type"]) == (["TarsierForConditionalGeneration"], "llava")
    assert config["text_config"]["model_type"] == "qwen2_vl"
    names = json.loads((published / "model.safetensors.index.json").read_text())["weight_map"]
    assert {name.partition(".")[0] for name in names} == {"vision_tower", "language_model"}
    assert {"vision_tower.patch_embed.proj.weight", "language_model.model.embed_tokens.weight"} < set(names)
    assert "language_model.lm_head.weight" in names


def test_tarsier2_computes_after_the_conversion_what_the_qwen2_vl_inside_computed(
    converted: Path, tiny_vlm: Callable[[str], Path]
):
    inputs = load_chat(find(str(converted))).inputs(questions([clip(3, 4)], "What?"), {})
    before, after = (load_model(find(str(folder)), device="cpu") for folder in (tiny_vlm("qwen2_vl"), converted))
    assert torch.equal(before(**inputs).logits, after(**inputs).logits)


def test_tarsier2_sees_each_frame_at_a_time_of_its_own(converted: Path):
    card = folder_card(str(converted))
    assert (card.engine, card.settings["repeat_frames"], card.name) == ("vllm", 2, "tarsier2")
    frames = clip(3, 4)
    (request,) = questions([frames], "What?")
    grids = [
        load_chat(find(str(converted)), repeat_frames=times).inputs([request], {})["video_grid_thw"][0, 0].item()
        for times in (1, 2)
    ]
    assert grids == [2, 4]
    shown = load_chat(find(str(converted)), repeat_frames=2).shown(frames).pixels
    assert torch.equal(torch.tensor(shown[::2]), torch.tensor(shown[1::2]))


def test_a_plain_qwen2_vl_gets_nothing_of_tarsier2(tiny_vlm: Callable[[str], Path]):
    assert "repeat_frames" not in folder_card(str(tiny_vlm("qwen2_vl"))).settings


def test_what_is_not_converted_is_refused_with_the_command(published: Path):
    for use in (folder_card, find):
        with pytest.raises(ConfigError, match="microg vlm convert FOLDER OUT"):
            use(str(published))


def test_the_command_reports_each_rule_and_refuses_a_second_time(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["vlm", "convert", published, tmp_path / "out"]
    assert microg(*words) == 0
    said = capsys.readouterr().out
    assert "TarsierForConditionalGeneration -> Qwen2VLForConditionalGeneration" in said
    assert "vision_tower.* -> model.visual.*" in said
    assert microg(*words) == 2
    assert "exists already" in capsys.readouterr().err


def test_killed_between_two_files_it_goes_on_with_the_second(
    published: Path, converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole, written = conversion._rewrite, []

    def dies(path: Path, *args: object) -> int:
        if written:
            raise KeyboardInterrupt
        written.append(path)
        return whole(path, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(conversion, "_rewrite", dies)
        with pytest.raises(KeyboardInterrupt):
            convert(str(published), str(tmp_path / "out"))
    (part,) = tmp_path.iterdir()
    assert part.name == "out.part"
    first = part / "model-00001.safetensors"
    stamp = first.stat().st_mtime_ns
    convert(str(published), str(tmp_path / "out"))
    assert not part.exists()
    assert (tmp_path / "out" / first.name).stat().st_mtime_ns == stamp
    assert {file.name for file in (tmp_path / "out").iterdir()} == {file.name for file in converted.iterdir()}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda held: held.pop("vision_tower.merger.ln_q.weight"), "model.visual.merger.ln_q.weight is missing"),
        (lambda held: held.update({"audio.weight": torch.zeros(1)}), "audio.weight, of which the layout knows nothing"),
        (lambda held: held.update({"vision_tower.x": torch.zeros(1)}), "vision_tower.x would be model.visual.x"),
        (lambda held: held.update({"vision_tower.merger.ln_q.weight": torch.zeros(3)}), r"is of shape \(3,\)"),
    ],
)
def test_weights_that_do_not_make_the_model_are_refused_by_name(
    published: Path, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object], complaint: str
):
    folder = copied(published, tmp_path)
    file = folder / "model-00001-of-00002.safetensors"
    held = load_file(file)
    change(held)
    save_file(held, file)
    with pytest.raises(MicrogError, match=complaint):
        convert(str(folder), str(tmp_path / "out"))
    assert [found.name for found in tmp_path.iterdir()] == ["copy"]


def test_a_full_disk_is_not_taken_for_a_damaged_file(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*args: object, **kwargs: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(WriteError, match=r"cannot be written.*room for the whole model"):
        convert(str(published), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"architectures": ["LlavaForConditionalGeneration"]}, "needs no conversion or has none"),
        ({"text_config": {"model_type": "llama"}}, "another language model than Qwen2-VL"),
        ({"architectures": None}, "no named architecture"),
    ],
)
def test_another_model_is_refused(published: Path, tmp_path: Path, change: dict[str, object], complaint: str):
    folder = copied(published, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ConfigError, match=complaint):
        convert(str(folder), str(tmp_path / "out"))
