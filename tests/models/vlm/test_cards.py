"""Model cards: all load, all rows of the paper are there, and what cannot run says why."""

from __future__ import annotations

import datetime
import json
import re
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from microg.demo.tiny_models import ARCHITECTURES
from microg.demo.tiny_models.published import PUBLISHED
from microg.errors import ConfigError
from microg.jobs.cli import app
from microg.models.vlm import architectures, cards
from microg.models.vlm.cards import ModelCard, card, folder_card, open_card

# The column #f of the paper's Tables 4 and 5.
PUBLISHED_FRAMES = {
    "Video-ChatGPT": 3,
    "mPLUG-Owl3": 3,
    "LLaVA-NeXT": 8,
    "Video-LLaVA": 8,
    "Qwen2.5-VL": 9,
    "InternVideo2.5": 90,
    "GPT-4o": 6,
    "Gemini 1.5 Pro": 16,
    "Tarsier2-Recap-7B": 16,
}
BEFORE, AFTER = datetime.date(2026, 11, 24), datetime.date(2030, 1, 1)


@pytest.fixture(params=cards.names())
def each(request: pytest.FixtureRequest) -> ModelCard:
    return card(request.param)


def test_every_row_of_the_tables_has_its_card_with_the_published_number_of_frames():
    rows = {found.paper.name: found.paper.frames for name in cards.names() if (found := card(name)).paper}
    assert rows == PUBLISHED_FRAMES


def test_a_card_samples_as_many_frames_as_the_paper(each: ModelCard):
    shown = len(each.frames.indices(90, 30.0))
    if each.paper:
        assert shown == each.paper.frames
    assert 1 <= shown <= 90


def test_what_nobody_has_seen_running_says_why_and_what_would_help(each: ModelCard):
    if each.runs in ("unproved", "no"):
        assert len(each.why) > 30
        assert len(each.to_run) > 30
    if each.runs == "no":
        with pytest.raises(ConfigError, match="cannot run"):
            each.require(BEFORE)
    else:
        assert each.require(BEFORE) is each


def test_no_card_claims_published_weights_and_what_one_calls_proved_has_its_proof_here(
    each: ModelCard, tiny_vlm: Callable[[str], Path]
):
    assert each.runs != "weights"  # none was ever at hand
    assert (each.runs == "protocol") == (each.api and each.runs != "no")
    if each.runs in ("architecture", "unproved"):
        made = [json.loads((tiny_vlm(name) / "config.json").read_text()) for name in ARCHITECTURES]
        named = {config.get("auto_map", {}).get("AutoModel") or config["architectures"][0] for config in made}
        proved = each.name in PUBLISHED if each.layout else each.architecture in named
        assert proved == (each.runs == "architecture")


def test_a_successor_is_a_card_that_the_provider_still_has(each: ModelCard):
    if each.successor:
        assert card(each.successor).problem() is None


def test_cards_hold_no_keys_and_trust_no_code_by_themselves(each: ModelCard):
    assert not any("key" in name and name != "key_variable" for name in each.settings)
    assert not each.settings.get("trust_remote_code")


def test_a_model_that_its_provider_switched_off_cannot_run():
    assert card("gpt-4o").problem(BEFORE) is None
    assert "switched it off on 2027-01-14" in str(card("gpt-4o").problem(AFTER))
    with pytest.raises(ConfigError, match=r"gemini-3\.8-flash is the successor"):
        card("gemini-1.5-pro").require()


@pytest.mark.parametrize(
    ("engine", "package", "table"),
    [("vllm", "vllm", "model_executor/models/registry.py"), ("transformers", "transformers", "models")],
)
def test_a_card_that_runs_names_an_architecture_of_the_installed_engine(engine, package, table):
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed")
    where = Path(spec.origin).parent / table
    ported = [file.read_text() for file in Path(architectures.__file__).parent.glob("*.py")]
    for name in cards.names():
        found = card(name)
        own = any(f"class {found.architecture}(" in text for text in ported)
        if found.engine != engine or found.runs == "no" or "trust_remote_code" in found.settings or own:
            continue
        if where.is_file():
            assert f'"{found.architecture}"' in where.read_text()
        else:
            family = found.architecture.removesuffix("ForConditionalGeneration")
            files = [path for path in where.iterdir() if path.name.replace("_", "") == family.lower()]
            assert f"class {found.architecture}(" in (files[0] / f"modeling_{files[0].name}.py").read_text()


