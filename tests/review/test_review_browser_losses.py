"""Nothing that was typed or clicked is lost: the browser or the server is killed, the network or a lease ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from microg.annotations.table import current, read_annotations
from microg.data.dataset import Dataset
from tests.support.review_browser import (
    Browsers,
    Server,
    gone_on,
    in_work,
    kill_browser,
    make_dataset,
    playing,
    saved,
    serving,
)

REFUSED = "Failed to load resource"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    make_dataset(tmp_path / "ds", 4)
    with serving(tmp_path / "ds", "--annotators", "anna,ben", "--lease", "5") as started:
        yield started


@pytest.fixture
def browsers(tmp_path: Path) -> Iterator[Browsers]:
    with playing(tmp_path / "profiles") as started:
        yield started


def _said(server: Server, browsers: Browsers) -> dict[tuple[str, str], Any]:
    browsers.close()
    server.end()
    rows = current(read_annotations(Dataset.open(str(server.root))))
    assert len({each.about for each in rows}) == len(rows)
    return {(each.annotator, each.clip_id): dict(each.value) for each in rows}


def test_a_page_that_is_loaded_again_shows_the_same_item_with_what_was_typed(
    server: Server, browsers: Browsers
) -> None:
    page = browsers.page(server, "anna", "captions")
    task, _ = in_work(page)
    page.locator("textarea").fill("Half a sentence")
    page.reload()
    assert in_work(page)[0] == task
    page.get_by_text("What you had entered here was put back.").wait_for()
    assert page.locator("textarea").input_value() == "Half a sentence"


def test_a_browser_that_is_killed_finds_what_was_typed_a_moment_before(
    server: Server, browsers: Browsers, tmp_path: Path
) -> None:
    page = browsers.page(server, "anna", "captions", keep=True)
    task, _ = in_work(page)
    page.locator("textarea").press_sequentially("Typed, then the power went")
    text = page.locator("textarea").input_value()
    page.wait_for_timeout(500)
    kill_browser(tmp_path / "profiles")
    page = browsers.page(server, "anna", "captions", keep=True)
    assert in_work(page)[0] == task
    assert page.locator("textarea").input_value() == text
    assert text.endswith("Typed, then the power went")


def test_a_server_that_is_killed_and_started_again_gets_what_was_saved_meanwhile_once(
    server: Server, browsers: Browsers
) -> None:
    page = browsers.page(server, "anna", "captions")
    browsers.expect(REFUSED)
    for _ in range(2):
        task, _ = in_work(page)
        page.keyboard.press("Enter")
        gone_on(page, task)
    saved(page)
    server.kill()
    task, _ = in_work(page)
    page.keyboard.press("Enter")  # what was fetched ahead goes on without the server
    gone_on(page, task)
    page.get_by_text("1 not yet saved, trying again").wait_for()
    page.locator("textarea").fill("Written without a server")
    server.start()
    saved(page)
    page.keyboard.press("Control+Enter")
    saved(page)
    page.get_by_text("Nothing is left for you here now.").wait_for()
    said = _said(server, browsers)
    assert len(said) == 4
    assert {"verdict": "edit", "caption": "Written without a server"} in said.values()


def test_an_answer_that_gets_lost_on_the_way_is_not_saved_twice(server: Server, browsers: Browsers) -> None:
    page = browsers.page(server, "anna", "captions")
    browsers.expect(REFUSED)
    lost: list[str] = []

    def lose(route: Any) -> None:
        if lost:
            return route.continue_()
        lost.append(route.request.post_data_json["annotation_id"])
        route.fetch()  # the server gets it, and the page no answer
        return route.abort()

    page.route("**/api/save", lose)
    task, clip = in_work(page)
    page.keyboard.press("Enter")
    gone_on(page, task)
    page.get_by_text("1 not yet saved").wait_for()
    saved(page)
    browsers.close()
    server.end()
    rows = read_annotations(Dataset.open(str(server.root)))
    assert [(each.annotation_id, each.clip_id) for each in rows] == [(lost[0], clip)]


def test_an_item_whose_time_ran_out_is_said_so_and_taken_again_with_what_was_typed(
    server: Server, browsers: Browsers
) -> None:
    page = browsers.page(server, "anna", "captions", clock=True)
    _, clip = in_work(page)
    page.locator("textarea").fill("Written before lunch")
    page.clock.fast_forward("10:00")  # nobody touches the page; its leases are not renewed
    page.get_by_text("The time for this item ran out").wait_for()
    page.get_by_role("button", name="Take it again").click()
    page.get_by_text("The item is yours again.").wait_for()
    page.keyboard.press("Enter")
    saved(page)
    assert _said(server, browsers) == {("anna", clip): {"verdict": "edit", "caption": "Written before lunch"}}


def test_an_entry_for_an_item_that_somebody_else_took_is_kept_and_not_saved(server: Server, browsers: Browsers) -> None:
    anna = browsers.page(server, "anna", "captions", clock=True)
    browsers.expect(REFUSED)
    task, clip = in_work(anna)
    anna.locator("textarea").fill("Too late")
    anna.clock.fast_forward("10:00")
    anna.get_by_text("The time for this item ran out").wait_for()
    ben = browsers.page(server, "ben", "captions")
    ben.wait_for_timeout(5_500)  # until the server gives Anna's item to others
    ben.reload()
    while in_work(ben)[0] != task:
        other, _ = in_work(ben)
        ben.keyboard.press("n")
        gone_on(ben, other)
    ben.keyboard.press("Enter")
    saved(ben)
    anna.get_by_role("button", name="Take it again").click()
    anna.locator(".message.strong").wait_for()
    anna.keyboard.press("Enter")
    anna.get_by_text(f"{clip} was not saved").wait_for()
    anna.get_by_role("button", name="Kept entries: 1").click()
    anna.locator("dialog").get_by_text(f"Captions: {clip}").wait_for()
    anna.locator("dialog").get_by_role("button", name="Throw away").click()
    assert anna.locator(".kept li").count() == 0
    said = _said(server, browsers)
    assert said["ben", clip]["verdict"] == "accept"
    assert ("anna", clip) not in said


def test_who_has_no_token_is_asked_for_it_and_a_wrong_one_is_refused(server: Server, browsers: Browsers) -> None:
    page = browsers.page(server, "anna")
    browsers.expect(REFUSED)
    page.context.clear_cookies()
    page.reload()
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Go on").click()
    page.get_by_text("this token is nobody's").wait_for()
    page.get_by_label("Token").fill(server.links["ben"].split("token=")[1])
    page.get_by_role("button", name="Go on").click()
    page.locator("header .who", has_text="ben").wait_for()
    assert "token" not in page.url
