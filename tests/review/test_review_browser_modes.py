"""Each mode of the page played in a real browser, by keyboard, pointer and touch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from microg.annotations.boxes import Tracks, edited, interpolate, tracks_of
from microg.annotations.rows import Annotation, now
from microg.annotations.table import current
from microg.data.dataset import Dataset
from microg.review.store import Store
from tests.support.review_browser import (
    FRAMES,
    HOSTILE,
    Browsers,
    Server,
    chromium,
    gone_on,
    in_work,
    make_dataset,
    playing,
    saved,
    serving,
)

if TYPE_CHECKING:
    from playwright.sync_api import Locator


@dataclass
class Stage:
    """A server and a browser for all tests of this module, and an annotator of its own for each."""

    server: Server
    browsers: Browsers
    names: list[str]
    name: str = ""

    def page(self, mode: str, **looks: Any) -> Any:
        """Open the page as the test's annotator."""
        return self.browsers.page(self.server, self.name, mode, **looks)

    def standing(self, kind: str) -> list[Annotation]:
        """Return what the test's annotator said of a kind, and did not take back, as the server has it on the disk."""
        with closing(Store(self.server.root / "review/review.sqlite")) as store:
            rows = current(each for _, each in store.judgements())
        return [each for each in rows if each.kind == kind and each.annotator == self.name]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("review")
    names = [f"annotator{number}" for number in range(20)]
    chromium()
    make_dataset(folder / "ds", 4, people=2)
    options = ("--annotators", ",".join(names), "--annotators-each", str(len(names)))
    with serving(folder / "ds", *options) as server, playing(folder / "profiles") as browsers:
        yield Stage(server, browsers, names)


@pytest.fixture
def stage(started: Stage) -> Iterator[Stage]:
    started.name = started.names.pop()
    yield started
    started.browsers.close()


def test_clips_are_screened_by_keys_a_decision_is_changed_and_the_rest_is_kept_and_undone_at_once(stage: Stage) -> None:
    page = stage.page("screen")
    page.locator(".card").nth(3).wait_for()
    page.keyboard.press("k")
    page.keyboard.press("d")
    page.keyboard.press("2")
    assert page.locator(".card .state").all_inner_texts()[:3] == ["✓ keep", "✕ drop: cartoon", ""]
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")  # the player, on the clip that was dropped
    page.locator("dialog .player").wait_for()
    page.keyboard.press("d")
    page.keyboard.press("3")  # thought again
    page.keyboard.press("Escape")
    page.locator("dialog").wait_for(state="detached")
    page.keyboard.press("Shift+K")
    page.get_by_text("Keep 2 untouched clips?").wait_for()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="This page is done").wait_for()
    page.keyboard.press("u")  # both at once
    page.get_by_role("heading", name="2 clips of this page open").wait_for()
    page.keyboard.press("k")
    saved(page)
    said = {each.clip_id: dict(each.value) for each in stage.standing("screening")}
    kept = {"iss0_000": {"keep": True}, "iss0_001": {"keep": False, "reason": "not weightless"}}
    assert len(said) == 3
    assert said.items() >= kept.items()
    assert said.keys() - kept.keys() <= {"iss0_002", "iss0_003"}


def test_a_sixth_action_is_refused_with_a_sentence_and_actions_are_found_by_parts_and_copied(stage: Stage) -> None:
    page = stage.page("actions")
    task, _ = in_work(page)
    page.keyboard.press("/")
    for typed in ("tlk", "12", "watch", "touch", "read"):
        page.keyboard.type(typed)
        page.keyboard.press("Enter")
    chosen = page.locator(".chip.chosen").all_inner_texts()
    assert len(chosen) == 5
    assert chosen[0].startswith("talk to")
    page.keyboard.type("sit")
    page.keyboard.press("Enter")
    page.get_by_text("A person has at most 5 actions: take one away first.").wait_for()
    assert page.locator(".chip.chosen").count() == 5
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    gone_on(page, task)
    task, _ = in_work(page)
    page.keyboard.press("Enter")  # nothing was said yet
    page.get_by_text("Choose at least one action").wait_for()
    page.keyboard.press("0")
    page.keyboard.press("Enter")
    gone_on(page, task)
    task, clip = in_work(page)
    assert clip == "iss0_001"
    page.keyboard.press("c")
    assert page.locator(".chip.chosen").all_inner_texts() == sorted(chosen, key=_vocabulary_order(page))
    page.keyboard.press("Backspace")
    page.keyboard.press("Enter")
    gone_on(page, task)
    page.keyboard.press("u")
    page.keyboard.press("u")
    assert in_work(page)[1] == "iss0_000"
    saved(page)
    assert len(stage.standing("action")) == 1


