"""Texts from data neither run, nor steer, nor break out, whatever they are written into."""

from __future__ import annotations

import csv
import io
import json
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from microg.escaping import csv_text, json_text, latex_text, markdown_text, visible, visible_line
from tests.support import hostile
from tests.support.hostile import HOSTILE

_TEXTS = st.one_of(st.text(max_size=40), st.lists(st.sampled_from([*HOSTILE, *"=+-@|;\n\r\t\\$[]{}"])).map("".join))


@given(_TEXTS)
def test_whatever_is_visible_can_be_printed_and_what_could_be_already_is_unchanged(text: str) -> None:
    shown = visible(text)
    hostile.check_plain(shown)
    shown.encode()
    assert visible(shown) == shown
    assert "\n" not in visible_line(text)


def test_letters_of_every_script_stay_as_they_are() -> None:
    for text in ("漂う宇宙飛行士", "رائد فضاء", "शून्य\u200dगुरुत्व", "👩‍🚀 é\u3000ß", "tab\tand\nline"):
        assert visible(text) == text
        assert json.loads(json_text(text)) == text


@given(_TEXTS)
def test_json_says_the_same_and_can_be_printed(text: str) -> None:
    written = json_text({"a": [text]})
    hostile.check_plain(written)
    assert json.loads(written) == {"a": [text]}


@given(st.lists(st.tuples(_TEXTS, _TEXTS, st.integers()), min_size=1, max_size=3))
def test_csv_keeps_its_cells_and_has_no_formulas(rows: list[tuple[str, str, int]]) -> None:
    text = csv_text(("a", "b", "c"), rows)
    hostile.check_csv(text)
    read = list(csv.reader(io.StringIO(text)))[1:]
    assert len(read) == len(rows)
    for (first, _, number), cells in zip(rows, read, strict=True):
        assert cells[0].replace("'", "") == visible(first).replace("'", "")
        assert int(cells[2]) == number


@given(_TEXTS)
def test_markdown_shows_the_text_as_it_is(text: str) -> None:
    written = f"| a |\n| --- |\n| {markdown_text(text)} |\n"
    hostile.check_markdown(written)
    tokens = MarkdownIt("commonmark").enable("table").parse(written)
    cell = [token for token in tokens if token.type == "inline"][1]
    assert "".join(part.content for part in cell.children or []) == visible(" ".join(text.split()))
    (paragraph,) = [token for token in MarkdownIt("commonmark").parse(f"- {markdown_text(text)}x") if token.children]
    assert unescape("".join(part.content for part in paragraph.children or [])).endswith("x")


@given(_TEXTS)
def test_latex_has_no_command_of_the_text(text: str) -> None:
    hostile.check_latex(f"{latex_text(text)} & b \\\\")


@pytest.mark.parametrize("text", HOSTILE)
def test_the_checks_themselves_see_a_text_that_is_not_escaped(text: str) -> None:
    """Each hostile text is refused by at least one reader when it is written as it stands."""
    refused = 0
    for written, check in (
        (f"a\n{text}\n", hostile.check_csv),
        (f"| a |\n| --- |\n| {text} |\n", hostile.check_markdown),
        (f"{text} & b \\\\", hostile.check_latex),
        (text, hostile.check_plain),
    ):
        try:
            check(written)
        except (AssertionError, ValueError):
            refused += 1
    assert refused