def test_a_card_gives_its_engine_only_settings_that_it_has(each: ModelCard):
    if each.problem(BEFORE) is None:
        assert open_card(each.replaced(shutdown=None)).name == each.engine


@pytest.mark.parametrize(
    "architecture", ["VideoLlavaForConditionalGeneration", "mPLUGOwl3Model", "TarsierForConditionalGeneration"]
)
def test_what_cards_say_vllm_lacks_it_lacks(architecture: str):
    spec = find_spec("vllm")
    if spec is None or spec.origin is None:
        pytest.skip("vllm is not installed")
    text = (Path(spec.origin).parent / "model_executor/models/registry.py").read_text()
    # an entry is `"Name": (module, class)`; `"Name": "0.23.0"` is one that was dropped then
    assert re.search(rf'"{architecture}": \(', text) is None


def test_an_unknown_model_is_told_with_those_there_are():
    with pytest.raises(ConfigError, match=r"qwen2\.5-vl-7b"):
        card("qwen")
    with pytest.raises(ConfigError, match=r"no model card /nowhere/a\.yaml"):
        card("/nowhere/a.yaml")


GOOD = """name: mine
title: Mine
hub_id: me/mine
engine: vllm
frames: {kind: uniform, count: 4}
chat_template: from the hub's processor
context: 2048
gpu_memory_gb: 3
runs: weights
"""


def test_a_card_of_ones_own_is_read_from_a_path(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text(GOOD)
    assert card(str(tmp_path / "mine.yaml")).frames.label() == "uniform:4"


@pytest.mark.parametrize("architecture", ["Unknown", card("qwen2.5-vl-7b").architecture])
def test_a_models_folder_cannot_name_an_engine_or_settings_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str
):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "strangers_engine.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    (folder / "model.safetensors").write_bytes(b"")
    engine = {"engine": "strangers_engine:Engine", "settings": {"trust_remote_code": True}}
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture], **engine}))
    frames = {"kind": "uniform", "count": 3}
    (folder / "microg.json").write_text(json.dumps({"frames": frames, "card": engine, **engine}))
    found = folder_card(str(folder))
    assert found.frames.label() == "uniform:3"
    assert found.engine in ("transformers", "vllm")
    assert not found.settings.get("trust_remote_code")
    open_card(found)
    assert "strangers_engine" not in sys.modules


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("count: 4", "count: 0"), "frames.uniform.count"),
        (("runs: weights", 'runs: "no"'), "what would make it run"),
        (("engine: vllm", "engine: none"), "does not run"),
        (("gpu_memory_gb: 3\n", ""), "gpu_memory_gb is needed"),
        (("context: 2048", "contxt: 2048"), "contxt"),
        (("name: mine", "name: ["), "not valid YAML"),
    ],
)
def test_a_bad_card_names_the_key(tmp_path: Path, change, complaint):
    assert change[0] in GOOD
    (tmp_path / "bad.yaml").write_text(GOOD.replace(*change))
    with pytest.raises(ConfigError, match=complaint):
        card(str(tmp_path / "bad.yaml"))


def test_models_are_listed_as_a_table_in_full_and_as_json():
    runner = CliRunner()
    listed = runner.invoke(app, ["vlm", "models"], terminal_width=80)
    assert listed.exit_code == 0
    assert all(name in listed.output for name in cards.names())
    one = runner.invoke(app, ["vlm", "models", "tarsier2-recap-7b"])
    assert "'microg vlm convert FOLDER OUT', then --model OUT" in " ".join(one.output.split())
    documents = json.loads(runner.invoke(app, ["vlm", "models", "--json"]).output)
    assert {document["name"] for document in documents} == set(cards.names())
    retired = next(each for each in documents if each["name"] == "gemini-1.5-pro")
    assert "switched off" in retired["problem"]
    assert retired["successor"] == "gemini-3.8-flash"


def test_prompts_are_listed_and_shown():
    runner = CliRunner()
    assert "11d44760de515afe" in runner.invoke(app, ["vlm", "prompts"]).output
    assert "Question: {question}" in runner.invoke(app, ["vlm", "prompts", "vqa-v1"]).output
    assert json.loads(runner.invoke(app, ["vlm", "prompts", "vqa-v1", "--json"]).output)["hash"] == "bfc793c697ddee7a"