def _vocabulary_order(page: Any) -> Any:
    """Return a key that sorts actions as the vocabulary does."""
    names = page.evaluate("import('/page/app.js').then(({ app }) => app.session.vocabulary.actions.map((a) => a.name))")
    return lambda chip: names.index(chip.split("\n")[0])


def test_captions_are_accepted_edited_and_rejected_by_keys_and_markup_in_them_stays_text(stage: Stage) -> None:
    page = stage.page("captions")
    task, _ = in_work(page)
    assert page.locator("textarea[name=caption]").input_value() == HOSTILE
    assert page.locator("img[src='x']").count() == 0
    assert page.title() == "station – review"
    page.keyboard.press("Enter")
    gone_on(page, task)
    task, _ = in_work(page)
    page.keyboard.press("e")
    page.keyboard.press("Control+End")
    page.keyboard.type(" Slowly.")
    page.get_by_text("Will be saved as you wrote it").wait_for()
    page.keyboard.press("Control+Enter")
    gone_on(page, task)
    task, _ = in_work(page)
    page.keyboard.press("r")
    page.keyboard.press("Enter")
    gone_on(page, task)
    saved(page)
    said = {each.clip_id: dict(each.value) for each in stage.standing("caption")}
    assert said["iss0_000"] == {"verdict": "accept", "caption": HOSTILE}
    assert said["iss0_001"] == {"verdict": "edit", "caption": "An astronaut floats through module 1. Slowly."}
    assert said["iss0_002"]["verdict"] == "reject"


def test_a_question_and_its_answer_are_judged_together(stage: Stage) -> None:
    page = stage.page("questions")
    task, _ = in_work(page)
    assert page.locator(".strip img").count() > 0
    page.locator("textarea[name=answer]").fill("Sleeping.")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    gone_on(page, task)
    saved(page)
    (said,) = stage.standing("qa")
    assert dict(said.value) == {"verdict": "edit", "question": "What is astronaut 0 doing?", "answer": "Sleeping."}


def test_people_are_split_merged_deleted_and_drawn_and_the_preview_is_what_the_dataset_will_hold(stage: Stage) -> None:
    page = stage.page("boxes")
    task, clip = in_work(page)
    _seek(page, 10)
    page.keyboard.press("s")  # person 1 is person 3 from frame 10
    page.get_by_text("Person 1 is person 3 from frame 10").first.wait_for()
    page.keyboard.press("2")
    page.keyboard.press("m")
    page.keyboard.press("3")  # person 2 becomes the third of the list
    page.get_by_text("Person 2 merged into person 3").first.wait_for()
    page.keyboard.press("1")
    page.keyboard.press("d")
    page.get_by_text("Person 1 deleted").first.wait_for()
    page.keyboard.press("u")  # and is back
    page.get_by_text("Undone: Person 1 deleted").wait_for()
    page.keyboard.press("w")
    picture = page.locator(".stage").bounding_box()
    for frame, left in ((3, 0.1), (13, 0.5)):
        _seek(page, frame)
        _drag(page, picture, (left, 0.2), (left + 0.3, 0.7))
    page.keyboard.press("Enter")
    page.get_by_text("Person 4 drawn with 2 key frames").first.wait_for()
    shown = page.evaluate("import('/page/app.js').then(({ app }) => app.view.tracksInView())")
    saved(page)
    page.keyboard.press("Enter")
    gone_on(page, task)
    saved(page)

    before = tracks_of(
        [row for row in Dataset.open(str(stage.server.root)).table("boxes").to_pylist() if row["clip_id"] == clip]
    )
    edits = stage.standing("box")
    assert [each.value["op"] for each in edits] == ["split", "merge", "draw"]
    after = edited(before, edits)
    assert sorted(after) == [1, 3, 4]
    assert {int(person): sorted(int(frame) for frame, _ in track) for person, track in shown} == {
        person: sorted(track) for person, track in after.items()
    }
    for person, track in shown:
        for frame, box in track:
            np.testing.assert_allclose(box, after[person][frame][:4], atol=0.02)
    # A third of the picture wide, where it was drawn, and half way on the frame half way.
    drawn = after[4]
    assert min(drawn) == 3
    assert max(drawn) == 13
    np.testing.assert_allclose(drawn[8][:4], (160 * 0.3, 90 * 0.2, 160 * 0.6, 90 * 0.7), atol=1.5)


