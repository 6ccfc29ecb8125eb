"""Baselines that see no video, length statistics, and the bootstrap of text metrics."""

from __future__ import annotations

import numpy as np
import pytest

from microg.errors import ConfigError, MetricError
from microg.metrics.published import text_row, text_rows
from microg.metrics.text import registry
from microg.metrics.text.answers import AnswerState
from microg.metrics.text.cider import cider
from microg.metrics.text.intervals import bootstrap_texts, compare_texts, text_intervals
from microg.metrics.text.report import baselines, length_statistics, most_common, other_clips, question_prior, typical
from microg.metrics.text.scoring import measure
from microg.texts.items import ItemKey
from microg.texts.pairs import Pair, Pairs

COLUMNS = ("cider", "bleu_4", "rouge_l", "meteor", "sbert", "bertscore_f1")
WORDS = ["man", "floats", "red", "tether", "cable", "waves", "slowly", "behind", "panel", "tablet", "camera", "module"]


def _pair(clip: str, index: int, question: str, true: str, said: str = "said") -> Pair:
    return Pair(ItemKey("vqa", clip, index), (true,), question, said, "ok")


def _sentences(number: int, seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(3, 12))) for _ in range(number)]


def test_constant_answer_is_the_most_frequent_one():
    assert most_common(["Two.", "two", "Three."]) == "Two."
    assert most_common(["b", "a"]) == "a"


def test_typical_caption_is_the_one_closest_to_all():
    texts = _sentences(40, 3)

    def dice(first: str, second: str) -> float:
        a, b = set(first.split()), set(second.split())
        return 2 * len(a & b) / (len(a) + len(b))

    by_hand = [sum(dice(text, other) for other in texts) for text in texts]
    assert typical(texts) == texts[int(np.argmax(by_hand))]


def test_blind_answers_come_from_alike_questions_of_other_clips_only():
    items = [
        _pair("a_0", 0, "What colour is the bag?", "Blue."),
        _pair("b_0", 0, "What colour is the rail?", "Blue."),
        _pair("c_0", 0, "What colour is the hatch?", "Red."),
        _pair("c_0", 1, "What colour is it?", "Red."),
        _pair("d_0", 0, "What colour is this?", "Green."),
        _pair("e_0", 0, "Why?", "Not mentioned."),
        _pair("f_0", 0, "Who waves?", "Not mentioned."),
        _pair("g_0", 0, "Who eats?", "Anna."),
    ]
    said = question_prior(items)
    assert said[2] == said[3] == said[4] == "Blue."
    assert said[0] == "Red."  # its own answer does not count, so red leads
    assert said[7] == "Blue."  # nothing twice for "who" elsewhere: the most frequent answer of all others
    assert question_prior([_pair("a_0", 0, "Who?", "x")]) == [""]


