"""BLEU, CIDEr-D and ROUGE-L against numbers worked out by hand, the stock library and the oracle."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge, my_lcs

from microg.metrics.text.bleu import BleuState, bleu
from microg.metrics.text.cider import CiderState, Frequencies, cider_items
from microg.metrics.text.rouge import RougeState, longest_common_subsequence, rouge_l_item
from tests.support.text_cases import random_items


def test_bleu_of_a_sentence_worked_out_by_hand() -> None:
    found = bleu(["the the the crew"], [["the crew floats over the Earth", "crew of the ship"]])
    # "the" counts twice at most; "the crew" is the one of three pairs that is right; length 4 is the closest to 4
    assert found["bleu_1"] == pytest.approx(3 / 4, abs=1e-8)
    assert found["bleu_2"] == pytest.approx(math.sqrt(3 / 4 * 1 / 3), abs=1e-8)
    assert found["bleu_3"] == pytest.approx(0, abs=1e-4)


def test_of_two_references_as_close_in_length_the_shorter_one_counts() -> None:
    state = BleuState.empty().update(["a"], ["x x x"], [["x x x x", "x x"]])
    assert state.statistics()[1][0, :2].tolist() == [3, 2]


def test_cider_of_two_items_worked_out_by_hand() -> None:
    # idf is log 2 for words of one item and 0 for "a", which is in both: "a cat" and "cat" have cosine 1 in each order
    references = [["a cat"], ["a dog"]]
    found = cider_items(["a cat", "cat"], references, Frequencies.of(references))
    assert found[0] == pytest.approx(10 * 2 / 4)
    assert found[1] == 0  # "cat" is in no reference of the second item


def test_cider_falls_with_the_difference_in_length() -> None:
    references = [["red suit"], ["blue suit"]]
    found = cider_items(["red suit " * 6, ""], references, Frequencies.of(references))
    same = cider_items(["red suit", ""], references, Frequencies.of(references))
    assert 0 < found[0] < same[0] * math.exp(-(10**2) / 72)


def test_longest_common_subsequence_is_that_of_the_textbook() -> None:
    rng = random.Random(1)
    for _ in range(200):
        first, second = (rng.choices("abcde", k=rng.randint(0, 90)) for _ in range(2))
        assert longest_common_subsequence(first, second) == my_lcs(first, second)


def test_rouge_splits_at_single_spaces_as_published() -> None:
    assert rouge_l_item("a  b", ["a b"]) == pytest.approx(2.44 * (2 / 3) / (1 + 1.44 * 2 / 3))


@pytest.mark.parametrize("number", [1, 1500])
def test_scores_are_those_of_the_stock_library(number: int) -> None:
    ids, said, true = random_items(number)
    truth, predictions = dict(zip(ids, true, strict=True)), {name: [text] for name, text in zip(ids, said, strict=True)}
    stock_bleu, bleu_items = Bleu(4).compute_score(truth, predictions, verbose=0)
    state = BleuState.empty().update(ids, said, true)
    assert list(state.compute().values()) == pytest.approx(stock_bleu, abs=1e-12)
    np.testing.assert_allclose(state.per_item()[1]["bleu_4"], bleu_items[3], atol=1e-12)
    for kind, stock in ((CiderState, Cider()), (RougeState, Rouge())):
        score, items = stock.compute_score(truth, predictions)
        state = kind.empty().update(ids, said, true)
        assert list(state.compute().values()) == pytest.approx([score], abs=1e-12)
        np.testing.assert_allclose(next(iter(state.per_item()[1].values())), items, atol=1e-12)


def test_an_empty_answer_scores_zero() -> None:
    ids, said, true = ["a", "b", "c"], ["", " \n ", "red"], ["a  red suit", "", "blue"]
    for kind in (BleuState, CiderState, RougeState):
        for values in kind.empty().update(ids, said, true).per_item()[1].values():
            assert values.tolist()[:2] == [0, 0]


@pytest.mark.parametrize("protocol", ["paper_raw", "standard_ptb"])
def test_coco_example_scores_are_those_published(oracles, protocol: str) -> None:
    data = json.loads((oracles / "text/coco_fakecap_1000.json").read_text())
    kind = protocol.removeprefix("paper_").removeprefix("standard_")
    said, true = data[f"candidates_{kind}"], data[f"references_{kind}"]
    expected = data[f"expected_{protocol}"]
    found: dict[str, float] = {}
    for state_type, value in ((BleuState, "bleu_4"), (CiderState, "cider"), (RougeState, "rouge_l")):
        state = state_type.empty().update(data["ids"], said, true)
        found |= state.compute()
        ids, values = state.per_item()
        mine = dict(zip(ids, values[value], strict=True))
        theirs = expected["items"][{"bleu_4": "Bleu_4", "cider": "CIDEr", "rouge_l": "ROUGE_L"}[value]]
        assert [mine[name] for name in data["ids"]] == pytest.approx(theirs, abs=1e-9)
    names = {**{f"Bleu_{n}": f"bleu_{n}" for n in range(1, 5)}, "CIDEr": "cider", "ROUGE_L": "rouge_l"}
    assert [found[ours] for ours in names.values()] == pytest.approx([expected["corpus"][n] for n in names], abs=1e-9)
    if protocol == "standard_ptb":
        published = data["published_in_coco_caption_demo_notebook"]
        assert [round(found[ours], 3) for ours in names.values()] == [published[name] for name in names]