def test_a_clip_that_was_done_is_opened_again(stage: Stage) -> None:
    page = stage.page("boxes")
    task, _ = in_work(page)
    page.keyboard.press("Enter")
    gone_on(page, task)
    saved(page)
    page.keyboard.press("u")
    page.wait_for_function("task => document.querySelector('.work').dataset.task === task", arg=task)
    page.keyboard.press("d")
    saved(page)
    (edit,) = stage.standing("box")
    assert dict(edit.value) == {"op": "delete"}


def test_a_person_is_drawn_by_keys_alone(stage: Stage) -> None:
    page = stage.page("boxes")
    in_work(page)
    page.keyboard.press("w")
    _seek(page, 2)
    page.keyboard.press("k")
    for _ in range(2):
        page.keyboard.press(">")  # ten frames at most; the clip has twenty
    _wait_for_frame(page, 20)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Enter")
    saved(page)
    (edit,) = stage.standing("box")
    (first, last) = edit.value["stretches"][0]
    assert (first[0], last[0]) == (2, 20)
    assert last[1] == pytest.approx(first[1] + 0.02 * 160, abs=0.02)
    assert last[4] == pytest.approx(first[4] + 0.02 * 160, abs=0.02)


def _tap_until_hidden(target: Locator) -> None:
    """Tap what a tap hides. A browser under load gets the touch and at times makes no click of it."""
    from playwright.sync_api import TimeoutError

    for _ in range(3):
        target.tap()
        with suppress(TimeoutError):
            return target.wait_for(state="hidden", timeout=5000)
    raise AssertionError("three taps did nothing")


def test_a_box_is_drawn_by_touch_on_a_phone(stage: Stage) -> None:
    page = stage.page("boxes", width=390, height=844, touch=True)
    in_work(page)
    page.get_by_role("button", name="Draw a person").tap()
    _seek(page, 5)
    place = page.locator(".stage").bounding_box()
    session = page.context.new_cdp_session(page)
    points = [(0.2, 0.2), (0.4, 0.5), (0.6, 0.8)]
    at = [{"x": place["x"] + place["width"] * x, "y": place["y"] + place["height"] * y} for x, y in points]
    session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [at[0]]})
    for point in at[1:]:
        session.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.get_by_role("button", name="Key frame 5").wait_for()
    _tap_until_hidden(page.get_by_role("button", name="Save boxes"))
    saved(page)
    (edit,) = stage.standing("box")
    (box,) = edit.value["stretches"][0]
    np.testing.assert_allclose(box, (5, 160 * 0.2, 90 * 0.2, 160 * 0.6, 90 * 0.8), atol=1.5)


def test_boxes_keep_in_step_with_the_frame_that_the_video_shows(stage: Stage) -> None:
    page = stage.page("actions")
    in_work(page)
    # The clip's frames tell their number: it is read off the picture in the moment in which boxes are drawn for it.
    seen = page.evaluate(
        """async () => {
          const { app } = await import("/page/app.js");
          const player = app.view.player;
          const read = new OffscreenCanvas(80, 48).getContext("2d", { willReadFrequently: true });
          const seen = [];
          await new Promise((resolve) => player.addEventListener("frame", () => {
            read.drawImage(player.video, 0, 0, 80, 48);
            const row = read.getImageData(0, 24, 80, 1).data;
            let number = 0;
            for (let bit = 0; bit < 10; bit += 1) if (row[4 * (8 * bit + 4)] > 128) number += 1 << bit;
            seen.push([player.frame, number + 1]);
            if (seen.length > 30) resolve();
          }));
          return seen;
        }"""
    )
    # A machine under load may show the next picture before the one before was read: never more than one, and rarely.
    late = [(told, shown) for told, shown in seen if told != shown]
    assert all((shown - told) % FRAMES == 1 for told, shown in late)
    assert len(late) <= len(seen) // 5
    assert len({told for told, _ in seen}) > FRAMES // 2
    for frame in (1, 7, 20):
        _seek(page, frame)