def test_texts_of_other_clips_are_each_used_once():
    clips = [f"c{number % 7}" for number in range(42)]
    moved = other_clips(clips, 5)
    assert sorted(moved) == list(range(42))
    assert all(clips[place] != clips[other] for place, other in enumerate(moved))
    assert moved == other_clips(clips, 5) != other_clips(clips, 6)
    # nor does the third question of a clip always get the answer to another clip's third one
    assert sum(place // 7 == other // 7 for place, other in enumerate(moved)) < 21


def test_baselines_are_aligned_with_the_items():
    items = tuple(_pair(f"c{n}", 0, "How many?", ["Two.", "Two.", "One."][n % 3], f"said {n}") for n in range(6))
    found = baselines(Pairs("vqa", items))
    assert found["constant"] == ["Two."] * 6
    assert sorted(found["shuffled"]) == [f"said {n}" for n in range(6)]
    assert all(text != item.text for text, item in zip(found["shuffled"], items, strict=True))
    captions = tuple(Pair(ItemKey("caption", f"c{n}"), (f"true {n}",), None, "x", "ok") for n in range(5))
    blind = baselines(Pairs("caption", captions))["blind"]
    assert sorted(blind) == [f"true {n}" for n in range(5)]
    assert all(text not in item.references for text, item in zip(blind, captions, strict=True))


def test_length_statistics_show_what_the_penalty_takes():
    said, true = ["a man floats behind the red panel"], [["a man floats"]]
    other = ["two women wave", "an arm"]
    found = length_statistics(said + other, true + [[text] for text in other])
    assert found["words"] == pytest.approx((7 + 3 + 2) / 3)
    assert found["ratio"] == 12 / 8
    assert found["difference"] == pytest.approx(4 / 3)
    assert found["cider_penalty"] == pytest.approx((np.exp(-16 / 72) + 2) / 3)
    assert found["cider"] == pytest.approx(cider(said + other, [true[0][0], *other]))
    assert found["cider_without_penalty"] > found["cider"]
    assert found["cider_penalty_share"] == pytest.approx(1 - found["cider"] / found["cider_without_penalty"])
    assert length_statistics([], []) == {}


def test_the_penalty_of_long_texts_is_known_though_cider_itself_is_zero():
    said, true = " ".join(["a man floats"] * 60), "a man floats"
    found = length_statistics([said, "b c"], [[true], ["b c"]])
    without = length_statistics([true, "b c"], [[true], ["b c"]])
    assert found["cider"] < without["cider"]
    assert found["cider_without_penalty"] > found["cider"] + 0.01


def _states(said: list[str], true: list[str], ids: list[str]):
    states = measure("paper", ids, said, true, ["bleu", "cider", "rouge_l"])
    return {**states, "answers": AnswerState.empty().update(ids, said, true)}


def test_weights_give_what_scoring_copies_of_the_drawn_clips_gives():
    said, true = _sentences(18, 1), _sentences(18, 2)
    ids = [f"c{n % 6}:{n // 6}" for n in range(18)]
    clip_of = {name: name.split(":")[0] for name in ids}
    drawn = bootstrap_texts(_states(said, true, ids), clip_of, resamples=4, seed=9)
    for number in range(4):
        clips = np.random.default_rng((9, number)).integers(0, 6, 6)
        rows = [
            (f"{name}/{copy}", place)
            for copy, clip in enumerate(clips)
            for place, name in enumerate(ids)
            if clip_of[name] == f"c{clip}"
        ]
        copied = _states([said[p] for _, p in rows], [true[p] for _, p in rows], [name for name, _ in rows])
        for name in ("bleu_1", "bleu_4", "rouge_l", "exact_match", "token_f1"):
            state = next(state for state in copied.values() if name in state.values)
            assert drawn.values[name][number] == pytest.approx(state.compute()[name], abs=1e-12)
        # CIDEr keeps the document frequencies of the whole corpus
        _, items = _states(said, true, ids)["cider"].per_item()
        order = sorted(range(18), key=lambda place: ids[place])
        value = {order[place]: score for place, score in enumerate(items["cider"])}
        assert drawn.values["cider"][number] == pytest.approx(np.mean([value[p] for _, p in rows]), abs=1e-12)


def test_intervals_hold_the_score_and_undefined_ones_are_left_out():
    said, true = _sentences(60, 4), _sentences(60, 4)
    said[:30] = _sentences(30, 8)
    ids = [f"c{n}" for n in range(60)]
    states = _states(said, true, ids)
    drawn = bootstrap_texts(states, {name: name for name in ids}, resamples=200)
    scores = {name: value for state in states.values() for name, value in state.compute().items()}
    found = text_intervals(drawn, scores)
    assert all(low <= scores[name] <= high for name, (low, high) in found.items())
    assert {"bleu_4", "cider", "exact_match"} <= set(found)
    assert "yes_no_accuracy" not in found


def test_two_models_are_compared_on_the_same_draws():
    true = _sentences(80, 1)
    better = [text if n % 2 else "no idea" for n, text in enumerate(true)]
    worse = [text if n % 4 == 1 else "no idea" for n, text in enumerate(true)]
    ids = [f"c{n // 2}:{n}" for n in range(80)]
    clip_of = {name: name.split(":")[0] for name in ids}
    a, b = (bootstrap_texts(_states(said, true, ids), clip_of, resamples=300) for said in (better, worse))
    estimates = tuple(_states(said, true, ids)["cider"].compute()["cider"] for said in (better, worse))
    found = compare_texts(a, b, (estimates[0], estimates[1]), "cider")
    assert found["p_better"] > 0.99
    assert 0 < found["low"] < found["difference"] < found["high"]
    back = compare_texts(b, a, (estimates[1], estimates[0]), "cider")
    assert back["p_better"] == pytest.approx(1 - found["p_better"])
    assert compare_texts(a, a, (1.0, 1.0), "cider")["p_better"] == 0.5
    other = bootstrap_texts(_states(worse, true, ids), clip_of, resamples=300, seed=1)
    with pytest.raises(MetricError, match="cannot be paired"):
        compare_texts(a, other, (estimates[0], estimates[1]), "cider")


def test_one_clip_cannot_be_resampled():
    states = _states(["a"], ["a"], ["c0"])
    with pytest.raises(MetricError, match="only 1 clip"):
        bootstrap_texts(states, {"c0": "c0"}, resamples=5)


def test_published_rows_are_percent_by_task_and_column():
    assert text_row("Gemini_1_5_Pro").scores["caption"]["S-BERT"] == 63.38
    assert "vqa" not in text_row("internvideo").scores
    assert [name for name in text_rows() if text_row(name).doubts] == ["llava_next", "video_llava", "tarsier2_recap_7b"]
    for name in text_rows():
        for task, columns in text_row(name).scores.items():
            assert set(columns) == {registry.column(value, task) for value in COLUMNS}
    with pytest.raises(ConfigError, match="rows are video_chatgpt"):
        text_row("gpt5")
