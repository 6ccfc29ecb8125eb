"""What `--answers clean` takes of a text: each example of the documentation, and nothing of a plain answer."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

from microg.texts.clean import clean, cleaned
from microg.texts.files import read_text_predictions, read_text_references
from microg.texts.items import TextPredictions, TextRow
from tests.fuzzing.mutations import mutate

_PAGE = Path(__file__).resolve().parents[3] / "docs" / "protocols.md"
_EXAMPLES = re.findall(r'^(".*") +-> (".*")$', _PAGE.read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize(("written", "answer"), _EXAMPLES, ids=[written for written, _ in _EXAMPLES])
def test_each_example_of_the_documentation_holds(written: str, answer: str) -> None:
    assert clean(json.loads(written)) == json.loads(answer)
    assert clean(json.loads(answer)) == json.loads(answer)


def test_the_documentation_has_examples() -> None:
    assert len(_EXAMPLES) > 20


_PLAIN = ["", " ", "Two men.", " Two. \n", "It says 'A: B'.", "x < y > z", "{", "[1, 2]", '{"a": 1}', "3 * 2 ** 2", "*"]
_MARKERS = [
    "<think>",
    "</think>",
    "<answer>",
    "```",
    '{"answer": ',
    "[",
    "Answer:",
    "<|a|>",
    "**",
    "\\boxed{",
    "* ",
    '"',
]


@pytest.mark.parametrize("text", _PLAIN)
def test_a_text_that_is_nothing_but_an_answer_stays_bit_for_bit(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize("marker", _MARKERS)
def test_a_long_text_of_markers_alone_is_read_in_one_go(marker: str) -> None:
    text = marker * 100_000  # what looked at it again from each marker would not end
    assert len(clean(text)) <= len(text)


def test_no_mutation_of_the_examples_ends_in_an_exception() -> None:
    chance = random.Random(0)
    for written, _ in _EXAMPLES * 20:
        clean(mutate(json.loads(written).encode(), chance).decode("utf-8", "replace"))


def test_what_was_changed_is_counted_and_the_rest_is_the_same_row() -> None:
    rows = tuple(
        TextRow("caption", f"a_{number:03d}", texts, "here")
        for number, texts in enumerate([("Two.",), ("Answer: Two.",), ()])
    )
    plain, changed = cleaned(TextPredictions(rows, "m", ("note",)))
    assert changed == 1
    assert [row.texts for row in plain.rows] == [("Two.",), ("Two.",), ()]
    assert (plain.model, plain.notes, plain.rows[0]) == ("m", ("note",), rows[0])


@pytest.mark.parametrize("mark", [",", ";"])
def test_tables_of_answers_name_clips_by_path_and_ending_and_may_be_separated_by_semicolons(
    tmp_path: Path, mark: str
) -> None:
    lines = [
        ("video", "qa_index", "answer"),
        (r"D:\clips\a_000.MOV", "0.0", '"Two, or; three."'),
        ("/x/a_000.mp4", "1", "No"),
    ]
    path = tmp_path / "answers.csv"
    path.write_text("\n".join(map(mark.join, lines)))
    predictions = read_text_predictions(str(path))
    assert [(row.clip_id, row.qa_index, row.texts) for row in predictions.rows] == [
        ("a_000", 0, ("Two, or; three.",)),
        ("a_000", 1, ("No",)),
    ]
    by_path = tmp_path / "captions.json"
    by_path.write_text(json.dumps({"/data/videos/a_000.MOV": "A man floats."}))
    assert [key.clip_id for key in read_text_references(str(by_path)).texts] == ["a_000"]
