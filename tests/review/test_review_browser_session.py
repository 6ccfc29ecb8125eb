"""A whole session in a browser: two annotators label the same clips, a third decides, the dataset has the labels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from microg.annotations.table import read_annotations
from microg.data.dataset import Dataset
from microg.pipelines.har.train.checks import check_and_plan
from tests.support.processes import microg
from tests.support.review_browser import Browsers, Server, gone_on, in_work, make_dataset, playing, saved, serving
from tests.support.training import run_alone, tiny_config

CLIPS = [f"iss{number // 6}_{number:03d}" for number in range(12)]
# What each annotator says of the person of each clip. They differ in three of twelve: one action that only one saw
# (001), two different actions (004), and one who cannot tell (009; None).
ANNA: dict[str, list[int] | None] = {clip: [12, 79] if number % 2 else [12] for number, clip in enumerate(CLIPS)}
BEN: dict[str, list[int] | None] = {**ANNA, "iss0_001": [12], "iss0_004": [14], "iss1_009": None}
# The adjudicator takes Anna's word, then Ben's, then says something of her own.
CARA = {"iss0_001": [12, 79], "iss0_004": [14], "iss1_009": [12, 61]}
ACCEPTED = {**ANNA, **CARA}


@pytest.fixture
def browsers(tmp_path: Path) -> Iterator[Browsers]:
    with playing(tmp_path / "profiles") as started:
        yield started


def test_two_annotators_differ_on_three_of_twelve_clips_and_a_third_decides_what_the_dataset_holds(
    tmp_path: Path, browsers: Browsers, capsys: pytest.CaptureFixture[str]
) -> None:
    make_dataset(tmp_path / "ds")
    people = ("--annotators", "anna,ben", "--adjudicators", "cara", "--annotators-each", "2")
    with serving(tmp_path / "ds", *people) as server:
        anna, ben = (browsers.page(server, name, "actions") for name in ("anna", "ben"))
        for _ in CLIPS:  # at the same time, in turns
            _label(anna, ANNA)
            _label(ben, BEN)
        for page in (anna, ben):
            page.get_by_text("Nothing is left for you here now.").wait_for()
            saved(page)
        _adjudicate(browsers, server)
        browsers.close()
        assert "27 judgements saved" in server.end()

    dataset = Dataset.open(str(tmp_path / "ds"))
    rows = [each for each in read_annotations(dataset) if each.kind == "action"]
    said = {(each.annotator, each.clip_id, each.adjudicated): dict(each.value) for each in rows}
    assert len(rows) == len(said) == 27
    for name, judged, adjudicated in (("anna", ANNA, False), ("ben", BEN, False), ("cara", CARA, True)):
        assert {clip: said[name, clip, adjudicated] for clip in judged} == {
            clip: {"actions": []} | {"cannot_tell": True} if actions is None else {"actions": actions}
            for clip, actions in judged.items()
        }
    _compare_agreement(dataset.root, capsys)
    assert microg("data", "adjudicate", dataset.root, "--rule", "adjudicated", "--kinds", "action") == 0
    held: dict[str, list[int]] = {}
    for row in Dataset.open(dataset.root).table("actions").to_pylist():
        held.setdefault(row["clip_id"], []).append(row["action_id"])
    assert {clip: sorted(actions) for clip, actions in held.items()} == ACCEPTED
    _train(dataset.root, tmp_path / "run")


def _compare_agreement(dataset: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Compare what `microg data agreement` says with counts by hand.

    Both could tell of eleven people. Action 79: Anna saw it five times, Ben four of these, so 10 of 11 are the same and
    by chance (5 * 4 + 6 * 7) / 121 would be: kappa is (110 - 62) / (121 - 62). Action 12: Anna always, Ben ten times.
    """
    capsys.readouterr()
    assert microg("data", "agreement", dataset, "--kinds", "action", "--resamples", 0, "--json") == 0
    found = json.loads(capsys.readouterr().out)["kinds"]["action"]
    assert (found["units"], found["differing"]) == (11, 2)
    values = {(row["slice"], row["metric"], row["other"]): row["value"] for row in found["scores"]}
    assert values["all", "observed", "ben"] == pytest.approx(9 / 11, abs=1e-6)
    assert values["79", "kappa", "ben"] == pytest.approx(48 / 59, abs=1e-6)
    assert values["79", "observed", None] == pytest.approx(10 / 11, abs=1e-6)
    assert values["12", "kappa", "ben"] == 0
    confused = found["confusions"][0]
    assert (confused["first"], confused["second"]) == ("12 stand", "14 walk")


def _train(dataset: str, run: Path) -> None:
    """Split the dataset, and train a tiny model on what people said of it."""
    assert microg("data", "split", dataset, "--scheme", "published") == 0
    config = tiny_config(batch=4, micro_batch=2, epochs=1)
    setup = check_and_plan(config, dataset, str(run))
    labels = {label for row in setup.train_rows["labels"].to_pylist() for person in row for label in person}
    assert labels <= {12, 14, 61, 79}
    finished, _ = run_alone(setup)
    assert finished
    assert (run / "checkpoints" / "best.pt").is_file()


def _label(page: Any, judged: dict[str, list[int] | None]) -> None:
    """Judge the person on the screen by keyboard, and go on."""
    task, clip = in_work(page)
    actions = judged[clip]
    if actions is None:
        page.keyboard.press("x")
    else:
        page.keyboard.press("/")
        for action in actions:
            page.keyboard.type(str(action))
            page.keyboard.press("Enter")
        page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    gone_on(page, task)


def _adjudicate(browsers: Browsers, server: Server) -> None:
    page = browsers.page(server, "cara", "adjudicate")
    for _ in CARA:
        task, clip = in_work(page)
        who = page.locator(".said .who").all_inner_texts()
        place = {name: str(number) for number, text in enumerate(who, 1) for name in ("anna", "ben") if name in text}
        assert page.locator(".said .differs").count() > 0
        if clip == "iss1_009":
            page.keyboard.press("m")
            page.keyboard.type("The hatch hides the hands.")
            page.keyboard.press("Control+Enter")
            page.get_by_text("The note was added.").wait_for()
            page.keyboard.press("Escape")
            page.keyboard.press("/")
            for action in CARA[clip]:
                page.keyboard.type(str(action))
                page.keyboard.press("Enter")
            page.keyboard.press("Escape")
        else:
            page.keyboard.press(place["anna" if clip == "iss0_001" else "ben"])
        page.keyboard.press("Enter")
        gone_on(page, task)
    page.get_by_text("Nothing is left for you here now.").wait_for()
    saved(page)
