"""The dataset page: one file, escaped, complete; in a browser it fetches nothing and fits a phone."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from microg.data.dataset import Dataset
from microg.reports.clips.cards import clip_cards, gallery_cards
from microg.reports.clips.pictures import Box, draw_boxes, key_frame, person_colour
from microg.reports.html import render_page
from microg.reports.pages.dataset_page import flatten, write_dataset_page
from microg.validation import validate
from tests.support.browser import look
from tests.support.helpers import make_dataset

_EVIL = "<script>alert('x')</script> & \"quoted\" </section>"
_VOID = {"meta", "img", "br", "link", "input"}


class _Page(HTMLParser):
    """Collects tags, links and text, and checks that tags nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _parse(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    assert page.open == []
    return page


def _evil(rows: dict[str, list[dict[str, Any]]]) -> None:
    rows["captions"][0]["caption"] = _EVIL
    rows["qa"][0].update(question=_EVIL, answer=_EVIL)
    rows["clips"][3].update(status="rejected")
    rows["decisions"][3].update(keep=False, reason=_EVIL, score=12.5)
    rows["sources"].append({"source_id": "torn", "status": "error", "error": f"VideoError: {_EVIL}"})
    rows["boxes"][0]["x1"] = -5.0


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    dataset = make_dataset(root / "data", _evil)
    path = root / "page.html"
    write_dataset_page(dataset, str(path), run_summary={"run": {"name": _EVIL, "clips": 1234}})
    return path


def test_the_page_has_every_section_and_its_tags_nest(page_path: Path) -> None:
    page = _parse(page_path)
    text = page_path.read_text(encoding="utf-8")
    for anchor in ("summary", "clips", "rejected", "plots", "validation", "tables"):
        assert f'<section id="{anchor}">' in text
        assert f"#{anchor}" in page.links
    # 3 kept clips, 1 rejected clip with a picture, 10 plots
    assert page.tags.count("img") == 14


def test_the_page_fetches_nothing_and_runs_nothing(page_path: Path) -> None:
    page = _parse(page_path)
    assert "script" not in page.tags
    assert all(link.startswith(("data:image/", "#")) for link in page.links)
    style = page_path.read_text(encoding="utf-8").split("<style>")[1].split("</style>")[0]
    assert not re.search(r"url\(|@import|https?:", style)
    assert "Content-Security-Policy" in page_path.read_text(encoding="utf-8")


def test_text_from_data_is_shown_as_text(page_path: Path) -> None:
    shown = "".join(_parse(page_path).text)
    # caption, question, answer, reason (three places: reasons, card, table), source error, run summary
    assert shown.count("<script>alert('x')</script>") >= 8
    assert "<script" not in page_path.read_text(encoding="utf-8")


def test_the_page_states_counts_reasons_scores_and_findings(page_path: Path) -> None:
    text = re.sub(r"\s+", " ", "".join(_parse(page_path).text))
    assert "3clips kept" in text
    assert "1clips rejected" in text
    assert "score 12.50, threshold 60" in text
    assert "run.clips1,234" in text
    assert "box_outside_frame" in text
    assert "torn" in text


def test_pages_of_the_same_dataset_are_the_same_bytes(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data")
    for name in ("one", "two"):
        write_dataset_page(dataset, str(tmp_path / f"{name}.html"), max_clips=2)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    assert "2 of 4 kept clips" in (tmp_path / "one.html").read_text()


def test_a_dataset_without_anything_still_gives_a_page(tmp_path: Path) -> None:
    write_dataset_page(Dataset.create(str(tmp_path / "data"), name="empty"), str(tmp_path / "page.html"))
    page = _parse(tmp_path / "page.html")
    assert "no captions: no caption lengths and words" in "".join(page.text)


def test_a_clip_whose_video_is_broken_says_so_instead_of_a_picture(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data")
    (tmp_path / "data" / "videos" / "filmA_000.mp4").write_bytes(b"no video")
    write_dataset_page(dataset, str(tmp_path / "page.html"), report=validate(dataset))
    text = "".join(_parse(tmp_path / "page.html").text)
    assert "no picture:" in text
    assert "video_unreadable" in text


def test_cards_name_people_their_actions_and_questions_in_order(tmp_path: Path) -> None:
    cards = {card.clip_id: card for card in gallery_cards(make_dataset(tmp_path), 10)}
    assert list(cards) == ["filmA_000", "filmA_001", "tourB_000", "walkC_000"]
    people = cards["tourB_000"].people
    assert [(line.person_id, line.actions) for line in people] == [
        (1, ("stand", "carry/hold (an object)")),
        (2, ("stand", "watch (a person)")),
    ]
    assert cards["tourB_000"].questions[0][0] == "What floats?"
    assert cards["tourB_000"].details == "real, 96x64, 12 frames, 30 fps"


def test_the_picture_shows_the_sampled_frame_with_boxes_where_they_belong(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    (row,) = [row for row in dataset.table("clips").to_pylist() if row["clip_id"] == "walkC_000"]
    (card,) = clip_cards(dataset, [row])
    assert card.picture is not None
    data = np.frombuffer(base64.b64decode(card.picture.partition(",")[2]), np.uint8)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    picture = decoded[:, :, ::-1].astype(int)
    assert picture.shape == (320, 480, 3)
    colour = np.array([int(person_colour(1)[start : start + 2], 16) for start in (1, 3, 5)])
    # The box of frame 6 (35, 18, 59, 42) at scale 5: its right edge is at x 295, y 90 to 210.
    edge = np.abs(picture[100:200, 293:298] - colour).sum(axis=2).min(axis=1)
    assert (edge < 60).mean() > 0.9
    assert np.abs(picture[100:200, 330:335] - colour).sum(axis=2).min() > 60


def test_drawn_boxes_scale_with_the_picture() -> None:
    drawn = draw_boxes(np.zeros((100, 960, 3), np.uint8), [Box(2, 480, 20, 720, 80)])
    assert drawn.shape == (50, 480, 3)
    assert drawn[25, 360].tolist() == [0x56, 0xB4, 0xE9]
    assert drawn[25, 300].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("frames", "sampled", "expected"),
    [([3, 4, 5], [], 4), ([3, 4, 4, 5], [], 4), ([1, 2, 2, 9, 9], [], 9), ([3, 4], [7, 5], 5), ([], [], None)],
)
def test_the_key_frame_is_a_sample_or_the_middle_of_the_fullest_frames(
    frames: list[int], sampled: list[int], expected: int | None
) -> None:
    assert key_frame(np.array(frames, int), np.array(sampled, int)) == expected


def test_nested_summaries_become_dotted_keys() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": [1, 2]}}, "e": None}) == [("a.b", "1"), ("a.c.d", "1, 2"), ("e", "-")]


def test_sections_that_have_nothing_to_show_are_left_out() -> None:
    assert "<section" not in render_page("t", "s", [None, None])


def test_a_browser_fits_the_page_on_a_phone_and_fetches_nothing(page_path: Path, tmp_path: Path) -> None:
    seen = look(page_path, tmp_path)
    assert (seen["width"], seen["needed"]) == (390, 390)
    assert seen["images"] == 14
    assert seen["blank"] == []
    assert seen["fetched"] == []
    assert seen["console"] == []