def test_the_page_interpolates_and_edits_as_the_dataset_does(stage: Stage) -> None:
    page = stage.page("boxes")
    keys = [[1, 0, 0, 4, 4], [5, 8, 2, 12, 9], [6, 8, 3, 12, 9]]
    shown = page.evaluate("keys => import('/page/tracks.js').then(({ interpolate }) => [...interpolate(keys)])", keys)
    np.testing.assert_allclose([box for _, box in shown], [box[:4] for _, box in interpolate(keys)])
    assert [frame for frame, _ in shown] == [frame for frame, _ in interpolate(keys)]

    tracks: Tracks = {
        person: {frame: (frame, 0.0, frame + 5.0, 9.0, None) for frame in range(1, 9)} for person in (1, 2, 3)
    }
    values = [
        (1, {"op": "split", "frame": 4, "new": 7}),
        (2, {"op": "merge", "into": 7}),
        (3, {"op": "draw", "stretches": [keys, [[9, 1, 1, 2, 2]]]}),
        (2, {"op": "delete"}),
        (1, {"op": "split", "frame": 1, "new": 8}),
        (8, {"op": "merge", "into": 9}),
    ]
    about = {"clip_id": "a_000", "kind": "box", "annotator": "anna", "source": "app", "time": now()}
    edits = [
        Annotation(annotation_id=f"{number}", person_id=person, value=value, **about)  # pyright: ignore
        for number, (person, value) in enumerate(values)
    ]
    people = [
        {"person_id": person, "boxes": [[frame, *box[:4]] for frame, box in track.items()]}
        for person, track in tracks.items()
    ]
    result = page.evaluate(
        """([people, edits]) => import("/page/tracks.js").then(({ tracksOf, edited }) =>
          [...edited(tracksOf(people), edits)].map(([person, track]) => [person, [...track]]))""",
        [people, [{"person_id": person, "value": value} for person, value in values]],
    )
    expected = {
        person: {frame: box[:4] for frame, box in track.items()} for person, track in edited(tracks, edits).items()
    }
    assert {person: {frame: pytest.approx(tuple(box)) for frame, box in track} for person, track in result} == expected


def test_typing_finds_an_action_by_id_name_group_or_definition_with_letters_left_out(stage: Stage) -> None:
    page = stage.page("actions")
    actions = [
        {"id": 12, "name": "stand", "group": "PERSON_MOVEMENT"},
        {"id": 79, "name": "talk to (e.g., self, a person, a group)", "group": "PERSON_INTERACTION"},
        {"id": 120, "name": "take a photo", "group": "OBJECT_MANIPULATION"},
        {"id": 30, "name": "fasten", "group": "OBJECT_MANIPULATION", "definition": "Turn a screw or close a strap."},
    ]
    first = {
        "talk": 79,
        "tlk": 79,
        "tlak": 79,
        "12": 12,
        "STAND": 12,
        "stadn": 12,
        "photo": 120,
        "manipul screw": 30,
        "zzzz": None,
    }
    found = page.evaluate(
        """([actions, typed]) => import("/page/search.js").then(({ search }) =>
          typed.map((words) => search(actions, words)[0]?.id ?? null))""",
        [actions, list(first)],
    )
    assert dict(zip(first, found, strict=True)) == first


def _seek(page: Any, frame: int) -> None:
    """Pause at a frame, and wait until its boxes are drawn."""
    page.evaluate("frame => import('/page/app.js').then(({ app }) => app.view.player.seek(frame))", frame)
    _wait_for_frame(page, frame)


def _wait_for_frame(page: Any, frame: int) -> None:
    page.wait_for_function(
        "frame => document.querySelector('.counter').textContent.startsWith(`frame ${frame} `)", arg=frame
    )


def _drag(page: Any, picture: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    points = [(picture["x"] + picture["width"] * x, picture["y"] + picture["height"] * y) for x, y in (start, end)]
    page.mouse.move(*points[0])
    page.mouse.down()
    page.mouse.move(*points[1], steps=4)
    page.mouse.up()
