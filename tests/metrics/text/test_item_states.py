"""States of text metrics: the same bits however the items were cut, ordered, merged, replayed and pickled."""

from __future__ import annotations

import pickle
import random
from typing import Any

import numpy as np
import pytest

from microg.errors import MetricError
from microg.metrics.text import registry
from microg.metrics.text.bleu import BleuState
from microg.metrics.text.cider import Frequencies
from microg.metrics.text.items import check
from microg.metrics.text.rouge import RougeState
from microg.metrics.text.state import ItemState, MeanState, exact_sums
from tests.support.text_cases import random_items, tiny_settings


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return tiny_settings(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.mark.parametrize("name", [*registry.METRICS, registry.ANSWERS.name])
@pytest.mark.parametrize("shards", [1, 3, 16])
def test_shards_in_any_order_give_the_same_bits(name: str, shards: int, settings: dict[str, dict[str, Any]]) -> None:
    def empty() -> ItemState:
        return registry.empty(name, **settings.get(name, {}))

    number = 300 if registry.metric(name).needs == "nothing" else 40
    ids, said, true = random_items(number, seed=2)
    whole = empty().update(ids, said, true)
    rng = random.Random(shards)
    order = rng.sample(range(number), number)
    parts = []
    for shard in range(shards):
        chosen = order[shard::shards]
        texts = [said[place] for place in chosen], [true[place] for place in chosen]
        parts.append(empty().update([ids[place] for place in chosen], *texts))
    parts += [pickle.loads(pickle.dumps(part)) for part in rng.sample(parts, len(parts) // 2)]  # noqa: S301 - replays
    rng.shuffle(parts)
    merged = empty()
    for part in parts:
        merged.merge(registry.load(name).from_table(part.to_table()) if rng.random() < 0.5 else part)
    assert list(merged.compute()) == list(whole.compute())
    assert np.array([*merged.compute().values()]).tobytes() == np.array([*whole.compute().values()]).tobytes()
    assert merged.per_item()[0] == ids
    for score, values in whole.per_item()[1].items():
        assert merged.per_item()[1][score].tobytes() == values.tobytes()


def test_document_frequencies_add_up_over_shards() -> None:
    _, _, true = random_items(200)
    whole = Frequencies.of(true)
    parts = [Frequencies.of(true[start::7]) for start in range(7)]
    merged = Frequencies.empty()
    for part in reversed(parts):
        merged = merged.merge(part)
    assert merged.items == whole.items == 200
    assert merged.codes.tobytes() == whole.codes.tobytes()
    assert merged.counts.tobytes() == whole.counts.tobytes()


def test_resamples_are_scores_of_copied_items() -> None:
    ids, said, true = random_items(20, seed=3)
    state = BleuState.empty().update(ids, said, true)
    weights = np.random.default_rng(0).integers(0, 3, (4, 20)).astype(float)
    resampled = state.score(weights @ state.statistics()[1], weights.sum(axis=1))["bleu_4"]
    for row, value in zip(weights, resampled, strict=True):
        places = [place for place in range(20) for _ in range(int(row[place]))]
        copies = BleuState.empty().update(
            [f"{n}" for n in range(len(places))], [said[p] for p in places], [true[p] for p in places]
        )
        assert value == pytest.approx(copies.compute()["bleu_4"], abs=1e-12)


def test_an_item_that_comes_again_with_other_texts_is_refused() -> None:
    state = RougeState.empty().update(["a_001"], ["red"], ["red"]).update(["a_001"], ["blue"], ["red"])
    with pytest.raises(MetricError, match="'a_001' was given twice"):
        state.compute()


def test_of_a_replayed_item_the_same_value_counts_in_any_order() -> None:
    class Value(MeanState):
        columns = values = ("value",)

    items = check(["a"], ["x"], ["y"])
    low, high = (np.array([[value]]) for value in (0.5, np.nextafter(0.5, 1)))
    assert Value.empty().add(items, high).add(items, low).compute() == {"value": 0.5}
    assert Value.empty().add(items, low).add(items, high).compute() == {"value": 0.5}


@pytest.mark.parametrize(
    ("prediction", "reference", "complaint"),
    [
        (None, "x", "prediction of item 'a_001' is missing"),
        (float("nan"), "x", "prediction of item 'a_001' is missing"),
        (7, "x", "prediction of item 'a_001' is 7, not text"),
        ("x", None, "reference of item 'a_001' is missing"),
        ("x", [], "item 'a_001' has no reference"),
        ("x", ["y", float("nan")], "reference of item 'a_001' is missing"),
        ("broken \ud83d", "x", "prediction of item 'a_001' holds half of a surrogate pair"),
    ],
)
def test_what_is_not_text_is_refused_by_name(prediction: object, reference: object, complaint: str) -> None:
    with pytest.raises(MetricError, match=complaint):
        RougeState.empty().update(["a_001"], [prediction], [reference])


def test_columns_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(MetricError, match="2 ids, 1 predictions and 1 references"):
        RougeState.empty().update(["a", "b"], ["x"], ["x"])


def test_without_items_there_is_no_score() -> None:
    with pytest.raises(MetricError, match="no items"):
        BleuState.empty().compute()


def test_sums_do_not_depend_on_order() -> None:
    values = np.random.default_rng(0).normal(size=(1000, 2)) * 10.0 ** np.arange(-8, 12, 0.02)[:, None]
    assert exact_sums(values).tobytes() == exact_sums(values[::-1]).tobytes()
