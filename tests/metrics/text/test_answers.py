"""Accuracies of short answers, and that they add up under any sharding."""

from __future__ import annotations

import random

import numpy as np
import pytest

from microg.errors import MetricError
from microg.metrics.text.answers import (
    AnswerState,
    abstains,
    answer_type,
    answers,
    exactly,
    normalise,
    number_in,
    token_f1,
    yes_or_no,
)

ROWS = [  # question, reference, prediction
    ("Is he upright?", "Yes.", "Yes, he is floating upright."),
    ("Are the men sad?", "No.", "Yes."),
    ("Does it float?", "No, it is strapped down.", "no"),
    ("How many people are visible?", "Two.", "2"),
    ("How many crew members wear suits?", "Two crew members.", "Three crew members."),
    ("How many are on board?", "None.", "There are none."),
    ("What is her name?", "Not mentioned.", "The name is not mentioned."),
    ("What brand is it?", "Not mentioned.", "It is a Nikon."),
    ("Who is he?", "Ye Guangfu.", "It cannot be determined."),
    ("What does she read from?", "A tablet.", "a tablet"),
    ("Where is the bag?", "Strapped to the wall.", ""),
]


def test_normalisation_folds_case_punctuation_articles_numbers_and_unicode():
    assert normalise("  The  Three crew-members’ bags, (blue)! ") == "3 crew members bags blue"
    assert normalise("ＴＷＯ") == normalise("two") == "2"
    assert normalise("宇航员。") == "宇航员"
    assert normalise("...") == ""
    assert exactly("a tablet", ["A tablet."])
    assert exactly("x", ["y", "X!"])
    assert not exactly("", ["..."])


@pytest.mark.parametrize(
    ("said", "true", "value"),
    [
        ("he waves", "ye guangfu waves", 0.4),
        ("a b c", "c b a", 1.0),
        ("b b b", "b", 0.5),
        ("", "", 1.0),
        ("x", "", 0.0),
    ],
)
def test_token_f1_counts_words_with_repetition(said: str, true: str, value: float):
    assert token_f1(said, true) == pytest.approx(value)


def test_types_of_answers():
    assert [answer_type(question, true) for question, true, _ in ROWS] == [
        *["yes/no"] * 3,
        *["count"] * 3,
        *["unanswerable"] * 2,
        *["other"] * 3,
    ]
    assert answer_type(None, "Yes.") == "yes/no"
    assert answer_type("What is the number of bags?", "Four bags.") == "count"
    assert answer_type("Who is there?", "Two astronauts.") == "other"
    assert answer_type("Who films?", "Unanswerable.") == "unanswerable"
    assert answer_type("Why?", "Because it was not possible to reach the hatch in time.") == "other"


@pytest.mark.parametrize(
    "text",
    [
        "Not mentioned",
        "It's unknown.",
        "I can't tell.",
        "The year cannot be determined",
        "I don't know",
        "Unclear.",
        "There is not enough information.",
        "It is not possible to determine the brand.",
        "That is not specified.",
    ],
)
def test_ways_to_say_that_it_cannot_be_answered(text: str):
    assert abstains(normalise(text))


@pytest.mark.parametrize(
    "text", ["He is not visible.", "No.", "She can not reach it.", "An unknown astronaut waves.", ""]
)
def test_answers_that_only_look_like_giving_up(text: str):
    assert not abstains(normalise(text))


def test_numbers_and_yes_no_are_read_from_the_text():
    assert [number_in(normalise(text)) for text in ("Twelve.", "about 07 of them", "No one.", "some", "3 or 2")] == [
        "12",
        "7",
        "0",
        None,
        "3",
    ]
    assert [yes_or_no(normalise(text)) for text in ("Yes!", "No, never", "Nothing", "")] == ["yes", "no", None, None]


def test_every_accuracy_is_of_its_own_questions():
    found = answers([row[2] for row in ROWS], [row[1] for row in ROWS], [row[0] for row in ROWS])
    assert found["yes_no_accuracy"] == pytest.approx(2 / 3)
    assert found["count_accuracy"] == pytest.approx(2 / 3)
    # said that it cannot be answered: rightly once, wrongly once
    assert found["unanswerable_precision"] == 0.5
    assert found["unanswerable_recall"] == 0.5
    assert found["exact_match"] == pytest.approx(2 / 11)  # 2, tablet
    assert found["answerable_exact_match"] == pytest.approx(2 / 9)
    assert found["token_f1"] > found["exact_match"]


def test_scores_without_their_kind_of_question_are_undefined():
    found = answers(["red"], ["Red."], ["What colour?"])
    assert found["exact_match"] == 1
    assert all(np.isnan(found[name]) for name in ("yes_no_accuracy", "count_accuracy", "unanswerable_recall"))


def test_shards_in_any_order_give_the_same_bits():
    questions = {str(place): row[0] for place, row in enumerate(ROWS)}
    whole = AnswerState.empty(questions=questions).update(
        map(str, range(len(ROWS))), [r[2] for r in ROWS], [r[1] for r in ROWS]
    )
    order = list(range(len(ROWS)))
    random.Random(1).shuffle(order)
    merged = AnswerState.empty()
    for part in (order[:3], order[3:4], order[4:], order[:2]):  # the last one is a replay
        state = AnswerState.empty(questions=questions)
        merged.merge(state.update([str(n) for n in part], [ROWS[n][2] for n in part], [ROWS[n][1] for n in part]))
    assert merged.compute() == whole.compute()
    with pytest.raises(MetricError, match="different texts"):
        merged.merge(AnswerState.empty().update(["0"], ["other"], ["Yes."])).compute()
