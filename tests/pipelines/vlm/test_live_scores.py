"""Running scores: the actor that adds them up, replays, its death, and what the driver shows."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from microg.metrics.text.answers import AnswerState
from microg.metrics.text.scoring import measure
from microg.pipelines.core import live_scores
from microg.pipelines.core.live_scores import Aggregator
from microg.pipelines.vlm import answer_store
from microg.pipelines.vlm.live_scores import LiveTextScores, clip_states, fold, fold_states, live_line
from microg.pipelines.vlm.score_text import TextScoring
from microg.pipelines.vlm.settings import GenerateSettings
from microg.texts.files import read_text_predictions, read_text_references
from microg.texts.items import ItemKey
from microg.texts.pairs import Pair, Pairs, pair
from tests.support.helpers import make_dataset

WORDS = ["man", "floats", "red", "tether", "cable", "waves", "slowly", "two", "yes", "no"]


def _pairs(task: Any, clips: int = 12) -> Pairs:
    draw = random.Random(task)

    def text() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(1, 9)))

    items = []
    for clip in range(clips):
        for index in range(3) if task == "vqa" else (None,):
            key = ItemKey(task, f"c_{clip:03d}", index)
            items.append(Pair(key, (text(),), "How many float?" if task == "vqa" else None, text(), "ok"))
    return Pairs(task, tuple(items))


EVERYTHING = [_pairs("caption"), _pairs("vqa")]


def _offline(pairs: Pairs) -> dict[str, float]:
    """Score all texts at once."""
    ids = [item.key.id for item in pairs.items]
    said, true = [item.scored for item in pairs.items], [item.references for item in pairs.items]
    states: dict[str, Any] = dict(measure("paper", ids, said, true, ("bleu", "cider", "rouge_l")))
    if pairs.task == "vqa":
        questions = {item.key.id: str(item.question) for item in pairs.items}
        states["answers"] = AnswerState.empty(questions=questions).update(ids, said, true)
    return {name: value for state in states.values() for name, value in state.compute().items()}


OFFLINE = {pairs.task: _offline(pairs) for pairs in EVERYTHING}


def _bits(scores: Mapping[Any, Mapping[str, float]]) -> dict[Any, dict[str, str]]:
    return {task: {name: value.hex() for name, value in values.items()} for task, values in scores.items()}


def _same_bits(found: Mapping[Any, Mapping[str, float]]) -> bool:
    return _bits(found) == _bits(OFFLINE)


def _clip(pairs: Pairs, clip: str) -> list[Pair]:
    return [item for item in pairs.items if item.key.clip_id == clip]


def test_folded_states_give_the_bits_of_scoring_at_once():
    assert _same_bits(fold(EVERYTHING).scores())


def test_replays_in_any_order_count_once():
    draw = random.Random(0)
    puts = [
        (pairs.task, item.key.clip_id, _clip(pairs, item.key.clip_id)) for pairs in EVERYTHING for item in pairs.items
    ]
    draw.shuffle(puts)
    aggregator = Aggregator(fold_states)
    for task, clip, items in puts:
        aggregator.put(cast("Any", task), clip, clip_states(items))
    assert aggregator.counts() == {"caption": 12, "vqa": 12}
    assert _same_bits(aggregator.scores())


def test_of_two_answers_to_one_clip_the_newer_counts_whenever_it_comes():
    aggregator = fold(EVERYTHING)
    item = EVERYTHING[0].items[0]
    changed = Pair(item.key, item.references, None, item.references[0], "ok")
    aggregator.put("caption", "c_000", clip_states([changed]), written=5.0)
    better = aggregator.scores()["caption"]["rouge_l"]
    assert better > OFFLINE["caption"]["rouge_l"]
    aggregator.put("caption", "c_000", clip_states([item]), written=4.0)
    assert aggregator.scores()["caption"]["rouge_l"] == better
    aggregator.put("caption", "c_000", clip_states([item]), written=6.0)
    assert _same_bits(aggregator.scores())


def test_partial_scores_are_those_of_the_clips_there_are():
    part = Pairs("caption", EVERYTHING[0].items[:5])
    found = fold([part]).scores()["caption"]
    assert found == _offline(part)
    line = live_line({"caption": found}, {"caption": 5})
    assert line.startswith("caption, 5 clips so far: CIDEr-D ")


def test_missing_answers_are_left_out_of_live_scores():
    missing = Pair(ItemKey("caption", "d_000"), ("x",), None, None, "missing")
    assert fold([Pairs("caption", (*EVERYTHING[0].items, missing))]).counts() == {"caption": 12}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("live") / "data"
    make_dataset(folder)
    return str(folder)


def answers(data: str) -> list[dict[str, Any]]:
    """Return rows of `generations` that say something else than the references, and one that failed."""
    rows = []
    for key, texts in read_text_references(data).texts.items():
        row = {"key": f"{key.task}:{key.id}", **key._asdict(), "model": "m", "engine": "test"}
        rows.append({**row, "text": f"{texts[0]} indeed", "status": "ok", "error": ""})
    rows[0] |= {"text": None, "status": "error", "error": "no"}
    return rows


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_scores, "_EVERY_S", 0.0)
    monkeypatch.setattr(live_scores, "_SHARE", 1e9)


def whole(data: str, root: Path, rows: list[dict[str, Any]]) -> str:
    """Return the line of scoring everything at once."""
    answer_store.finish(str(root), [row["key"] for row in rows])
    said, truth = read_text_predictions(str(root)), read_text_references(data)
    folded = fold([pair(said, truth, task, missing="zero") for task in ("caption", "vqa")])
    return live_line(folded.scores(), folded.counts())


def test_scores_so_far_become_those_of_everything(data: str, ray_session: None, tmp_path: Path) -> None:
    rows = answers(data)
    found = LiveTextScores.open(str(tmp_path), GenerateSettings(dataset=data))
    assert found is not None
    with closing(found):
        lines = []
        for start in range(0, len(rows), 5):
            part = rows[start : start + 5]  # a clip's answers come in several parts: none of them is forgotten
            answer_store.commit(str(tmp_path), part)
        for clip in dict.fromkeys(row["clip_id"] for row in rows):
            found.sender.send([row for row in rows if row["clip_id"] == clip])
            lines.append(found.line())
    assert len(set(lines)) > 1
    assert "clips so far" in lines[0]
    assert lines[-1] == whole(data, tmp_path, rows)


def test_what_was_answered_before_counts_and_an_actor_that_is_lost_is_filled_again(
    data: str, ray_session: None, tmp_path: Path
) -> None:
    import ray

    rows = answers(data)
    earlier = [row for row in rows if row["task"] == "caption" or row["qa_index"] == 0]
    answer_store.commit(str(tmp_path), earlier)
    found = LiveTextScores.open(str(tmp_path), GenerateSettings(dataset=data))
    assert found is not None
    with closing(found):
        later = [row for row in rows if row not in earlier]
        answer_store.commit(str(tmp_path), later)
        found.sender.send(later)
        wanted = whole(data, tmp_path, rows)
        assert found.line() == wanted
        ray.kill(found.aggregator, no_restart=False)
        end = time.monotonic() + 60
        while (line := found.line()) != wanted and time.monotonic() < end:
            time.sleep(0.2)
        assert line == wanted


def test_a_lost_actor_that_got_more_since_is_filled_again_all_the_same(
    data: str, ray_session: None, tmp_path: Path
) -> None:
    import ray

    rows = answers(data)
    found = LiveTextScores.open(str(tmp_path), GenerateSettings(dataset=data))
    assert found is not None
    with closing(found):
        clips = list(dict.fromkeys(row["clip_id"] for row in rows))
        first = [row for row in rows if row["clip_id"] == clips[0]]
        later = [row for row in rows if row["clip_id"] != clips[0]]
        answer_store.commit(str(tmp_path), first)
        found.sender.send(first)
        assert found.line()
        pid: Any = ray.get(found.aggregator.__ray_call__.remote(lambda _: os.getpid()))
        os.kill(pid, signal.SIGKILL)
        answer_store.commit(str(tmp_path), later)
        found.sender.send(later)  # more than the line has counted before
        end = time.monotonic() + 60
        wanted = whole(data, tmp_path, rows)
        while (line := found.line()) != wanted and time.monotonic() < end:
            time.sleep(0.2)
        assert line == wanted
        assert _bits(found.final()) == _bits(_whole_scores(data, tmp_path))


def test_the_end_has_the_scores_of_slow_metrics_too(data: str, ray_session: None, tmp_path: Path) -> None:
    rows = answers(data)
    answer_store.commit(str(tmp_path), rows)
    found = LiveTextScores.open(str(tmp_path), GenerateSettings(dataset=data))
    assert found is not None
    with closing(found), TextScoring(workers=0) as scoring:
        scores, skipped = found.final_with(["meteor", "bertscore"], scoring)
    assert list(skipped) == ["bertscore"]  # which is not on this machine: the other scores are there all the same
    answer_store.finish(str(tmp_path), [row["key"] for row in rows])
    said, truth = read_text_predictions(str(tmp_path)), read_text_references(data)
    for task, values in _whole_scores(data, tmp_path).items():
        pairs = [item for item in pair(said, truth, cast("Any", task), missing="zero").items if item.text is not None]
        items = [item.key.id for item in pairs], [item.scored for item in pairs], [item.references for item in pairs]
        offline = measure("paper", *items, ["meteor"])["meteor"].compute()
        assert _bits({task: scores[task]}) == _bits({task: {**values, **offline}})


def _whole_scores(data: str, root: Path) -> dict[str, dict[str, float]]:
    """Return the scores of folding everything that is committed at once."""
    keys = [row["key"] for row in answers(data)]
    answer_store.finish(str(root), keys)
    said, truth = read_text_predictions(str(root)), read_text_references(data)
    folded = fold([pair(said, truth, task, missing="zero") for task in ("caption", "vqa")])
    return {part: dict(values) for part, values in folded.scores().items()}


def test_a_dataset_without_references_has_no_live_scores(ray_session: None, tmp_path: Path) -> None:
    def change(rows: dict[str, list[dict[str, Any]]]) -> None:
        rows["captions"], rows["qa"] = [], []

    make_dataset(tmp_path / "data", change)
    assert LiveTextScores.open(str(tmp_path / "run"), GenerateSettings(dataset=str(tmp_path / "data"))) is None
