"""Scoring texts in shards: the bits of one process whatever the shards, their order, and workers that are killed."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from microg.config import Resources
from microg.errors import MetricError, WeightsError, WorkerError
from microg.metrics.text import registry
from microg.metrics.text.items import Items, check, split_into_shards
from microg.metrics.text.scoring import measure
from microg.metrics.text.state import ItemState
from microg.pipelines.core import session, shared_files
from microg.pipelines.vlm import score_text
from microg.pipelines.vlm.score_text import ScoringActors, TextScoring
from tests.support.text_cases import random_items, tiny_settings

NAMES = tuple(registry.METRICS)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return tiny_settings(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.fixture(scope="module")
def items() -> Items:
    """Items of which some have the same texts, in no order."""
    ids, said, true = random_items(60, seed=8)
    rng = random.Random(1)
    places = [*range(60), *rng.choices(range(60), k=20)]
    rng.shuffle(places)
    return check(
        [f"{n}-{ids[at]}" for n, at in enumerate(places)], [said[at] for at in places], [true[at] for at in places]
    )


def _bits(states: dict[str, ItemState]) -> dict[str, Any]:
    found = {}
    for name, state in states.items():
        ids, statistics = state.statistics()
        found[name] = ids, statistics.tobytes(), state.compute(), state.values
    return found


def _at_once(protocol: str, items: Items, names: tuple[str, ...], settings: dict[str, Any]) -> dict[str, Any]:
    return _bits(measure(protocol, items.ids, items.predictions, items.references, names, settings))


def _shuffled(shards: list[Items], seed: int) -> list[Items]:
    random.Random(seed).shuffle(shards)
    return shards


@contextmanager
def _killing(least: int, most: int) -> Iterator[list[int]]:
    """Kill scoring workers while they measure a shard; yields the list of those killed."""
    killed: list[int] = []
    end = threading.Event()

    def kill() -> None:
        while not end.is_set() and len(killed) < most:
            for process in psutil.Process().children(recursive=True):
                try:
                    if process.cmdline()[:1] == ["ray::TextScorer.measure"] and process.pid not in killed:
                        process.kill()
                        killed.append(process.pid)
                        break
                except psutil.Error:
                    continue
            time.sleep(0.005)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        end.set()
        thread.join()
    assert len(killed) >= least


def test_shards_hold_each_item_once_with_equal_texts_together(items: Items) -> None:
    for number in (1, 3, 16, 1000):
        shards = split_into_shards(items, number)
        assert len(shards) <= number
        assert Counter(name for shard in shards for name in shard.ids) == Counter(items.ids)
        texts = [set(zip(shard.predictions, shard.references, strict=True)) for shard in shards]
        assert sum(map(len, texts)) == len(set.union(*texts))
        lengths = [len(text) for shard in shards for text in shard.predictions]
        assert lengths == sorted(lengths, reverse=True)
    apart = [set(zip(shard.predictions, shard.references, strict=True)) for shard in split_into_shards(items, 3)]
    work = [sum(20 + len(said) + sum(map(len, true)) for said, true in texts) for texts in apart]
    assert max(work) < 1.3 * min(work)
    assert split_into_shards(check([], [], []), 3) == []


def test_actors_find_the_bits_of_one_process_in_any_shards_and_order_and_get_the_drivers_encoders(
    ray_session: None, items: Items, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = _at_once("standard", items, NAMES, settings)
    mine = {name: {**own, "model": str(tmp_path / name / "tiny")} for name, own in settings.items()}
    for name, own in settings.items():
        shutil.copytree(own["model"], mine[name]["model"])

    def share_and_move_away(model: str) -> shared_files.SharedFolder:
        shared = shared_files.share_folder(model)
        shutil.rmtree(model)
        return shared

    actors = ScoringActors(2, num_cpus=1)
    try:
        for number, own in ((3, settings), (16, mine)):
            if own is mine:
                monkeypatch.setattr(session, "started_here", lambda: False)  # as if the workers were elsewhere
                monkeypatch.setattr(shared_files, "_on_all_nodes", lambda folder: [{}])
                monkeypatch.setattr(score_text, "share_folder", share_and_move_away)
            shards = _shuffled(split_into_shards(items, number), seed=number)
            told: list[int] = []
            assert _bits(actors.measure("standard", shards, NAMES, own, told.append)) == expected
            assert len(told) == len(shards)
            assert told[-1] == len(items)
    finally:
        actors.close()


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 3, 16])
def test_a_worker_killed_while_it_scores_changes_no_bit(
    ray_session: None, items: Items, settings: dict[str, Any], number: int
) -> None:
    expected = _at_once("standard", items, NAMES, settings)
    actors = ScoringActors(2, num_cpus=1)
    try:
        with _killing(1, 1) as killed:
            shards = _shuffled(split_into_shards(items, number), seed=number)
            assert _bits(actors.measure("standard", shards, NAMES, settings)) == expected
        assert len(killed) == 1
        assert len(actors) == 2
        assert _bits(actors.measure("standard", shards, NAMES, settings)) == expected
    finally:
        actors.close()


@pytest.mark.slow
def test_items_that_kill_their_worker_each_time_are_named(ray_session: None, items: Items) -> None:
    actors = ScoringActors(1, num_cpus=1)
    try:
        with (
            _killing(score_text.MAX_ATTEMPTS, 100),
            pytest.raises(WorkerError, match=r"3 workers died of the same 80 items .*meteor.*memory_gb"),
        ):
            actors.measure("standard", split_into_shards(items, 1), ["meteor"], {})
    finally:
        actors.close()


@pytest.mark.slow
def test_scoring_with_workers_is_scoring_here_and_tells_how_far_it_is(
    ray_session: None, items: Items, settings: dict[str, Any]
) -> None:
    names = ("sbert", "cider", "bleu")
    told: list[str] = []
    with TextScoring(Resources(), workers=1) as scoring:
        scoring.tell = told.append
        found = scoring.measure("paper", items.ids, items.predictions, items.references, names, settings)
        wrong = {"sbert": {"model": "/nothing-here"}}
        with pytest.raises(WeightsError, match="nothing-here cannot be loaded"):
            scoring.measure("paper", items.ids, items.predictions, items.references, ["sbert"], wrong)
    assert list(found) == list(names)
    assert _bits(found) == _at_once("paper", items, names, settings)
    assert "sbert: 80 of 80 items" in told
    assert "cider, bleu: 80 of 80 items" in told


def test_little_work_stays_in_this_process(
    items: Items, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: Any, **__: Any) -> None:
        raise AssertionError("an actor was started")

    monkeypatch.setattr(score_text, "ScoringActors", start)
    for name, metric in registry.METRICS.items():
        monkeypatch.setitem(registry.METRICS, name, replace(metric, worth=81))
    given = items.ids, items.predictions, items.references
    for workers in (None, 0):
        scoring = TextScoring(Resources(address="auto"), workers)
        found = scoring.measure("paper", *given, ["cider"], settings)
        assert _bits(found) == _at_once("paper", items, ("cider",), settings)
    told: list[str] = []
    scoring.tell = told.append
    found = scoring.measure("paper", *given, ["bertscore"], settings)
    assert _bits(found) == _at_once("paper", items, ("bertscore",), settings)
    assert told == ["bertscore: 80 of 80 items"]


def test_much_work_goes_to_ray_where_there_is_more_than_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    few, many = (check(range(n), [f"text {at}" for at in range(n)], ["x"] * n) for n in (100, 4_000))

    def pays(scoring: TextScoring, name: str, items: Items) -> bool:
        return scoring._pays(name, items, {"sbert": {"device": "cpu"}})

    for cores, expected in ((1.0, False), (4.0, True)):
        monkeypatch.setattr(score_text, "usable_cores", lambda cores=cores: cores)
        assert pays(TextScoring(), "sbert", many) is expected
        assert not pays(TextScoring(), "sbert", few)
        assert not pays(TextScoring(), "meteor", many)
        assert pays(TextScoring(Resources(address="auto")), "sbert", many)
        assert pays(TextScoring(workers=1), "cider", few)
        assert not pays(TextScoring(workers=0), "sbert", many)
    # what is encoded once counts once
    same = check(range(9_000), ["Yes."] * 9_000, ["No."] * 9_000)
    assert not pays(TextScoring(Resources(address="auto")), "sbert", same)


def test_an_item_that_cannot_be_scored_is_named_before_any_worker_starts() -> None:
    with pytest.raises(MetricError, match="prediction of item 'b' is missing"):
        TextScoring(workers=2).measure("paper", ["a", "b"], ["x", None], ["y", "z"], ["cider"])
